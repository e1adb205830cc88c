"""django-q2, and its only importer: a queue and a cluster of processes for each region.

One parent forks a *guard* for each region; the guard (django-q2's sentinel) forks a worker, and
takes tasks from the queue and results from the worker in threads. `docs/adr/0002` says why the
clusters are not started by ``manage.py qcluster``.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import multiprocessing
import os
import signal
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

from django.db import connections
from django_q import monitor as results
from django_q import pusher
from django_q.brokers.redis_broker import Redis as RedisBroker
from django_q.cluster import Sentinel
from django_q.conf import Conf
from django_q.tasks import async_task
from django_q.worker import worker

from scanning import wiring
from scanning.core import redis_keys
from scanning.core.errors import BucketwatchError
from scanning.runtime import region_task
from scanning.runtime.processes import StopSignal, die_with_parent, share_heaps

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from contextlib import AbstractContextManager
    from multiprocessing.context import ForkProcess

logger = logging.getLogger(__name__)

_fork = multiprocessing.get_context("fork")
_RESTART_AFTER_S = 1.0
_NO_PROCESS_S = 10.0
_LOOK_S = 0.25
_TOGETHER_S = 1.0
STOP_S = 12.0


class RegionBroker(RedisBroker):  # type: ignore[misc]  # django-q2 has no types
    """django-q2's Redis broker on bucketwatch's own connection, so that it follows Sentinel too."""

    @staticmethod
    def get_connection(list_key: str | None = None) -> Any:  # noqa: ARG004 - django-q2's signature
        return wiring.background().connection.client

    def enqueue(self, task: str) -> Any:
        def push(r: Any) -> Any:
            pipe = r.pipeline(transaction=False)
            pipe.rpush(self.list_key, task)
            pipe.hincrby(redis_keys.STATS, "wakeups", 1)
            return pipe.execute()[0]

        return wiring.interactive().connection.run(push)

    def dequeue(self) -> Any:
        try:
            return super().dequeue()
        except Exception as exc:  # noqa: BLE001 - whatever it is, the pusher must live on
            # django-q2 would sleep 10 s and fork a new pusher; Redis is back sooner than that.
            logger.debug("waiting for Redis: %s", exc)
            time.sleep(0.5)
            return None

    def ping(self) -> bool:
        return True  # a cluster may start before Redis does

    def set_stat(self, key: str, value: str, timeout: int) -> None:
        """django-q2's own statistics are not used: `/metrics` reads ours."""


def wake(region: str) -> bool:
    """Put one wake-up into a region's queue, unless one waits there already; or give up at once."""
    broker = _broker(region)
    if wiring.interactive().connection.run(lambda r: r.llen(broker.list_key)):
        return False
    async_task("scanning.tasks.scan_region", region, broker=broker, cluster=region)
    return True


_brokers: dict[tuple[int, str], RegionBroker] = {}


def _broker(region: str) -> RegionBroker:
    return _brokers.setdefault((os.getpid(), region), RegionBroker(list_key=region))


class RegionWorkers:
    """Keeps one guard alive for each region; regions come and go without a restart."""

    def __init__(self, *, only: Collection[str] = ()) -> None:
        self._only = frozenset(only)
        self._stop = StopSignal()
        self._guards: dict[str, tuple[ForkProcess, StopSignal]] = {}
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
            self._keep_guards()
            self._stop.wait(_LOOK_S)
        self._end()

    def _ask_to_stop(self, signum: int, frame: object) -> None:  # noqa: ARG002
        now = time.monotonic()
        # Two come together when a whole control group is told to stop: ours, and the monitor's.
        if self._stop.is_set() and now - self._asked_at > _TOGETHER_S:
            os._exit(128 + signum)  # the second signal: the kernel ends the children (PDEATHSIG)
        if not self._stop.is_set():
            self._asked_at = now
            self._stop.set()

    def _keep_guards(self) -> None:
        wanted = self._wanted_regions()
        for region, (guard, stop) in list(self._guards.items()):
            if not guard.is_alive():
                if region in wanted:
                    logger.warning("%s: its workers ended; starting new ones", region)
                guard.join()
                del self._guards[region]
            elif region not in wanted:
                stop.set()
        now = time.monotonic()
        for region in wanted - self._guards.keys():
            if now - self._started_at.get(region, float("-inf")) >= _RESTART_AFTER_S:
                self._started_at[region] = now
                self._start_guard(region)

    def _wanted_regions(self) -> set[str]:
        try:
            regions = wiring.interactive().schedule.regions()
        except BucketwatchError as exc:
            if not self._redis_away:
                logger.warning("workers wait for Redis: %s", exc)
            self._redis_away = True
            return set(self._guards)
        self._redis_away = False
        return regions & self._only if self._only else regions

    def _start_guard(self, region: str) -> None:
        connections.close_all()  # a child must not share our sockets
        stop = StopSignal()
        guard = _fork.Process(
            target=_guard, args=(region, stop, os.getpid()), name=f"guard-{region}", daemon=False
        )
        try:
            guard.start()
        except OSError as exc:  # there is no memory, or no process left: the others go on
            logger.error("%s: its workers cannot be started: %s", region, exc)  # noqa: TRY400
            self._started_at[region] = time.monotonic() + _NO_PROCESS_S
            return
        self._guards[region] = (guard, stop)

    def _end(self) -> None:
        for _, stop in self._guards.values():
            stop.set()
        deadline = time.monotonic() + STOP_S
        for guard, _ in self._guards.values():
            guard.join(max(0.0, deadline - time.monotonic()))
            if guard.is_alive():
                guard.kill()


