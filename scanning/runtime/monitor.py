"""`MultiRegionMonitor`: takes the lead, schedules, and supervises web server and workers."""

from __future__ import annotations

import logging
import os
import signal
import time
from typing import TYPE_CHECKING

from django.conf import settings
from django.utils.module_loading import import_string

from scanning import engine, wiring
from scanning.core.errors import BucketwatchError
from scanning.identity import this_process
from scanning.runtime import processes, scheduler
from scanning.runtime.compat import EmbeddedMonitor
from scanning.runtime.housekeeping import RedisWarnings, run_periodically
from scanning.runtime.leader_lease import LeaderLease
from scanning.runtime.monitor_children import MonitorChildren
from scanning.runtime.prober import Prober

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from types import FrameType

logger = logging.getLogger(__name__)

LOG_STATS_S = 300.0


class MultiRegionMonitor(EmbeddedMonitor):
    """Runs bucketwatch: the schedule in this process, web and workers as its children.

    Several may run: one holds the leader lease and schedules, the others stand by. Redis may be
    away at any time, at the start too; scanning goes on when it is back.
    """

    def __init__(
        self, *, web: bool = True, workers: bool = True, regions: Collection[str] = ()
    ) -> None:
        super().__init__()
        self.lease = LeaderLease(this_process())
        self.children = MonitorChildren()
        self._with_web, self._with_workers, self._regions = web, workers, tuple(regions)
        self._logged_at = time.monotonic()
        self._redis_away = False
        self._stopping = processes.StopSignal()

    def run(self) -> None:
        """Schedule until SIGTERM or SIGINT; then stop the children and give the lead back.

        Raises ConfigurationError if Redis is a cluster.
        """
        wiring.interactive().connection.refuse_cluster()
        processes.share_heaps()
        signal.signal(signal.SIGTERM, self.handle_signal)
        signal.signal(signal.SIGINT, self.handle_signal)
        if self._with_workers:
            self.children.start_workers(self._regions)
        if self._with_web:
            self.start_health_server()
        jobs = [import_string(path) for path in settings.PERIODIC_JOBS]
        self._run_periodically("housekeeping", [RedisWarnings().check, *jobs])
        # Clearing after a bucket of millions takes minutes: the operator's pages do not wait.
        self._run_periodically("clearing", [wiring.background().cleanup.run])
        prober = Prober(self.conf, lambda: self.scheduler.buckets)
        prober.start(leads=self.lease.is_held, stopping=self._stopping)
        try:
            while not self._stopping.is_set():
                started = time.monotonic()
                self._tick()
                self._stopping.wait(max(0.0, scheduler.TICK_S - (time.monotonic() - started)))
        finally:
            self._shut_down()

    def handle_signal(self, signum: int, frame: FrameType | None) -> None:
        """Stop after the current tick; a second signal stops at once."""
        if self._stopping.is_set():
            self.children.send_kill()
            os._exit(128 + signum)
        self._stopping.set()
        # Now, not after the tick: that may be waiting for Redis.
        self.children.ask_to_stop()

    def start_health_server(self) -> None:
        """Serve admin, API, ``/health``, ``/ready`` and ``/metrics`` in a child process."""
        self.children.start_web()
        logger.info("serving http://%s/admin/", settings.WEB_BIND)

    def _run_periodically(self, name: str, jobs: Sequence[Callable[[], object]]) -> None:
        run_periodically(name, jobs, leads=self.lease.is_held, stopping=self._stopping)

    def _tick(self) -> None:
        try:
            self.children.keep_alive()
            if self.lease.renew():
                self.scheduler.tick()
            self._log_stats()
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

    def _log_stats(self) -> None:
        if time.monotonic() - self._logged_at < LOG_STATS_S:
            return
        self._logged_at = time.monotonic()
        metrics = engine.metrics()
        logger.info("statistics: %s; clients: %s", metrics["scan_stats"], metrics["client_cache"])

    def _shut_down(self) -> None:
        self._stopping.set()
        self.children.ask_to_stop()
        self.lease.give_up()
        with engine.one_wait():
            wiring.interactive().endpoints.report_requests()  # of the last probes
        for pool in self.region_pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
        self.children.stop()
