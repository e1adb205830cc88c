"""List the objects that a held mass deletion concerns, before somebody confirms it."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from scanning import engine
from scanning.core.texts import printable
from scanning.inspection.held import csv_lines
from scanning.management.base import EngineCommand

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from scanning.core.types import ObjectState
    from scanning.inspection.held import HeldObjects

_SHOWN = 100


class Command(EngineCommand):
    help = (
        "List the objects that a held mass deletion of a bucket concerns: how many, and the first "
        f"{_SHOWN}, or all of them as CSV. Changes nothing. "
        "Exit status: 0 listed, or nothing is held; 1 it cannot be told: what is known of the "
        "bucket is damaged, the hold ended meanwhile, or Redis does not answer; 2 an unknown "
        "bucket."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("bucket", metavar="BUCKET")
        parser.add_argument("--csv", action="store_true", help="all of them, as CSV")

    def handle(self, *args: Any, **options: Any) -> None:
        held = engine.held_objects(options["bucket"])
        if options["csv"]:
            if held.since is None:
                self.stderr.write(f"{held.title}: no deletion is held")
            for line in csv_lines(held.objects):
                self.stdout.write(line, ending="")
        else:
            self._print(held)

    def _print(self, held: HeldObjects) -> None:
        if held.since is None:
            self.stdout.write(f"{held.title}: no deletion is held")
            return
        self.stdout.write(f"{held.title}: {held.count:,} missing, held since {_utc(held.since)}")
        for key, state in islice(held.objects, _SHOWN):
            self.stdout.write(_line(key, state))
        if held.count > _SHOWN:
            self.stdout.write(f"… and {held.count - _SHOWN:,} more: --csv lists all")


def _line(key: str, state: ObjectState) -> str:
    etag = printable(state.etag) or "(empty)"
    return f"  {printable(key)}  {state.size} bytes, {_utc(state.last_modified)}, ETag {etag}"


def _utc(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"
