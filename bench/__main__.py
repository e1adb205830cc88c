"""`make bench`: print each figure as ``name value``; fail if a target is missed.

ONLY="listings fleet" in the environment takes just those groups. QUICK=1 takes fewer objects: for
trying, its figures are neither judged nor to be quoted.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench import fleet, hints, looks
from bench.measuring import FULL, GROUPS, QUICK, Bench, Sizes
from bench.product import Product, configure, redis_server
from bench.server import BenchServer
from bench.targets import TARGETS, line
from bucketwatch.local.servers import other_redis_server

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

WHOLE = ("fleet", "looks", "hints")  # these start an installation
NAMES = [*WHOLE, *(group.__name__ for group in GROUPS)]


def main() -> int:
    quick = os.environ.pop("QUICK", "") not in {"", "0"}
    only = os.environ.pop("ONLY", "").split() or NAMES
    if unknown := set(only) - set(NAMES):
        print(f"make bench: ONLY has no group {', '.join(unknown)}, but {', '.join(NAMES)}")
        return 2
    print(f"# {os.cpu_count()} cores, Python {platform.python_version()}", end="")
    print(", QUICK: figures are only for trying" if quick else "", flush=True)
    if other := other_redis_server():
        print(f"# {other}", flush=True)
    targets = {} if quick else TARGETS  # they are for what few objects do not show
    missed = []
    for name, value in measure(only, quick=quick):
        target = targets.get(name)
        print(line(name, value, target), flush=True)
        if target and not target.met_by(value):
            missed.append(name)
    for name in missed:
        print(f"make bench: {name} misses its target", file=sys.stderr)
    return 1 if missed else 0


def measure(only: Collection[str], *, quick: bool) -> Iterator[tuple[str, float]]:
    """Every figure of some groups, as soon as it is known."""
    with tempfile.TemporaryDirectory(prefix="bucketwatch-bench-") as directory:
        if set(only) - set(WHOLE):
            yield from scans(Path(directory), QUICK if quick else FULL, only)
        if "looks" in only:
            yield from looks.measure(Path(directory), looks.QUICK if quick else looks.FULL).items()
        if "hints" in only:
            yield from hints.measure(Path(directory), hints.QUICK if quick else hints.FULL).items()
        if "fleet" in only:
            yield from fleet.measure(Path(directory), fleet.QUICK if quick else fleet.FULL).items()


def scans(directory: Path, sizes: Sizes, only: Collection[str]) -> Iterator[tuple[str, float]]:
    """What scans cost: measured in this process."""
    redis = redis_server(directory)
    try:
        configure(directory, redis.url)
        objects = max(sizes.large, sizes.stored)
        with BenchServer(directory, objects=objects, changing=sizes.objects) as server:
            bench = Bench(server, Product(server.url), sizes)
            for group in GROUPS:
                if group.__name__ in only:
                    bench.product.lanes = 4
                    yield from group(bench).items()
    finally:
        redis.stop()


if __name__ == "__main__":
    sys.exit(main())
