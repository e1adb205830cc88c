"""`MultiRegionMonitor`: who is due? It wakes the regions' workers; it does not scan by itself."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from scanning import engine, wiring

wiring.ensure_django()  # django-q2 reads Django's settings when it is imported

from django.conf import settings  # noqa: E402
from django.db import close_old_connections  # noqa: E402
from django.utils.module_loading import import_string  # noqa: E402

from scanning.core import schedule  # noqa: E402
from scanning.core.endpoints import endpoint_name  # noqa: E402
from scanning.core.errors import BucketwatchError  # noqa: E402
from scanning.core.metrics import counters  # noqa: E402
from scanning.identity import this_process  # noqa: E402
from scanning.runtime import processes, region_workers  # noqa: E402
from scanning.runtime.bucket_scanner import BucketScanner, bucket_of  # noqa: E402
from scanning.runtime.housekeeping import RedisWarnings, run_periodically  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from types import FrameType

    from scanning.core.types import BucketConfig, ScanResult

logger = logging.getLogger(__name__)

TICK_S = 1.0
LEADER_LEASE_S = 8.0
# The schedule is written again now and then, in case Redis was emptied or restored.
RESCHEDULE_S = 15.0
LOG_STATS_S = 300.0
# How long scanning waits, with a Redis that nobody vouches for, for the database to be asked.
UNCHECKED_AFTER_S = 60.0


class MultiRegionMonitor:
    """Runs bucketwatch: the schedule in this process, web and workers as its children.

    Several may run: one holds the leader lease and schedules, the others stand by. Redis may be
    away at any time, at the start too; scanning goes on when it is back.
    """

    def __init__(
        self, *, web: bool = True, workers: bool = True, regions: Collection[str] = ()
    ) -> None:
        self.conf = wiring.conf()
        self.name = this_process()
        self.buckets: dict[str, BucketConfig] = {}
        self.last_scan_times: dict[str, float] = {}
        self.offsets: dict[str, float] = {}
        self.region_pools: dict[str, ThreadPoolExecutor] = {}
        self.scan_stats: dict[str, float] = defaultdict(float)
        # By bucket, the scans that were reported already, and those that ran in this process.
        self._reported: dict[str, tuple[bool, float]] | None = None
        self._scanned_here: dict[str, tuple[bool, float]] = {}
        self._with_web, self._with_workers, self._regions = web, workers, tuple(regions)
        self._children: list[processes.Child] = []
        self._version = -1
        self._scheduled_at = float("-inf")
        self._logged_at = time.monotonic()
        self._redis_away = False
        self._leads: bool | None = None  # not known yet
        self._leads_until = float("-inf")
        self._distrusts_since: float | None = None
        self._stopping = processes.StopSignal()
        self._stop_by = float("inf")

    # --- running

    def run(self) -> None:
        """Schedule until SIGTERM or SIGINT; then stop the children and give the lead back.

        Raises ConfigurationError if Redis is a cluster.
        """
        wiring.interactive().connection.refuse_cluster()
        processes.share_heaps()
        signal.signal(signal.SIGTERM, self.handle_signal)
        signal.signal(signal.SIGINT, self.handle_signal)
        if self._with_workers:
            self._children.append(processes.workers(self._regions))
        if self._with_web:
            self.start_health_server()
        jobs = [import_string(path) for path in settings.HOUSEKEEPING]
        self._keep_house_with("housekeeping", [RedisWarnings().look, *jobs])
        # Clearing after a bucket of millions takes minutes: the operator's pages do not wait.
        self._keep_house_with("clearing", [wiring.background().cleanup.run])
        try:
            while not self._stopping.is_set():
                started = time.monotonic()
                self._tick()
                self._stopping.wait(max(0.0, TICK_S - (time.monotonic() - started)))
        finally:
            self._shut_down()

    def handle_signal(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Stop after the current tick; a second signal stops at once."""
        if self._stopping.is_set():
            processes.kill(self._children)
            os._exit(128 + signum)
        self._stop()

    def start_health_server(self) -> None:
        """Serve admin, API, ``/health``, ``/ready`` and ``/metrics`` in a child process."""
        self._children.append(processes.web())
        logger.info("serving http://%s/admin/", settings.WEB_BIND)

    def _stop(self) -> None:
        self._stop_by = time.monotonic() + processes.STOP_S
        self._stopping.set()
        # Now, not after the tick: that may be waiting for Redis.
        for child in self._children:
            child.ask_to_stop()

    def _tick(self) -> None:
        try:
            for child in self._children:
                child.keep_alive()
            self._schedule()
        except BucketwatchError as exc:
            if not self._redis_away:
                logger.warning("scheduling waits: %s", exc)
            self._redis_away = True
        except Exception:
            logger.exception("an error in bucketwatch broke a tick; the next one tries again")
        else:
            if self._redis_away:
                logger.info("scheduling goes on")
            self._redis_away = False

    def _schedule(self) -> None:
        # Impatient, as all of a tick: the next one asks again. Who waits for Redis loses the lead,
        # starts no child that ended, and keeps a stop waiting.
        asked_at = time.monotonic()
        leads = wiring.interactive().schedule.lead(self.name, lease_s=LEADER_LEASE_S)
        if leads != self._leads:
            logger.info("this monitor %s", "schedules" if leads else "stands by for another")
        self._leads = leads
        self._leads_until = asked_at + LEADER_LEASE_S if leads else float("-inf")
        if leads:
            self.refresh_config_from_redis()
            if self._keep_trust():
                self.wake_due_regions()
            wiring.interactive().telemetry.sample_queue()
        self._log_stats()

    def _keep_trust(self) -> bool:
        """Whether Redis is known to be the one that was written to (`adapters/redis/losses.py`).

        Housekeeping compares it with the database when it is not. Scanning goes on without that
        when the database cannot be asked.
        """
        losses, now = wiring.interactive().continuity, time.monotonic()
        if losses.keep_trust():
            self._distrusts_since = None
            return True
        if self._distrusts_since is None:
            self._distrusts_since = now
        if now - self._distrusts_since < UNCHECKED_AFTER_S:
            return False
        logger.warning(
            "the database could not be asked whether Redis still holds what was known of buckets; "
            "scanning goes on, and it is asked later"
        )
        losses.trust_unchecked()
        return True

    def _shut_down(self) -> None:
        if not self._stopping.is_set():
            self._stop()
        try:
            wiring.interactive().schedule.step_down(self.name)
        except BucketwatchError:
            logger.info("Redis is away; the lead expires by itself")
        for pool in self.region_pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
        processes.stop(self._children, deadline=self._stop_by)

    def _keep_house_with(self, name: str, jobs: Sequence[Callable[[], object]]) -> None:
        run_periodically(name, jobs, leads=self.leads, stopping=self._stopping)

    def leads(self) -> bool:
        """Say whether this monitor still holds the lead; not for long while Redis is away."""
        return time.monotonic() < self._leads_until

    # --- configuration and schedule

    def refresh_config_from_redis(self) -> None:
        """Read the bucket configurations if they changed, and bring the schedule in step.

        No key pair is merged into ``buckets``: `BucketScanner` asks the vault for it when it scans,
        so that neither this process nor its log holds any.
        """
        store, now = wiring.interactive().bucket_configs, time.monotonic()
        has_changed = store.version() != self._version
        if not has_changed and now - self._scheduled_at < RESCHEDULE_S:
            return
        if has_changed:
            configuration = store.load()
            self.buckets = {n: b for n, b in configuration.buckets.items() if b.active}
            logger.info(
                "watching %d buckets in %d regions", len(self.buckets), len(self.get_all_regions())
            )
            self._version = configuration.version
            self._scheduled_at = float("-inf")  # should Redis go away before it is written
        self.load_last_scan_times()
        self.initialize_staggered_schedule()
        self._scheduled_at = now
        processes.give_back_memory()

    def load_last_scan_times(self) -> None:
        self.last_scan_times = wiring.interactive().schedule.last_scans(self.buckets)

    def initialize_staggered_schedule(self) -> None:
        """Give each new bucket its due time, take away those that are gone."""
        store = wiring.interactive().schedule
        intervals = {name: self._interval_s(bucket) for name, bucket in self.buckets.items()}
        self._draw_offsets(intervals)
        regions = set(self.get_all_regions())
        stored = store.due_times(regions | store.regions())
        store.write(
            added=self._to_schedule(stored, intervals),
            removed=self._to_take_away(stored),
            offsets=self.offsets,
            regions=regions,
        )
        store.write_endpoints(self._endpoints_of_mixed_regions())

    def _draw_offsets(self, intervals: Mapping[str, float]) -> None:
        method = self.conf.parallel.stagger_method
        drawn = schedule.stagger_offsets(intervals, method=method)
        if method == "random":  # whoever has one keeps it
            drawn |= {name: at for name, at in self.offsets.items() if name in intervals}
        self.offsets = drawn

    def _to_schedule(
        self, stored: Mapping[str, Mapping[str, float]], intervals: Mapping[str, float]
    ) -> dict[str, dict[str, float]]:
        """Due times, by region and bucket, of buckets that have none, or one that is too far."""
        store = wiring.interactive().schedule
        now = store.now()
        due = {n: stored.get(b.region, {}).get(n) for n, b in self.buckets.items()}
        far = {n for n, at in due.items() if at is not None and at > now + intervals[n]}
        # A bucket whose interval was shortened comes forward, one that failed waits on purpose.
        far -= store.put_off(far)
        added: dict[str, dict[str, float]] = defaultdict(dict)
        for name in {n for n, at in due.items() if at is None} | far:
            added[self.buckets[name].region][name] = schedule.first_due(
                self.offsets[name],
                intervals[name],
                now=now,
                last_scan=self.last_scan_times.get(name),
            )
        return added

    def _to_take_away(self, stored: Mapping[str, Mapping[str, float]]) -> dict[str, list[str]]:
        """By region, the scheduled buckets that are not of that region, or not watched any more."""
        gone = {
            region: [name for name in due if self._region_of(name) != region]
            for region, due in stored.items()
        }
        return {region: names for region, names in gone.items() if names}

    def _region_of(self, name: str) -> str | None:
        bucket = self.buckets.get(name)
        return bucket.region if bucket else None

    def _endpoints_of_mixed_regions(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = defaultdict(set)
        for bucket in self.buckets.values():
            found[bucket.region].add(endpoint_name(bucket.endpoint))
        return {region: endpoints for region, endpoints in found.items() if len(endpoints) > 1}

    def _interval_s(self, bucket: BucketConfig) -> float:
        return bucket.polling_interval_s or self.conf.defaults.polling_interval

    def get_all_regions(self) -> list[str]:
        return sorted({bucket.region for bucket in self.buckets.values()})

    # --- who is due

    def is_bucket_due_for_scan(self, bucket_config: BucketConfig | Mapping[str, Any]) -> bool:
        """Whether the schedule in Redis has the bucket due now."""
        bucket = bucket_of(bucket_config, self.conf)
        at = (
            wiring.background()
            .schedule.due_times([bucket.region])
            .get(bucket.region, {})
            .get(bucket.name)
        )
        return at is not None and schedule.is_due(at, now=wiring.background().schedule.now())

    def get_buckets_due_for_scan(self) -> list[BucketConfig]:
        """The buckets that are due, the latest first."""
        times = wiring.background().schedule.due_times(self.get_all_regions())
        due = {name: at for region in times.values() for name, at in region.items()}
        names = schedule.overdue(due, now=wiring.background().schedule.now())
        return [self.buckets[name] for name in names if name in self.buckets]

    def process_due_buckets(self) -> list[ScanResult]:
        """Wake the workers of regions with due buckets; returns what ended since the last call.

        Workers scan in processes of their own, so what is woken here comes with a later call, for
        `update_scan_stats`; the first call returns nothing. A result is what Redis remembers: of
        each bucket the last scan, its changes those of its last time slice, and of a failed one
        the error alone. Scans by `scan_bucket` are not among them, and are counted already.
        """
        self.wake_due_regions()
        last = {
            r.bucket: r for r in wiring.background().bucket_status.last_results(list(self.buckets))
        }
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
        """Wake the workers of every region with due buckets; due buckets by region woken.

        Buckets that will be due by the next tick count: their worker then waits for them.
        """
        regions = self.get_all_regions()
        due = wiring.interactive().schedule.due_counts(regions, within_s=TICK_S)
        woken = {region: number for region, number in due.items() if number}
        for region in woken:
            region_workers.wake(region)
        return woken

    # --- scanning in this process, for programs that embed the monitor

    def init_thread_pools(self) -> None:
        """One pool a region, as large as the region's limit."""
        most = min(self.conf.parallel.rate_limit_per_region, self.conf.parallel.max_workers)
        for region in self.get_all_regions():
            if region not in self.region_pools:
                self.region_pools[region] = ThreadPoolExecutor(
                    most, thread_name_prefix=f"scan-{region}"
                )

    def scan_bucket_with_region_pool(
        self, bucket_config: BucketConfig | Mapping[str, Any], region_pool: ThreadPoolExecutor
    ) -> Future[ScanResult]:
        return region_pool.submit(self.scan_bucket, bucket_config)

    def scan_bucket(self, bucket_config: BucketConfig | Mapping[str, Any]) -> ScanResult:
        """Scan one bucket now, due or not, in this thread."""
        scanner = BucketScanner(
            bucket_config,
            wiring.background().connection.client,
            self.conf,
            None,
            wiring.client_cache(),
        )
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

    def _log_stats(self) -> None:
        if time.monotonic() - self._logged_at < LOG_STATS_S:
            return
        self._logged_at = time.monotonic()
        said = engine.metrics()
        logger.info("statistics: %s; clients: %s", said["scan_stats"], said["client_cache"])

    # --- changes of configuration, for the same

    def add_bucket_to_active_config(self, bucket_info: Mapping[str, Any]) -> None:
        """Add a bucket as ``POST /api/buckets/add`` does (same members, same errors)."""
        self._control("add", bucket_info)
        self.init_thread_pools()

    def update_bucket_config(self, bucket_info: Mapping[str, Any]) -> None:
        """Change a bucket as ``POST /api/buckets/update`` does.

        Clears this process's S3 clients if the endpoint changed. Workers need not: clients are
        kept by endpoint, so the new one gets its own, and the old one's go as the longest unused.
        """
        before = dict(self.buckets)
        self._control("update", bucket_info)
        if any(b.endpoint != before.get(name, b).endpoint for name, b in self.buckets.items()):
            wiring.client_cache().clear_cache()

    def delete_bucket_config(self, bucket_name: str) -> None:
        """Remove a bucket, its object states and its credential."""
        self._control("delete", {"name": bucket_name})

    def _control(self, verb: str, bucket_info: Mapping[str, Any]) -> None:
        close_old_connections()
        # By name: the engine may not import the control plane.
        import_string(settings.BUCKET_WRITES[verb])(bucket_info)
        self._version = -1
        # The write is made; with Redis away the schedule follows when it is back.
        with suppress(BucketwatchError):
            self.refresh_config_from_redis()


def _end_of(result: ScanResult) -> tuple[bool, float]:
    """Tell the scans of one bucket apart, by what Redis remembers of each."""
    return result.ok, result.began if result.ok else result.started_at + result.duration_s
