"""Scan buckets now, in this process."""

from __future__ import annotations

import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError

from scanning import wiring
from scanning.core.errors import BucketwatchError
from scanning.scanner import BucketScanner, dry_run

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Iterable

    from scanning.core.types import BucketConfig, Claim, ScanResult

_TRY_AGAIN_S = 0.25
FAILED, UNKNOWN = 1, 2


class Command(BaseCommand):
    help = (
        "Scan buckets now, due or not, and print a line for each. "
        "Exit status: 0 all scanned, 1 a scan failed, 2 an unknown name."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("names", nargs="*", metavar="NAME", help="buckets to scan")
        parser.add_argument("--all", action="store_true", help="every active bucket")
        parser.add_argument("--region", metavar="R", help="every active bucket of one region")
        parser.add_argument("--json", action="store_true", help="one JSON object a bucket")
        parser.add_argument(
            "--dry-run", action="store_true", help="list and compare only; write nothing anywhere"
        )
        parser.add_argument(
            "--wait",
            type=float,
            default=30.0,
            metavar="S",
            help="seconds to wait for a bucket that a worker is scanning (default 30)",
        )

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ARG002
        self._json: bool = options["json"]
        self._dry_run: bool = options["dry_run"]
        self._wait_s: float = options["wait"]
        self._output = threading.Lock()
        try:
            chosen = self._choose(options["names"], options["all"], options["region"])
            failed = self._scan_all(chosen)
        except BucketwatchError as exc:
            raise CommandError(str(exc), returncode=FAILED) from exc
        if failed:
            sys.exit(FAILED)

    def _choose(self, names: list[str], every: bool, region: str | None) -> list[BucketConfig]:  # noqa: FBT001
        if sum([bool(names), every, bool(region)]) != 1:
            raise CommandError(
                "say what to scan: bucket names, or --all, or --region R", returncode=UNKNOWN
            )
        known = wiring.configuration().load().buckets
        if unknown := [name for name in names if name not in known]:
            raise CommandError(
                f"unknown bucket{'s' * (len(unknown) > 1)}: {', '.join(unknown)}",
                returncode=UNKNOWN,
            )
        if names:
            return [known[name] for name in dict.fromkeys(names)]
        active = [bucket for bucket in known.values() if bucket.active]
        chosen = [bucket for bucket in active if every or bucket.region == region]
        if region and not chosen:
            raise CommandError(f"no active bucket in region {region}", returncode=UNKNOWN)
        return chosen

    def _scan_all(self, buckets: Iterable[BucketConfig]) -> bool:
        """Scan all, as many at once as a region's limit; True if any failed."""
        failed = False
        parallel = wiring.conf().parallel
        most = min(parallel.rate_limit_per_region, parallel.max_workers)
        with ThreadPoolExecutor(most, thread_name_prefix="scan") as pool:
            for done in as_completed([pool.submit(self._scan, bucket) for bucket in buckets]):
                result = done.result()
                failed |= not result.ok
                self._print(result)
        return failed

    def _scan(self, bucket: BucketConfig) -> ScanResult:
        conf, clients = wiring.conf(), wiring.client_cache()
        if self._dry_run:
            return dry_run(bucket, conf, clients)
        # Without a claim after the wait, the scanner tries once more and says what is in the way.
        scanner = BucketScanner(
            bucket, wiring.connection().client, conf, None, clients, claim=self._claim(bucket)
        )
        scanner.run()
        assert scanner.result is not None  # noqa: S101 - run() always sets it
        return scanner.result

    def _claim(self, bucket: BucketConfig) -> Claim | None:
        leases, slots = wiring.engine().leases, wiring.conf().parallel.rate_limit_per_region
        until = time.monotonic() + self._wait_s
        said = False
        while (claim := leases.claim(bucket, slots=slots)) is None and time.monotonic() < until:
            if not said:
                said = True
                self._say(
                    f"{bucket.name}: a worker is scanning it, or its region has no free slot; "
                    f"waiting up to {self._wait_s:g} s"
                )
            time.sleep(_TRY_AGAIN_S)
        return claim

    def _say(self, line: str) -> None:
        with self._output:
            self.stderr.write(line)

    def _print(self, result: ScanResult) -> None:
        with self._output:
            self.stdout.write(json.dumps(result.as_json()) if self._json else _line(result))


def _line(result: ScanResult) -> str:
    if not result.ok:
        return f"{result.bucket}: FAILED after {result.duration_s:.2f} s: {result.error}"
    counts = result.counts
    line = (
        f"{result.bucket}: {counts.objects} objects, {counts.created} created, "
        f"{counts.updated} updated, {counts.detected} detected, {counts.deleted} deleted, "
        f"{result.duration_s:.2f} s"
    )
    if result.held is None:
        return line
    return f"{line}; {result.held.missing} missing, held until somebody confirms the deletion"
