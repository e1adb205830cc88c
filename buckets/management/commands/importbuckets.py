"""Import buckets from a YAML file, or from the Redis and vault of an older monitor."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError

from buckets.formatting import join_some
from buckets.importing import plan, sources
from scanning.management.base import EngineCommand

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from buckets.importing.plan import Plan, Planned

_NAMED = 5


class Command(EngineCommand):
    help = (
        "Import buckets from a YAML file, or from the Redis and vault of an older monitor, and "
        "leave those alone that are here. Exit status: 0 all are here now, 1 some were refused."
    )
    sleep = staticmethod(time.sleep)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "file",
            nargs="?",
            type=Path,
            metavar="FILE",
            help="YAML file; without it, Redis is read",
        )
        parser.add_argument(
            "--first-scan",
            choices=["baseline", "announce"],
            metavar="MODE",
            default="baseline",
            help="objects that nobody knew before: only remember them (baseline, the default), "
            "or announce them",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="show what would be done, and write nothing"
        )
        parser.add_argument(
            "--force", action="store_true", help="import although the older monitor still runs"
        )
        parser.add_argument(
            "--wait",
            type=float,
            metavar="S",
            help="seconds between two looks whether the older monitor still scans (default: until "
            "it scans a bucket again if it runs; 10 at least, a polling interval more at most)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        planned = self._plan(options["file"], options["first_scan"])
        self._show(planned)
        if options["file"] is None and planned.count("import"):
            self._look_for_the_older_monitor(
                options["wait"], only_warn=options["force"] or options["dry_run"]
            )
        problems = [] if options["dry_run"] else self._carry_out(planned)
        self._sum_up(planned, problems, would=options["dry_run"])

    def _carry_out(self, planned: Plan) -> list[str]:
        if not self.stdout.isatty():
            return plan.carry_out(planned)
        total = planned.count("import")

        def show(through: int) -> None:
            self.stdout.write(f"\r{through:,} of {total:,} imported", ending="")
            self.stdout.flush()

        problems = plan.carry_out(planned, progress=show)
        self.stdout.write("")
        return problems

    def _plan(self, file: Path | None, first_scan: str) -> Plan:
        if file is None:
            found = sources.from_redis(first_scan=first_scan)
        else:
            found = sources.from_file(file, first_scan=first_scan)
        return plan.plan(*found)

    def _look_for_the_older_monitor(self, wait_s: float | None, *, only_warn: bool) -> None:
        if wait_s is None:
            wait_s = sources.watch_for_s(now=time.time())
        self.stdout.write(f"Looking for {wait_s:.0f} s whether the older monitor still scans …")
        moved = sources.buckets_scanned_elsewhere(wait_s=wait_s, sleep=self.sleep)
        if not moved:
            return
        text = (
            f"The older monitor still runs: it has just scanned {join_some(moved, limit=_NAMED)}. "
            "Stop it first, or each event is announced twice."
        )
        if not only_warn:
            raise CommandError(f"{text} Nothing was imported (--force does it all the same).")
        self.stderr.write(self.style.WARNING(text))

    def _show(self, planned: Plan) -> None:
        head = ("BUCKET", "ENDPOINT", "CREDENTIAL", "SCANNED", "ANNOUNCED", "OUTCOME")
        table = [head, *map(_row, planned.rows)]
        widths = [max(len(row[column]) for row in table) for column in range(5)]
        for line in table:
            cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
            self.stdout.write("  ".join([*cells, line[-1]]))
        for row in planned.rows:
            for warning in row.warnings:
                self.stderr.write(self.style.WARNING(f"{row.candidate.name}: {warning}"))

    def _sum_up(self, planned: Plan, problems: list[str], *, would: bool) -> None:
        verb = "would be imported" if would else "imported"
        refused = planned.count("refused")
        self.stdout.write(
            f"{planned.count('import')} {verb}, {planned.count('exists')} were here already, "
            f"{refused} refused."
        )
        for problem in (*planned.problems, *problems):
            self.stderr.write(self.style.ERROR(problem))
        if refused or problems or planned.problems:
            raise CommandError("Not everything could be imported: see above.")


def _row(row: Planned) -> tuple[str, ...]:
    bucket, candidate = row.bucket, row.candidate
    if bucket is None:
        return candidate.name, "", "", "", "", row.outcome
    return (
        bucket.name,
        bucket.endpoint,
        bucket.credential.name,
        "yes" if bucket.monitoring_enabled else "no",
        "yes" if bucket.notifications_enabled else "no",
        row.outcome,
    )
