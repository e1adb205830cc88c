"""The parent of all workers: one supervisor process for each region, each with a worker.

The supervisor is django-q2's sentinel (`django_q2.py`). `docs/adr/0002` says why they are not
started by ``manage.py qcluster``.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import time
from typing import TYPE_CHECKING

from django.db import connections

from scanning import wiring
from scanning.core.errors import BucketwatchError
from scanning.runtime import django_q2, region_task
from scanning.runtime.processes import StopSignal, die_with_parent, share_heaps

if TYPE_CHECKING:
    from collections.abc import Collection
    from multiprocessing.context import ForkProcess

logger = logging.getLogger(__name__)

_fork = multiprocessing.get_context("fork")
_RESTART_AFTER_S = 1.0
_NO_PROCESS_S = 10.0
_CHECK_S = 0.25
_TOGETHER_S = 1.0
STOP_S = 12.0


class RegionWorkers:
    """Keeps one supervisor alive for each region; regions come and go without a restart."""

    def __init__(self, *, only: Collection[str] = ()) -> None:
        self._only = frozenset(only)
        self._stop = StopSignal()
        self._supervisors: dict[str, tuple[ForkProcess, StopSignal]] = {}
        self._started_at: dict[str, float] = {}
        self._redis_away = False
        self._asked_at = 0.0

    def run(self) -> None:
        """Run until SIGTERM or SIGINT; returns when every child has ended.

        Raises ConfigurationError if Redis is a cluster.
        """
        wiring.interactive().connection.refuse_cluster()
        signal.signal(signal.SIGTERM, self._ask_to_stop)
        signal.signal(signal.SIGINT, self._ask_to_stop)
        share_heaps()
        wiring.preload()
        # Forked children share what is there now, but for pages that they write to. Nothing is
        # collected before: in the holes children would make their own objects, page after page.
        gc.freeze()
        logger.info("workers scan %s", ", ".join(sorted(self._only)) or "all regions")
        while not self._stop.is_set():
            self._keep_supervisors()
            self._stop.wait(_CHECK_S)
        self._end()

    def _ask_to_stop(self, signum: int, frame: object) -> None:
        now = time.monotonic()
        # Two come together when a whole control group is told to stop: ours, and the monitor's.
        if self._stop.is_set() and now - self._asked_at > _TOGETHER_S:
            os._exit(128 + signum)  # the second signal: the kernel ends the children (PDEATHSIG)
        if not self._stop.is_set():
            self._asked_at = now
            self._stop.set()

    def _keep_supervisors(self) -> None:
        wanted = self._wanted_regions()
        for region, (supervisor, stop) in list(self._supervisors.items()):
            if not supervisor.is_alive():
                if region in wanted:
                    logger.warning("%s: its workers ended; starting new ones", region)
                supervisor.join()
                del self._supervisors[region]
            elif region not in wanted:
                stop.set()
        now = time.monotonic()
        for region in wanted - self._supervisors.keys():
            if now - self._started_at.get(region, float("-inf")) >= _RESTART_AFTER_S:
                self._started_at[region] = now
                self._start_supervisor(region)

    def _wanted_regions(self) -> set[str]:
        try:
            regions = wiring.interactive().schedule.regions()
        except BucketwatchError as exc:
            if not self._redis_away:
                logger.warning("workers wait for Redis: %s", exc)
            self._redis_away = True
            return set(self._supervisors)
        self._redis_away = False
        return regions & self._only if self._only else regions

    def _start_supervisor(self, region: str) -> None:
        connections.close_all()  # a child must not share our sockets
        stop = StopSignal()
        supervisor = _fork.Process(
            target=_supervise,
            args=(region, stop, os.getpid()),
            name=f"supervisor-{region}",
            daemon=False,
        )
        try:
            supervisor.start()
        except OSError as exc:  # there is no memory, or no process left: the others go on
            logger.error("%s: its workers cannot be started: %s", region, exc)  # noqa: TRY400
            self._started_at[region] = time.monotonic() + _NO_PROCESS_S
            return
        self._supervisors[region] = (supervisor, stop)

    def _end(self) -> None:
        for _, stop in self._supervisors.values():
            stop.set()
        deadline = time.monotonic() + STOP_S
        for supervisor, _ in self._supervisors.values():
            supervisor.join(max(0.0, deadline - time.monotonic()))
            if supervisor.is_alive():
                supervisor.kill()


def _supervise(region: str, stop: StopSignal, parent: int) -> None:
    die_with_parent(parent)
    forks = _Forks()
    os.register_at_fork(before=forks.before, after_in_child=forks.after_in_child)
    wiring.reset()
    region_task.stop_signal = stop
    django_q2.run_cluster(region, stop)


class _Forks:
    """Have every child of a supervisor, and its children, die with their parents."""

    def before(self) -> None:
        self._parent = os.getpid()

    def after_in_child(self) -> None:
        die_with_parent(self._parent)
        wiring.reset()
