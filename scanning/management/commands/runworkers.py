"""Run workers alone: more capacity on another host, with nothing else to configure."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from scanning.management.commands.runmonitor import region_list
from scanning.runtime.region_workers import RegionWorkers


class Command(BaseCommand):
    help = "Run the workers of all regions, or of some, until SIGTERM or Ctrl-C."
    requires_system_checks = ("configuration",)  # others load every page: 20 MiB

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--regions", type=region_list, default=[], metavar="R1,R2", help="only these regions"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        RegionWorkers(only=options["regions"]).run()
