"""Run bucketwatch on this host: schedule, workers, and the web server."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from scanning.runtime.monitor import MultiRegionMonitor


def region_list(text: str) -> list[str]:
    return [region.strip() for region in text.split(",") if region.strip()]


class Command(BaseCommand):
    help = "Run the scheduler, the workers and the web server until SIGTERM or Ctrl-C."
    # Others load every page: 20 MiB.
    requires_system_checks = ("configuration", "configuration_file")

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--no-web", action="store_true", help="do not serve HTTP here")
        parser.add_argument("--no-workers", action="store_true", help="do not scan here")
        parser.add_argument(
            "--regions",
            type=region_list,
            default=[],
            metavar="R1,R2",
            help="scan only these regions here (default: all)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        MultiRegionMonitor(
            web=not options["no_web"], workers=not options["no_workers"], regions=options["regions"]
        ).run()
