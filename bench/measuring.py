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

from bench import peers
from bench.product import Cost, Product, Stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
TINY: Final = Sizes(
    objects=2_000,
    slow=2_000,
    per_object=1_000,
    stored=2_000,
    stored_with_strings=2_000,
    small=1_000,
    large=3_000,
    rounds=1,
)


@dataclass(frozen=True)
class Bench:
    server: BenchServer
    product: Product
    sizes: Sizes


Figures = dict[str, float]


def listings(bench: Bench) -> Figures:
    """Scans of a bucket that is known, against listings alone; per CPU second of the process."""
    server, product, sizes = bench.server, bench.product, bench.sizes
    url, changed = server.url, sizes.objects // 100
    runs = _Runs(lambda cost: cost.objects / cost.cpu_s)
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
    rates = runs.medians()
    return {
        "unchanged_vs_boto3": rates["unchanged"] / rates["boto3"],
        "unchanged_vs_obstore": rates["unchanged"] / rates["obstore"],
        "unchanged_vs_floor": rates["unchanged"] / rates["floor"],
        "scattered_1pct_vs_boto3": rates["scattered"] / rates["boto3"],
        "clustered_1pct_vs_boto3": rates["clustered"] / rates["boto3"],
    } | {f"{name}_objects_per_cpu_s": rate for name, rate in rates.items()}


def first_scans(bench: Bench) -> Figures:
    """The first scan of a bucket, against asking and telling Redis object by object.

    Per CPU second of the process too. By the clock both also wait for Redis, the loop the longer.
    """
    product, sizes = bench.product, bench.sizes
    client, url = product.redis_client(), bench.server.url
    cpu = _Runs(lambda cost: cost.objects / cost.cpu_s)
    clock = _Runs(lambda cost: cost.objects / cost.wall_s)
    for _ in range(sizes.rounds):
        bench.server.show(objects=sizes.objects)
        client.flushall()
        costs = {
            "per_object": _timed(lambda: peers.per_object_loop(url, client, sizes.per_object)),
            "first_scan": _first_scan(bench, strings=True),
            "first_scan_compact": _first_scan(bench, strings=False),
        }
        for name, cost in costs.items():
            cpu.add(name, cost)
            clock.add(name, cost)
    rates, by_clock = cpu.medians(), clock.medians()
    return (
        {
            "first_scan_vs_per_object": rates["first_scan"] / rates["per_object"],
            "first_scan_compact_vs_per_object": rates["first_scan_compact"] / rates["per_object"],
        }
        | {f"{name}_objects_per_cpu_s": rate for name, rate in rates.items()}
        | {f"{name}_objects_per_s": rate for name, rate in by_clock.items()}
    )


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
    runs = _Runs(lambda cost: cost.wall_s)
    server.show(objects=sizes.objects, delay_ms=DELAY_MS)
    for _ in range(max(1, sizes.rounds // 2)):
        for number in (1, 10):
            product.lanes = number
            runs.add(f"lanes_{number}", product.timed_scan(changes=0))
    seconds = runs.medians()
    return {"lanes_10_speedup_at_100ms": seconds["lanes_1"] / seconds["lanes_10"]} | {
        f"{name}_s": value for name, value in seconds.items()
    }


GROUPS: Final = (listings, first_scans, stored_bytes, memory, lanes)


def measure(bench: Bench) -> Iterator[tuple[str, float]]:
    for group in GROUPS:
        bench.product.lanes = 4
        yield from group(bench).items()


def _first_scan(bench: Bench, *, strings: bool) -> Cost:
    bench.product.strings = strings
    bench.product.forget()
    bench.server.show(objects=bench.sizes.objects)
    cost = bench.product.timed_scan(changes=bench.sizes.objects)
    bench.product.empty_queue()
    return cost


def _timed(work: Callable[[], int]) -> Cost:
    with Stopwatch() as watch:
        objects = work()
    return watch.cost(objects)


class _Runs:
    """Costs by what was run, each as one number."""

    def __init__(self, figure: Callable[[Cost], float]) -> None:
        self._figure = figure
        self._by_name: dict[str, list[float]] = {}

    def add(self, name: str, cost: Cost) -> None:
        self._by_name.setdefault(name, []).append(self._figure(cost))

    def medians(self) -> dict[str, float]:
        return {name: median(figures) for name, figures in self._by_name.items()}
