"""What the monitor's prober costs, with many buckets at one server: measured in this process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from bench.peers import REGION
from bench.product import Stopwatch

if TYPE_CHECKING:
    from bench.measuring import Bench, Figures

BUCKETS: Final = 1000
EVERY_S: Final = 5


def probes(bench: Bench) -> Figures:
    """Ask each bucket for its totals, interval after interval; none of them moves."""
    from scanning import wiring  # noqa: PLC0415 - Django's settings are read when it is imported
    from scanning.core import redis_keys  # noqa: PLC0415
    from scanning.core.types import BucketConfig  # noqa: PLC0415
    from scanning.runtime.prober import TICK_S, Prober  # noqa: PLC0415

    client = bench.product.redis_client()
    client.flushall()
    names = [f"probed-{number:04}" for number in range(BUCKETS)]
    for name in names:  # as a pass leaves it
        client.hset(redis_keys.bucket(name), "objects", bench.sizes.objects)
    url = bench.server.url
    buckets = {
        name: BucketConfig(name, url, REGION, "BENCH", probe_interval_s=EVERY_S) for name in names
    }
    prober = Prober(wiring.conf(), lambda: buckets)

    def run(intervals: int) -> None:
        end = time.monotonic() + intervals * EVERY_S
        while time.monotonic() < end:
            prober.tick()
            time.sleep(TICK_S)

    run(1)
    with Stopwatch() as watch:
        run(bench.sizes.rounds)
    counted = client.hgetall(redis_keys.STATS)
    answered = int(counted.get("probes:unmoved", 0))
    return {
        "probe_cpu_share_1000_buckets_5s": watch.cpu_s / watch.wall_s,
        "probes_per_s": answered / (watch.wall_s + EVERY_S),
    }
