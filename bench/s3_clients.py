"""What an S3 client costs: `.venv/bin/python -m bench.s3_clients` (Linux)."""

import gc
import time
from pathlib import Path

from scanning.adapters.s3.storage import S3ClientCache
from scanning.config.settings import EngineSettings

CLIENTS = 300


def memory_kib() -> int:
    """This process's share of memory, shared pages counted in part."""
    gc.collect()
    rollup = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))


def main() -> None:
    before = memory_kib()
    cache = S3ClientCache(EngineSettings())
    cache.get_client("s3.example", "first", "secret")
    first = memory_kib()
    started = time.perf_counter()
    for number in range(CLIENTS):
        cache.get_client("s3.example", str(number), "secret")
    took = time.perf_counter() - started
    print(f"first client, with S3's description: {first - before} KiB")
    print(f"each further client: {(memory_kib() - first) / CLIENTS:.0f} KiB", end=", ")
    print(f"{took / CLIENTS * 1000:.1f} ms")


if __name__ == "__main__":
    main()