def _guard(region: str, stop: StopSignal, parent: int) -> None:
    die_with_parent(parent)
    forks = _Forks()
    os.register_at_fork(before=forks.before, after_in_child=forks.after_in_child)
    wiring.reset()
    region_task.stop_signal = stop
    # They would name this process, whose threads they are here, after themselves.
    pusher.setproctitle = results.setproctitle = None
    # `Conf` was read when django_q was imported, in the parent: point it at this region.
    Conf.CLUSTER_NAME = region
    sentinel = _Guard(
        stop, _fork.Event(), uuid.uuid4(), broker=RegionBroker(list_key=region), start=False
    )
    # A signal to the process group would end tasks in the middle; the shared event ends them well.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sentinel.start()


class _Forks:
    """What every fork in a guard, and in its children, does: the child dies with its parent."""

    def before(self) -> None:
        self._parent = os.getpid()

    def after_in_child(self) -> None:
        die_with_parent(self._parent)
        wiring.reset()


class _Thread(threading.Thread):
    """Has what django-q2 wants to know of a process."""

    pid = property(lambda self: os.getpid())  # noqa: ARG005


def _until_closed(target: Callable[..., Any], *args: Any) -> None:
    """Run what reads results: when a guard stops it closes that queue, also while it is read."""
    with contextlib.suppress(OSError, TypeError):
        target(*args)


class _Timer:
    """The seconds left to a worker's task, for worker and guard: a shared value without a lock.

    Whoever is killed holds a lock for ever, and the guard that waits for it replaces no worker.
    Without one, the guard may take a second from a worker that has just become idle: the next task
    begins with a value of its own.
    """

    def __init__(self) -> None:
        self._shared = _fork.RawValue("f", -1)

    @property
    def value(self) -> float:
        return float(self._shared.value)

    @value.setter
    def value(self, seconds: float) -> None:
        self._shared.value = seconds

    def get_lock(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()


class _Guard(Sentinel):  # type: ignore[misc]  # django-q2 has no types
    def spawn_worker(self) -> None:
        self.spawn_process(worker, self.task_queue, self.result_queue, _Timer(), self.timeout)

    def spawn_process(self, target: Callable[..., Any], *args: Any) -> Any:
        """Start a worker; what takes tasks and results, and mostly waits, is a thread of ours.

        As processes of their own they took 10 MiB a region.
        """
        if target is worker:
            return super().spawn_process(target, *args)
        if target is results.monitor:
            target, args = _until_closed, (target, *args)
        thread = _Thread(target=target, args=args, name=target.__name__, daemon=True)
        thread.start()
        return thread

    def reincarnate(self, process: Any) -> None:
        """End the whole guard when a child died abnormally; the parent starts a new one.

        A worker killed while idle holds the read lock of the task queue: a new worker beside it
        would wait for ever, and so would SIGTERM.
        """
        is_worker = process in self.pool
        if not is_worker or process.exitcode not in {0, None} or process.timer.value == 0:
            logger.warning("a worker process died (exit code %s)", process.exitcode)
            os._exit(1)
        super().reincarnate(process)
