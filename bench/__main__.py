"""`make bench`: print each figure as ``name value``; fail if a target is missed.

QUICK=1 in the environment takes fewer objects: for trying, its figures are not to be quoted.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from pathlib import Path

from bench.measuring import FULL, QUICK, Bench, Sizes, measure
from bench.product import Product, configure, redis_server
from bench.server import BenchServer
from bench.targets import TARGETS, line


def main() -> int:
    quick = os.environ.pop("QUICK", "") not in {"", "0"}
    print(f"# {os.cpu_count()} cores, Python {platform.python_version()}", end="")
    print(", QUICK: figures are only for trying" if quick else "", flush=True)
    with tempfile.TemporaryDirectory(prefix="bucketwatch-bench-") as directory:
        missed = run(Path(directory), QUICK if quick else FULL)
    for name in missed:
        print(f"make bench: {name} misses its target", file=sys.stderr)
    return 1 if missed else 0


def run(directory: Path, sizes: Sizes) -> list[str]:
    """Measure and print everything; the names of the targets that are missed."""
    redis = redis_server(directory)
    try:
        configure(directory, redis.url)
        objects = max(sizes.large, sizes.stored)
        missed = []
        with BenchServer(directory, objects=objects, changing=sizes.objects) as server:
            for name, value in measure(Bench(server, Product(server.url), sizes)):
                print(line(name, value), flush=True)
                if name in TARGETS and not TARGETS[name].met_by(value):
                    missed.append(name)
        return missed
    finally:
        redis.stop()


if __name__ == "__main__":
    sys.exit(main())
