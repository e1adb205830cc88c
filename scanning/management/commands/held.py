"""List the objects that are held in a bucket, before somebody decides about them."""

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

    from scanning.inspection.held import HeldObject, HeldObjects

_SHOWN = 100


class Command(EngineCommand):
    help = (
        "List the objects that a held mass deletion, or a held storm of moved times, of a bucket "
        f"concerns: how many, and the first {_SHOWN}, or all of them as CSV. Changes nothing. "
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
            if not held.is_any:
                self.stderr.write(f"{held.title}: nothing is held")
            for line in csv_lines(held.objects):
                self.stdout.write(line, ending="")
        else:
            self._print(held)

    def _print(self, held: HeldObjects) -> None:
        if not held.is_any:
            self.stdout.write(f"{held.title}: nothing is held")
        kinds = [
            ("missing", held.missing, held.missing_since),
            ("with another time only", held.moved, held.moved_since),
        ]
        for what, objects, since in kinds:
            if since is not None:
                self.stdout.write(
                    f"{held.title}: {objects:,} of {held.known:,} objects {what}, held since "
                    f"{_utc(since)}"
                )
        for one in islice(held.objects, _SHOWN):
            self.stdout.write(_line(one))
        if held.count > _SHOWN:
            self.stdout.write(f"… and {held.count - _SHOWN:,} more: --csv lists all")


def _line(held: HeldObject) -> str:
    state, etag = held.state, printable(held.state.etag) or "(empty)"
    time = _utc(state.last_modified)
    if held.moved_to is not None:
        time += f" (now {_utc(held.moved_to)})"
    return f"  {printable(held.key)}  {state.size} bytes, {time}, ETag {etag}"


def _utc(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"
