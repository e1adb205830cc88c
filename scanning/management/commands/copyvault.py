"""Copy what the embedded vault holds into Infisical."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scanning import engine
from scanning.management.base import EngineCommand

if TYPE_CHECKING:
    from argparse import ArgumentParser


class Command(EngineCommand):
    help = (
        "Copy the entries of the embedded vault into Infisical, and leave alone those that are "
        "there already. The embedded vault stays as it is. Exit status: 0 all are there now."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="show only; write nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        embedded, infisical = engine.both_vaults()
        names, there = embedded.names(), infisical.names()
        missing = sorted(names - there)
        if missing and not options["dry_run"]:
            infisical.write_many(embedded.read_secrets(missing))
        for name in missing:
            self.stdout.write(name)
        verb = "would be copied" if options["dry_run"] else "copied"
        self.stdout.write(f"{len(missing)} {verb}, {len(names & there)} were there already.")
