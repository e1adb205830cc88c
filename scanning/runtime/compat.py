"""The documented methods of `MultiRegionMonitor` that only programs which embed it call."""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import close_old_connections
from django.utils.module_loading import import_string

from scanning import wiring
from scanning.core import schedule
from scanning.core.errors import BucketwatchError
from scanning.core.metrics import counters
from scanning.runtime.bucket_scanner import BucketScanner, bucket_of
from scanning.runtime.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from scanning.core.types import BucketConfig, ScanResult


class EmbeddedMonitor:
    """What a program does with a monitor that it does not ``run()``."""

    def __init__(self) -> None:
        self.conf = wiring.conf()
        self.scheduler = Scheduler(self.conf)
        self.region_pools: dict[str, ThreadPoolExecutor] = {}
        self.scan_stats: dict[str, float] = defaultdict(float)
        # By bucket, the scans that were reported already, and those that ran in this process.
        self._reported: dict[str, tuple[bool, float]] | None = None
        self._scanned_here: dict[str, tuple[bool, float]] = {}

    # --- configuration and schedule

    @property
    def buckets(self) -> dict[str, BucketConfig]:
        return self.scheduler.buckets

    @property
    def last_scan_times(self) -> dict[str, float]:
        return self.scheduler.last_scans

    @property
    def offsets(self) -> dict[str, float]:
        return self.scheduler.offsets

    def refresh_config_from_redis(self) -> None:
        """Read the bucket configurations if they changed, and bring the schedule in step.

        No key pair is merged into ``buckets``: `BucketScanner` asks the vault for it when it scans,
        so that neither this process nor its log holds any.
        """
        self.scheduler.refresh()

    def load_last_scan_times(self) -> None:
        self.scheduler.load_last_scans()

    def initialize_staggered_schedule(self) -> None:
        """Give each new bucket its due time, take away those that are gone."""
        self.scheduler.write()

    def get_all_regions(self) -> list[str]:
        return self.scheduler.regions()

    # --- who is due

    def is_bucket_due_for_scan(self, bucket_config: BucketConfig | Mapping[str, Any]) -> bool:
        """Say whether the schedule in Redis has the bucket due now."""
        bucket, store = bucket_of(bucket_config, self.conf), wiring.background().schedule
        at = store.due_times([bucket.region]).get(bucket.region, {}).get(bucket.name)
        return at is not None and schedule.is_due(at, now=store.now())

    def get_buckets_due_for_scan(self) -> list[BucketConfig]:
        """List the buckets that are due, the latest first."""
        store = wiring.background().schedule
        times = store.due_times(self.get_all_regions())
        due = {name: at for region in times.values() for name, at in region.items()}
        names = schedule.overdue(due, now=store.now())
        return [self.buckets[name] for name in names if name in self.buckets]

    def process_due_buckets(self) -> list[ScanResult]:
        """Wake the workers of regions with due buckets; returns what ended since the last call.

        Workers scan in processes of their own, so what is woken here comes with a later call, for
        `update_scan_stats`; the first call returns nothing. A result is what Redis remembers: of
        each bucket the last scan, its changes those of its last time slice, and of a failed one
        the error alone. Scans by `scan_bucket` are not among them, and are counted already.
        """
        self.wake_due_regions()
        results = wiring.background().bucket_status.last_results(list(self.buckets))
        last = {result.bucket: result for result in results}
        ends = {name: _end_of(result) for name, result in last.items()}
        before, self._reported = self._reported, (self._reported or {}) | ends
        if before is None:
            return []
        return [
            result
            for name, result in last.items()
            if ends[name] not in (before.get(name), self._scanned_here.get(name))
        ]

    def wake_due_regions(self) -> dict[str, int]:
        return self.scheduler.wake_due_regions()

    # --- scanning in this process

    def init_thread_pools(self) -> None:
        """Make one pool for each region, as large as the region's limit."""
        limit = min(self.conf.parallel.rate_limit_per_region, self.conf.parallel.max_workers)
        for region in self.get_all_regions():
            if region not in self.region_pools:
                self.region_pools[region] = ThreadPoolExecutor(
                    limit, thread_name_prefix=f"scan-{region}"
                )

    def scan_bucket_with_region_pool(
        self, bucket_config: BucketConfig | Mapping[str, Any], region_pool: ThreadPoolExecutor
    ) -> Future[ScanResult]:
        return region_pool.submit(self.scan_bucket, bucket_config)

    def scan_bucket(self, bucket_config: BucketConfig | Mapping[str, Any]) -> ScanResult:
        """Scan one bucket now, due or not, in this thread."""
        client = wiring.background().connection.client
        scanner = BucketScanner(bucket_config, client, self.conf, None, wiring.client_cache())
        scanner.run()
        assert scanner.result is not None  # noqa: S101 - run() always sets it
        self._scanned_here[scanner.result.bucket] = _end_of(scanner.result)
        self.update_scan_stats([scanner.result])
        return scanner.result

    def update_scan_stats(self, results: Iterable[ScanResult]) -> None:
        """Add up results of `scan_bucket`, which adds its own, and of `process_due_buckets`.

        `/metrics` needs neither: it counts what all processes do.
        """
        stats = self.scan_stats
        for result in results:
            stats["total_scans"] += 1
            stats["failed_scans"] += not result.ok
            stats["errors"] += not result.ok
            stats["total_objects_scanned"] += result.counts.objects
            for kind, field in counters.CHANGES.items():
                stats[field] += getattr(result.counts, kind)
            if result.complete:
                stats["last_scan_time"] = result.began
            stats["success_rate"] = 1 - stats["failed_scans"] / stats["total_scans"]

    # --- changes of configuration

    def add_bucket_to_active_config(self, bucket_info: Mapping[str, Any]) -> None:
        """Add a bucket as ``POST /api/buckets/add`` does (same members, same errors)."""
        self._write_bucket("add", bucket_info)
        self.init_thread_pools()

    def update_bucket_config(self, bucket_info: Mapping[str, Any]) -> None:
        """Change a bucket as ``POST /api/buckets/update`` does.

        Clears this process's S3 clients if the endpoint changed. Workers need not: clients are
        kept by endpoint, so the new one gets its own, and the old one's go as the longest unused.
        """
        before = dict(self.buckets)
        self._write_bucket("update", bucket_info)
        if any(b.endpoint != before.get(name, b).endpoint for name, b in self.buckets.items()):
            wiring.client_cache().clear_cache()

    def delete_bucket_config(self, bucket_name: str) -> None:
        """Remove a bucket, its object states and its credential."""
        self._write_bucket("delete", {"name": bucket_name})

    def _write_bucket(self, verb: str, bucket_info: Mapping[str, Any]) -> None:
        close_old_connections()
        # By name: the engine may not import the control plane.
        import_string(settings.BUCKET_WRITES[verb])(bucket_info)
        self.scheduler.invalidate()
        # The write is made; with Redis away the schedule follows when it is back.
        with suppress(BucketwatchError):
            self.scheduler.refresh()


def _end_of(result: ScanResult) -> tuple[bool, float]:
    """Tell the scans of one bucket apart, by what Redis remembers of each."""
    return result.ok, result.began if result.ok else result.started_at + result.duration_s
