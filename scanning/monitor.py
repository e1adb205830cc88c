"""`MultiRegionMonitor`: who is due? It wakes the regions' workers; it does not scan by itself."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections import defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from scanning import wiring

wiring.ensure_django()  # django-q2 reads Django's settings when it is imported

from django.conf import settings  # noqa: E402
from django.db import DatabaseError, close_old_connections  # noqa: E402
from django.utils.module_loading import import_string  # noqa: E402

from scanning import clusters, processes  # noqa: E402
from scanning.core import schedule  # noqa: E402
from scanning.core.errors import BucketwatchError  # noqa: E402
from scanning.scanner import BucketScanner  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from types import FrameType

    from scanning.core.types import BucketConfig, ScanResult

logger = logging.getLogger(__name__)

TICK_S = 1.0
LEADER_LEASE_S = 8.0
HOUSEKEEPING_S = 2.0
# The schedule is written again now and then, in case Redis was emptied or restored.
RESCHEDULE_S = 15.0
LOG_STATS_S = 300.0


class MultiRegionMonitor:
    """Runs bucketwatch: the schedule in this process, web and workers as its children.

    Several may run: one holds the leader lease and schedules, the others stand by. Redis may be
    away at any time, at the start too; scanning goes on when it is back.
    """

    def __init__(
        self, *, web: bool = True, workers: bool = True, regions: Collection[str] = ()
    ) -> None:
        self.conf = wiring.conf()
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.buckets: dict[str, BucketConfig] = {}
        self.last_scan_times: dict[str, float] = {}
        self.due_times: dict[str, float] = {}
        self.offsets: dict[str, float] = {}
        self.region_pools: dict[str, ThreadPoolExecutor] = {}
        self.scan_stats: dict[str, int] = defaultdict(int)
        self._with_web, self._with_workers, self._regions = web, workers, tuple(regions)
        self._children: list[processes.Child] = []
        self._version = -1
        self._scheduled_at = float("-inf")
        self._logged_at = time.monotonic()
        self._redis_away = False
        self._leads = False
        self._stopping = processes.StopSignal()
        self._stop_by = float("inf")

    # --- running

    def run(self) -> None:
        """Schedule until SIGTERM or SIGINT; then stop the children and give the lead back."""
        signal.signal(signal.SIGTERM, self.handle_signal)
        signal.signal(signal.SIGINT, self.handle_signal)
        if self._with_workers:
            self._children.append(processes.workers(self._regions))
        if self._with_web:
            self.start_health_server()
        self._keep_house_with("housekeeping", [import_string(p) for p in settings.HOUSEKEEPING])
        # Clearing after a bucket of millions takes minutes: the operator's pages do not wait.
        self._keep_house_with("clearing", [wiring.clearing().run])
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
        # Impatient: the next tick asks again, and a stop is not kept waiting.
        self._leads = wiring.impatient_schedule().lead(self.name, lease_s=LEADER_LEASE_S)
        if self._leads:
            self.refresh_config_from_redis()
            self.process_due_buckets()
        self._log_stats()

    def _shut_down(self) -> None:
        if not self._stopping.is_set():
            self._stop()
        try:
            wiring.impatient_schedule().step_down(self.name)
        except BucketwatchError:
            logger.info("Redis is away; the lead expires by itself")
        for pool in self.region_pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
        processes.stop(self._children, deadline=self._stop_by)

    def _keep_house_with(self, name: str, jobs: Sequence[Callable[[], object]]) -> None:
        threading.Thread(target=self._keep_house, args=(jobs,), name=name, daemon=True).start()

    def _keep_house(self, jobs: Sequence[Callable[[], object]]) -> None:
        """Run some recurring work every few seconds, while this monitor leads."""
        while not self._stopping.wait(HOUSEKEEPING_S):
            if not self._leads:
                continue
            close_old_connections()
            for job in jobs:
                try:
                    job()
                except (BucketwatchError, DatabaseError) as exc:
                    logger.debug("housekeeping waits: %s", exc)
                except Exception:
                    logger.exception("housekeeping: a job broke; it runs again")

    # --- configuration and schedule

    def refresh_config_from_redis(self) -> None:
        """Read the bucket configurations if they changed, and bring the schedule in step.

        Credentials are not merged in here: only the workers that scan hold any.
        """
        store = wiring.configuration()
        now = time.monotonic()
        if store.version() == self._version and now - self._scheduled_at < RESCHEDULE_S:
            return
        configuration = store.load()
        self.buckets = {n: b for n, b in configuration.buckets.items() if b.active}
        self.load_last_scan_times()
        self.initialize_staggered_schedule()
        if configuration.version != self._version:
            logger.info(
                "watching %d buckets in %d regions", len(self.buckets), len(self.get_all_regions())
            )
        self._version, self._scheduled_at = configuration.version, now

    def load_last_scan_times(self) -> None:
        self.last_scan_times = wiring.schedule().last_scans(self.buckets)

    def initialize_staggered_schedule(self) -> None:
        """Give each new bucket its due time, take away those that are gone."""
        store, now = wiring.schedule(), time.time()
        intervals = {name: self._interval_s(bucket) for name, bucket in self.buckets.items()}
        method = self.conf.parallel.stagger_method
        if method != "random" or self.offsets.keys() != intervals.keys():
            kept = self.offsets if method == "random" else {}
            self.offsets = schedule.stagger_offsets(intervals, method=method) | {
                name: offset for name, offset in kept.items() if name in intervals
            }
        regions = set(self.get_all_regions())
        stored = store.due_times(regions | store.regions())
        added: dict[str, dict[str, float]] = defaultdict(dict)
        for name, bucket in self.buckets.items():
            due = stored.get(bucket.region, {}).get(name)
            first = schedule.first_due(
                self.offsets[name],
                intervals[name],
                now=now,
                last_scan=self.last_scan_times.get(name),
            )
            # Also a bucket whose interval was shortened comes forward.
            if due is None or due > now + intervals[name]:
                added[bucket.region][name] = first
        removed = {
            region: gone
            for region, due in stored.items()
            if (gone := [n for n in due if self._region_of(n) != region])
        }
        store.write(added=added, removed=removed, offsets=self.offsets, regions=regions)

    def _region_of(self, name: str) -> str | None:
        bucket = self.buckets.get(name)
        return bucket.region if bucket else None

    def _interval_s(self, bucket: BucketConfig) -> float:
        return bucket.polling_interval_s or self.conf.defaults.polling_interval

    def get_all_regions(self) -> list[str]:
        return sorted({bucket.region for bucket in self.buckets.values()})

    # --- who is due

    def is_bucket_due_for_scan(self, bucket_config: BucketConfig) -> bool:
        """Whether the schedule in Redis has the bucket due now."""
        due = wiring.schedule().due_times([bucket_config.region]).get(bucket_config.region, {})
        at = due.get(bucket_config.name)
        return at is not None and schedule.is_due(at, now=time.time())

    def get_buckets_due_for_scan(self) -> list[BucketConfig]:
        """The buckets that are due, the latest first."""
        times = wiring.schedule().due_times(self.get_all_regions())
        due = {name: at for region in times.values() for name, at in region.items()}
        names = schedule.overdue(due, now=time.time())
        return [self.buckets[name] for name in names if name in self.buckets]

    def process_due_buckets(self) -> dict[str, int]:
        """Wake the workers of every region with due buckets; due buckets by region woken."""
        regions = self.get_all_regions()
        due = wiring.schedule().due_counts(regions)
        woken = {region: number for region, number in due.items() if number}
        for region in woken:
            clusters.wake(region)
        return woken

    # --- scanning in this process (`manage.py runscan`)

    def init_thread_pools(self) -> None:
        """One pool a region, as large as the region's limit."""
        most = min(self.conf.parallel.rate_limit_per_region, self.conf.parallel.max_workers)
        for region in self.get_all_regions():
            if region not in self.region_pools:
                self.region_pools[region] = ThreadPoolExecutor(
                    most, thread_name_prefix=f"scan-{region}"
                )

    def scan_bucket_with_region_pool(
        self, bucket_config: BucketConfig, region_pool: ThreadPoolExecutor
    ) -> Future[ScanResult]:
        return region_pool.submit(self.scan_bucket, bucket_config)

    def scan_bucket(self, bucket_config: BucketConfig) -> ScanResult:
        """Scan one bucket now, due or not, in this thread."""
        scanner = BucketScanner(
            bucket_config, wiring.connection().client, self.conf, None, wiring.client_cache()
        )
        scanner.run()
        assert scanner.result is not None  # noqa: S101 - run() always sets it
        self.update_scan_stats([scanner.result])
        return scanner.result

    def update_scan_stats(self, results: Iterable[ScanResult]) -> None:
        """Add up what was scanned in this process; `/metrics` counts all processes by itself."""
        for result in results:
            self.scan_stats["total_scans"] += 1
            self.scan_stats["failed_scans"] += not result.ok
            self.scan_stats["total_objects_scanned"] += result.counts.objects

    def _log_stats(self) -> None:
        if time.monotonic() - self._logged_at < LOG_STATS_S:
            return
        self._logged_at = time.monotonic()
        said = wiring.metrics()
        logger.info("statistics: %s; clients: %s", said["scan_stats"], said["client_cache"])

    # --- changes of configuration, for programs that embed the monitor

    def add_bucket_to_active_config(self, bucket_info: Mapping[str, Any]) -> None:
        """Add a bucket as ``POST /api/buckets/add`` does (same members, same errors)."""
        self._control("add", bucket_info)

    def update_bucket_config(self, bucket_info: Mapping[str, Any]) -> None:
        """Change a bucket as ``POST /api/buckets/update`` does."""
        self._control("update", bucket_info)

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
