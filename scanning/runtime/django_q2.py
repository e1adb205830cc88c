"""django-q2, and its only importer: a queue for each region, and the processes that run its tasks.

Each patch says what it mends and which test shows it, so that a new version of django-q2 can be
held against the list. Tests are in ``tests/runtime/`` where no folder is named.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

from scanning import wiring

wiring.ensure_django()  # django-q2 reads Django's settings when it is imported

from django_q import monitor as results  # noqa: E402
from django_q import pusher  # noqa: E402
from django_q.brokers.redis_broker import Redis as RedisBroker  # noqa: E402
from django_q.cluster import Sentinel  # noqa: E402
from django_q.conf import Conf  # noqa: E402
from django_q.signals import post_spawn  # noqa: E402
from django_q.tasks import async_task  # noqa: E402
from django_q.worker import worker as worker  # noqa: E402, PLC0414

from scanning.core import redis_keys  # noqa: E402
from scanning.runtime.pulse import Pulse  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from scanning.runtime.processes import StopSignal

logger = logging.getLogger(__name__)

_fork = multiprocessing.get_context("fork")
_PULSE = "pulse"


def wake(region: str) -> bool:
    """Put one wake-up into a region's queue, unless one waits there already; or give up at once."""
    broker = _brokers.setdefault((os.getpid(), region), RegionBroker(list_key=region))
    if wiring.interactive().connection.run(lambda r: r.llen(broker.list_key)):
        return False
    async_task("scanning.tasks.scan_region", region, broker=broker, cluster=region)
    return True


_brokers: dict[tuple[int, str], RegionBroker] = {}


def run_cluster(region: str, stop: StopSignal) -> None:
    """Run a region's tasks in a worker, a child of this process, until ``stop`` is set."""
    # Patch: pusher and monitor give their titles to their process, which is this one, whose
    # threads they are. `test_processes.py`, which finds processes by their titles.
    pusher.setproctitle = results.setproctitle = None
    # Patch: `Conf` was read when django_q was imported, in the parent, and `qcluster --name` has no
    # effect. `test_the_monitor_finds_new_regions_survives_kills_and_leaves_nothing_behind`.
    Conf.CLUSTER_NAME = region
    sentinel = RegionSentinel(
        stop, _fork.Event(), uuid.uuid4(), broker=RegionBroker(list_key=region), start=False
    )
    # Patch: a signal to the process group would end tasks in the middle; the shared event ends them
    # well. `test_monitors.py::test_a_monitor_stops_in_order_while_a_scan_waits_for_s3`.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sentinel.start()


class RegionBroker(RedisBroker):  # type: ignore[misc]  # django-q2 has no types
    """django-q2's Redis broker on bucketwatch's own connection."""

    @staticmethod
    def get_connection(list_key: str | None = None) -> Any:  # noqa: ARG004 - django-q2's signature
        """Follow Sentinel too.

        `tests/deploy/test_compose.py`: its services survive a failover.
        """
        return wiring.background().connection.client

    def enqueue(self, task: str) -> Any:
        """Count the wake-up in the same round trip, and give up at once without Redis.

        `test_a_tick_asks_nothing_over_a_connection_that_waits_for_redis`.
        """

        def push(r: Any) -> Any:
            pipe = r.pipeline(transaction=False)
            pipe.rpush(self.list_key, task)
            pipe.hincrby(redis_keys.STATS, "wakeups", 1)
            return pipe.execute()[0]

        return wiring.interactive().connection.run(push)

    def dequeue(self) -> Any:
        """Try again soon without Redis: django-q2 would sleep 10 s and make a new pusher.

        `test_the_pusher_outlives_a_redis_that_is_away`.
        """
        try:
            return super().dequeue()
        except Exception as exc:  # noqa: BLE001 - whatever it is, the pusher must live on
            logger.debug("waiting for Redis: %s", exc)
            time.sleep(0.5)
            return None

    def ping(self) -> bool:
        """Let a cluster start before Redis does.

        `test_outages.py::test_while_redis_is_away_everything_waits_and_then_goes_on`.
        """
        return True

    def set_stat(self, key: str, value: str, timeout: int) -> None:
        """Write none of django-q2's own statistics: `/metrics` reads ours."""


class RegionSentinel(Sentinel):  # type: ignore[misc]  # django-q2 has no types
    """django-q2's sentinel of one region, with one process beside it and not three."""

    def spawn_process(self, target: Callable[..., Any], *args: Any) -> Any:
        """Run a worker as a process; pusher and monitor, which mostly wait, as threads of ours.

        As processes they took 10 MiB a region: `make bench ONLY=fleet`.
        """
        if target is worker:
            return self._spawn_watched_worker(*args)
        if target is results.monitor:
            target, args = _until_closed, (target, *args)
        thread = _Thread(target=target, args=args, name=target.__name__, daemon=True)
        thread.start()
        return thread

    def _spawn_watched_worker(self, *args: Any) -> Any:
        """End a worker that is stuck, as its time-out of an hour would: within a minute.

        `test_a_worker_that_holds_its_interpreter_is_killed`.
        """
        pulse = Pulse()
        post_spawn.connect(pulse.begin, weak=False, dispatch_uid=_PULSE)
        process = super().spawn_process(worker, *args)
        post_spawn.disconnect(dispatch_uid=_PULSE)
        threading.Thread(target=pulse.watch, args=(process,), name="watch", daemon=True).start()
        return process

    def spawn_worker(self) -> None:
        """Share a timer that nobody can keep locked.

        `test_a_supervisor_does_not_wait_for_a_worker_that_was_killed_between_two_tasks`.
        """
        self.spawn_process(worker, self.task_queue, self.result_queue, _Timer(), self.timeout)

    def reincarnate(self, process: Any) -> None:
        """End the whole cluster when a child died abnormally; the parent starts a new one.

        A worker killed while idle holds the read lock of the task queue: a new worker beside it
        would wait for ever, and so would SIGTERM.
        `test_the_monitor_finds_new_regions_survives_kills_and_leaves_nothing_behind`.
        """
        is_worker = process in self.pool
        if not is_worker or process.exitcode not in {0, None} or process.timer.value == 0:
            logger.warning("a worker process died (exit code %s)", process.exitcode)
            os._exit(1)
        super().reincarnate(process)


class _Thread(threading.Thread):
    """Has what django-q2 wants to know of a process."""

    pid = property(lambda self: os.getpid())  # noqa: ARG005


def _until_closed(target: Callable[..., Any], *args: Any) -> None:
    """Run what reads results: the sentinel closes that queue to stop, also while it is read."""
    with contextlib.suppress(OSError, TypeError):
        target(*args)


class _Timer:
    """The seconds left to a worker's task, shared with its sentinel without a lock.

    A process that is killed holds a lock for ever, and a sentinel that waits for it replaces no
    worker. Without one, the sentinel may take a second from a worker that has just become idle: the
    next task begins with a value of its own.
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
