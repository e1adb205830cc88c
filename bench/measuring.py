"""Each group of rows: how it is measured, in interleaved rounds of which the median counts."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from bench import peers, schedules
from bench.probes import probes
from bench.product import Cost, Product, Stopwatch
from scanning.core.schedule import PollingIntervals

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.server import BenchServer

MIB: Final = 2**20
DELAY_MS: Final = 100


@dataclass(frozen=True)
class Sizes:
    """How many objects each measurement takes; ``slow`` is for peers that take long for few."""

    objects: int
    slow: int
    per_object: int
    stored: int
    stored_with_strings: int
    small: int
    large: int
    rounds: int


FULL: Final = Sizes(
    objects=200_000,
    slow=50_000,
    per_object=5_000,
    stored=1_000_000,
    stored_with_strings=250_000,
    small=10_000,
    large=2_000_000,
    rounds=5,
)
QUICK: Final = Sizes(
    objects=50_000,
    slow=10_000,
    per_object=2_000,
    stored=100_000,
    stored_with_strings=50_000,
    small=10_000,
    large=200_000,
    rounds=3,
)


@dataclass(frozen=True)
class Bench:
    server: BenchServer
    product: Product
    sizes: Sizes


Figures = dict[str, float]


def listings(bench: Bench) -> Figures:
    """Scans of a bucket that is known, against listings alone."""
    server, product, sizes = bench.server, bench.product, bench.sizes
    url, changed = server.url, sizes.objects // 100
    runs = _Runs()
    _first_scan(bench, strings=True)
    for _ in range(sizes.rounds):
        server.show(objects=sizes.objects)
        runs.add("boto3", _timed(lambda: peers.stock_paginator(url, sizes.slow)))
        runs.add("obstore", _timed(lambda: peers.obstore_arrow(url)))
        runs.add("floor", _timed(lambda: peers.http_floor(url)))
        runs.add("unchanged", product.timed_scan(changes=0))
        for version in ("scattered", "clustered"):
            for shown in (version, "as is"):
                server.show(objects=sizes.objects, version=shown)
                runs.add(version, product.timed_scan(changes=changed))
        product.empty_queue()
    rate = runs.per_cpu_second()
    return {
        "unchanged_vs_boto3": rate["unchanged"] / rate["boto3"],
        "unchanged_vs_obstore": rate["unchanged"] / rate["obstore"],
        "unchanged_vs_floor": rate["unchanged"] / rate["floor"],
        "scattered_1pct_vs_boto3": rate["scattered"] / rate["boto3"],
        "clustered_1pct_vs_boto3": rate["clustered"] / rate["boto3"],
    } | runs.rates()


def first_scans(bench: Bench) -> Figures:
    """The first scan of a bucket, against asking and telling Redis object by object."""
    product, sizes = bench.product, bench.sizes
    client, url = product.redis_client(), bench.server.url
    runs = _Runs()
    for _ in range(sizes.rounds):
        bench.server.show(objects=sizes.objects)
        client.flushall()
        runs.add("boto3", _timed(lambda: peers.stock_paginator(url, sizes.slow)))
        loop = _timed(lambda: peers.per_object_loop(url, client, sizes.per_object))
        runs.add("per_object", loop)
        runs.add("first_scan", _first_scan(bench, strings=True))
        runs.add("first_scan_compact", _first_scan(bench, strings=False))
    # By the clock: most of the loop's time is waiting for answers, which costs it no CPU.
    rate = runs.per_second()
    per_cpu_second = runs.per_cpu_second()
    return {
        "first_scan_vs_boto3": per_cpu_second["first_scan"] / per_cpu_second["boto3"],
        "first_scan_vs_per_object": rate["first_scan"] / rate["per_object"],
        "first_scan_compact_vs_per_object": rate["first_scan_compact"] / rate["per_object"],
    } | runs.rates()


def stored_bytes(bench: Bench) -> Figures:
    """What Redis needs for each object that is known, its own overhead included."""
    sizes = bench.sizes
    return {
        "redis_bytes_per_object": _bytes_an_object(bench, sizes.stored, strings=False),
        "redis_bytes_per_object_with_strings": _bytes_an_object(
            bench, sizes.stored_with_strings, strings=True
        ),
    }


def _bytes_an_object(bench: Bench, objects: int, *, strings: bool) -> float:
    product = bench.product
    bench.server.show(objects=objects)
    product.strings = strings
    product.forget(first_scan="baseline")
    before = product.used_memory()
    product.scan()
    return (product.used_memory() - before) / objects


def memory(bench: Bench) -> Figures:
    """How much more memory a process needs for a large bucket than for a small one, at most."""
    small, large = (
        _peak_of_a_process(bench, objects) for objects in (bench.sizes.small, bench.sizes.large)
    )
    return {
        "rss_growth_mb_10k_to_2m": (large - small) / MIB,
        "rss_mb_10k": small / MIB,
        "rss_mb_2m": large / MIB,
    }


def _peak_of_a_process(bench: Bench, objects: int) -> float:
    """The peak of a process that scans a bucket for the first time, then unchanged."""
    bench.server.show(objects=objects)
    bench.product.forget()
    # Somebody reads the queue, so that it stays below its high-water mark.
    done = threading.Event()
    reader = threading.Thread(target=_read_queue, args=(bench.product, done))
    reader.start()
    try:
        answer = subprocess.run(
            [sys.executable, "-m", "bench.scan_twice", bench.server.url],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        )
    finally:
        done.set()
        reader.join()
    return float(answer.stdout)


def _read_queue(product: Product, done: threading.Event) -> None:
    while not done.wait(0.2):
        product.empty_queue()


def lanes(bench: Bench) -> Figures:
    """One unchanged bucket at a server that takes its time, in one lane and in ten."""
    server, product, sizes = bench.server, bench.product, bench.sizes
    _first_scan(bench, strings=False)
    runs = _Runs()
    server.show(objects=sizes.objects, delay_ms=DELAY_MS)
    for _ in range(max(1, sizes.rounds // 2)):
        for number in (1, 10):
            product.lanes = number
            runs.add(f"lanes_{number}", product.timed_scan(changes=0))
    seconds = runs.seconds()
    return {"lanes_10_speedup_at_100ms": seconds["lanes_1"] / seconds["lanes_10"]} | {
        f"{name}_s": value for name, value in seconds.items()
    }


def first_passes(bench: Bench) -> Figures:
    """A bucket of which nothing is known, in one lane and in ten; the worse sort of keys counts."""
    product, sizes = bench.product, bench.sizes
    runs = _Runs()
    for _ in range(max(1, sizes.rounds // 2)):
        for keys, version in (("prefixed", "as is"), ("flat", "flat")):
            for number in (1, 10):
                product.lanes = number
                cost = _first_scan(bench, strings=False, version=version, delay_ms=DELAY_MS)
                runs.add(f"first_pass_{keys}_lanes_{number}", cost)
    seconds = runs.seconds()
    speedups = [
        seconds[f"first_pass_{keys}_lanes_1"] / seconds[f"first_pass_{keys}_lanes_10"]
        for keys in ("prefixed", "flat")
    ]
    return {"first_pass_lanes_10_speedup_at_100ms": min(speedups)} | {
        f"{name}_s": value for name, value in seconds.items()
    }


def intervals(_: Bench) -> Figures:
    """Buckets of which few are busy, at a minute and at a minute that may grow to a quarter."""
    fixed = schedules.poll(schedules.Fleet(), PollingIntervals(60.0))
    adaptive = schedules.poll(schedules.Fleet(), PollingIntervals(60.0, 900.0))
    return {
        "adaptive_requests": adaptive.scans / fixed.scans,
        "adaptive_busy_lag_p95": adaptive.lag_p95_s / fixed.lag_p95_s,
    }


GROUPS: Final = (
    listings,
    first_scans,
    stored_bytes,
    memory,
    lanes,
    first_passes,
    probes,
    intervals,
)


def _first_scan(bench: Bench, *, strings: bool, version: str = "as is", delay_ms: int = 0) -> Cost:
    bench.product.strings = strings
    bench.product.forget()
    bench.server.show(objects=bench.sizes.objects, version=version, delay_ms=delay_ms)
    cost = bench.product.timed_scan(changes=bench.sizes.objects)
    bench.product.empty_queue()
    return cost


def _timed(work: Callable[[], int]) -> Cost:
    with Stopwatch() as watch:
        objects = work()
    return watch.cost(objects)


class _Runs:
    """What each of several things cost, round after round."""

    def __init__(self) -> None:
        self._by_name: dict[str, list[Cost]] = {}

    def add(self, name: str, cost: Cost) -> None:
        self._by_name.setdefault(name, []).append(cost)

    def per_cpu_second(self) -> Figures:
        """Objects per second of this process on a CPU, all its threads together."""
        return self._medians(lambda cost: cost.objects / cost.cpu_s)

    def per_second(self) -> Figures:
        """Objects per second by the clock."""
        return self._medians(lambda cost: cost.objects / cost.wall_s)

    def seconds(self) -> Figures:
        return self._medians(lambda cost: cost.wall_s)

    def rates(self) -> Figures:
        """All rates, by name: per CPU second, and by the clock."""
        return {
            f"{name}_objects_per_cpu_s": rate for name, rate in self.per_cpu_second().items()
        } | {f"{name}_objects_per_s": rate for name, rate in self.per_second().items()}

    def _medians(self, figure: Callable[[Cost], float]) -> Figures:
        return {name: median(map(figure, costs)) for name, costs in self._by_name.items()}
