"""Scan buckets now, in this process."""

from __future__ import annotations

import contextlib
import json
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.management.base import CommandError
from django.db import DatabaseError
from django.utils.module_loading import import_string

from scanning import engine, wiring
from scanning.core.types import ScanResult
from scanning.management.base import FAILED, INTERRUPTED, UNKNOWN, EngineCommand
from scanning.management.output import event_line, result_line
from scanning.management.progress import ProgressBar
from scanning.runtime.manual_scan import (
    DryRunEvents,
    ManualScanRunner,
    Message,
    Result,
    VerificationResult,
    dry_run,
    repair,
    scan_now,
    verify,
)

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable, Sequence

    from scanning.core.types import BucketConfig
    from scanning.runtime.manual_scan import ManualScan, RunEvent

_DRAW_S = 0.2


class Command(EngineCommand):
    help = (
        "Scan buckets now, due or not, and print a line for each. "
        "Exit status: 0 all scanned, and nothing is left that --full found wrong; 1 otherwise; "
        "2 an unknown name; 130 interrupted."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("names", nargs="*", metavar="NAME", help="buckets to scan")
        parser.add_argument("--all", action="store_true", help="every active bucket")
        parser.add_argument("--region", metavar="R", help="every active bucket of one region")
        parser.add_argument("--json", action="store_true", help="one JSON object a bucket")
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="list and compare only, print what would be announced; write nothing anywhere",
        )
        parser.add_argument(
            "--full",
            action="store_true",
            help="trust no digest: compare all that is stored with the listing, row by row, and "
            "say what is wrong; writes nothing",
        )
        parser.add_argument(
            "--repair",
            action="store_true",
            help="with --full: mend what is wrong, scan, and announce what that finds",
        )
        parser.add_argument(
            "--wait",
            type=float,
            default=30.0,
            metavar="S",
            help="seconds to wait for a bucket that a worker is scanning (default 30)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        self._json: bool = options["json"]
        scan = _kind_of_scan(options)
        if not options["dry_run"]:
            _compare_with_the_database()
        buckets = _choose(options["names"], options["all"], options["region"])
        with ProgressBar(expected=engine.expected_objects(buckets)) as self._bar:
            failed = self._scan_all(buckets, scan)
        if failed:
            sys.exit(FAILED)

    def _scan_all(
        self, buckets: Sequence[BucketConfig], run: Callable[[ManualScan], Result]
    ) -> int:
        """Scan all, as many at once as a region's limit; returns how many failed."""
        parallel = wiring.conf().parallel
        at_once = min(parallel.rate_limit_per_region, parallel.max_workers)
        done = failed = 0
        with ManualScanRunner(buckets, run, at_once=at_once) as runner:
            try:
                for event in runner.events(every_s=_DRAW_S):
                    if event is not None:
                        self._print(event)
                    if isinstance(event, Result):
                        done += 1
                        failed += not event.ok
                    self._show(runner.scans, done)
            except KeyboardInterrupt:
                self._print(Message("Stopping …"))
                for result in runner.stop():
                    done += 1
                    self._print(result)
                self._print(Message(f"Interrupted: {done} of {len(buckets)} buckets were scanned"))
                sys.exit(INTERRUPTED)
        return failed

    def _show(self, scans: Sequence[ManualScan], done: int) -> None:
        counts = [scan.counts for scan in scans]
        pages, events = sum(c.pages for c in counts), sum(c.changes for c in counts)
        self._bar.show(
            sum(c.objects for c in counts),
            f"{pages} pages, {events} events, {done}/{len(scans)} buckets",
        )

    def _print(self, event: RunEvent) -> None:
        with self._bar.above():
            match event:
                case Message():
                    self.stderr.write(event.line)
                case DryRunEvents():
                    for text in event.notifications:
                        self.stdout.write(text if self._json else event_line(json.loads(text)))
                case ScanResult() | VerificationResult():
                    shown = json.dumps(event.as_json()) if self._json else result_line(event)
                    self.stdout.write(shown)


def _kind_of_scan(options: dict[str, Any]) -> Callable[[ManualScan], Result]:
    if options["repair"] and not options["full"]:
        raise CommandError("--repair goes with --full", returncode=UNKNOWN)
    if options["full"] and options["dry_run"]:
        raise CommandError("--full writes nothing: leave --dry-run away", returncode=UNKNOWN)
    if options["full"]:
        return partial(repair if options["repair"] else verify, wait_s=options["wait"])
    return dry_run if options["dry_run"] else partial(scan_now, wait_s=options["wait"])


def _compare_with_the_database() -> None:
    """Find out what Redis forgot if no monitor has; without the database, scan all the same."""
    if not wiring.background().continuity.verified():
        with contextlib.suppress(DatabaseError):
            import_string(settings.LOOK_FOR_LOSSES)()


def _choose(names: list[str], every: bool, region: str | None) -> list[BucketConfig]:  # noqa: FBT001
    if sum([bool(names), every, bool(region)]) != 1:
        raise CommandError(
            "say what to scan: bucket names, or --all, or --region R", returncode=UNKNOWN
        )
    known = wiring.background().bucket_configs.load().buckets
    if unknown := [name for name in names if name not in known]:
        raise CommandError(
            f"unknown bucket{'s' * (len(unknown) > 1)}: {', '.join(unknown)}", returncode=UNKNOWN
        )
    if names:
        return [known[name] for name in dict.fromkeys(names)]
    active = [bucket for bucket in known.values() if bucket.active]
    chosen = [bucket for bucket in active if every or bucket.region == region]
    if region and not chosen:
        raise CommandError(f"no active bucket in region {region}", returncode=UNKNOWN)
    return chosen
