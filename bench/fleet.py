"""A whole installation with thousands of buckets: is every one of them on time, and at what cost?

Web, monitor and workers run as `manage.py runmonitor` starts them; Redis and the S3 server are
beside it and are not counted.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import quantiles
from typing import TYPE_CHECKING, Any, Final

import psutil

from bench.installation import installed
from bench.server import BenchServer
from bucketwatch.local.servers import LOOPBACK, RedisServer
from scanning.core import redis_keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

MIB: Final = 2**20
LOOK_EVERY_S: Final = 5.0


@dataclass(frozen=True)
class Size:
    """How large the installation is, and for how long it is measured."""

    buckets: int
    regions: int
    objects: int
    interval_s: int
    measured_s: float

    @property
    def scans(self) -> float:
        """Scans that are due while it is measured."""
        return self.buckets * self.measured_s / self.interval_s


FULL: Final = Size(buckets=5_000, regions=25, objects=100, interval_s=60, measured_s=180.0)
QUICK: Final = Size(buckets=500, regions=5, objects=100, interval_s=10, measured_s=30.0)


def measure(directory: Path, size: Size) -> Mapping[str, float]:
    """Start everything, let each bucket have its first scan, then watch for a while."""
    with running(directory, size) as (product, redis):
        watch = Watch(product, redis, size)
        watch.warm_up()
        return watch.figures()


@contextmanager
def running(directory: Path, size: Size) -> Iterator[tuple[psutil.Process, Any]]:
    """The product's process tree, and a client for its Redis."""
    home = directory / "fleet"
    home.mkdir()
    with ExitStack() as stack:
        redis = RedisServer(home / "redis", appendonly=True)
        redis.start()
        stack.callback(redis.stop)
        server = BenchServer(home, objects=size.objects, changing=size.objects, ports=size.regions)
        stack.enter_context(server)
        product = stack.enter_context(installed(home, redis.url, _buckets(server.ports, size)))
        yield psutil.Process(product.pid), stack.enter_context(redis.client())


class Watch:
    """Looks at the product from outside: at its processes, and at what it says in Redis."""

    def __init__(self, product: psutil.Process, redis: Any, size: Size) -> None:
        self._product, self._redis, self._size = product, redis, size
        self._names = [_name(number) for number in range(size.buckets)]
        self._lateness: dict[tuple[str, str], float] = {}

    def warm_up(self) -> None:
        """Until every bucket was scanned, and then an interval more: its own grid counts now."""
        give_up_at = time.monotonic() + 120 + self._size.buckets / 10
        while len(self._scans()) < self._size.buckets:
            if time.monotonic() > give_up_at:
                raise RuntimeError(f"only {len(self._scans())} buckets were scanned")
            time.sleep(1)
        time.sleep(self._size.interval_s)

    def figures(self) -> Mapping[str, float]:
        before, wakeups, cpu_s = self._scans(), self._wakeups(), self._cpu_s()
        began = time.monotonic()
        end = began + self._size.measured_s
        while (now := time.monotonic()) < end:
            time.sleep(max(0.0, min(LOOK_EVERY_S, end - now)))
            self._lateness |= self._scans()
        for scan in before:
            self._lateness.pop(scan, None)
        seconds = time.monotonic() - began
        cpu_s, wakeups = self._cpu_s() - cpu_s, self._wakeups() - wakeups
        late = quantiles([*self._lateness.values(), *self._overdue()], n=100, method="inclusive")
        return {
            f"fleet_{self._size.buckets}_lateness_p99_s": late[98],
            f"fleet_{self._size.buckets}_lateness_p50_s": late[49],
            "fleet_scans_per_due_scan": len(self._lateness) / self._size.scans,
            "fleet_cpu_share": cpu_s / seconds / (os.cpu_count() or 1),
            "wakeups_per_s": wakeups / seconds,
            "fleet_rss_mb": self._pss() / MIB,
            "fleet_processes": float(len(self._processes())),
        }

    def _scans(self) -> dict[tuple[str, str], float]:
        """How late each bucket's last complete scan was, by bucket and the time of the scan."""
        pipe = self._redis.pipeline(transaction=False)
        for name in self._names:
            pipe.hmget(redis_keys.bucket(name), "scan_at", "lag_s")
        answers = zip(self._names, pipe.execute(), strict=True)
        return {(name, at): float(lag or 0) for name, (at, lag) in answers if at}

    def _overdue(self) -> list[float]:
        """How late those are that wait now: who is never scanned counts as well."""
        now = time.time()
        return [
            now - due
            for number in range(self._size.regions)
            for _, due in self._redis.zrangebyscore(
                redis_keys.due(_region(number)), "-inf", now, withscores=True
            )
        ]

    def _wakeups(self) -> int:
        return int(self._redis.hget(redis_keys.STATS, "wakeups") or 0)

    def _processes(self) -> list[psutil.Process]:
        return [self._product, *self._product.children(recursive=True)]

    def _cpu_s(self) -> float:
        return sum(sum(times[:4]) for times in self._each("cpu_times"))

    def _pss(self) -> float:
        return sum(float(memory.pss) for memory in self._each("memory_full_info"))

    def _each(self, what: str) -> Iterable[Any]:
        for process in self._processes():
            try:
                yield getattr(process, what)()
            except psutil.NoSuchProcess:
                continue


def _buckets(ports: list[int], size: Size) -> list[dict[str, Any]]:
    return [
        {
            "name": _name(number),
            "region": _region(number % size.regions),
            "endpoint": f"http://{LOOPBACK}:{ports[number % size.regions]}",
            "polling_interval": size.interval_s,
            "first_scan": "baseline",
        }
        for number in range(size.buckets)
    ]


def _name(number: int) -> str:
    return f"bucket-{number:05}"


def _region(number: int) -> str:
    return f"region-{number:02}"
