"""What following changes costs: requests for a bucket that is probed and looked at, not listed.

Two buckets of one installation show the same million objects, and three more each minute, behind
the last key. The endpoint of one tells totals, the endpoint of the other does not. Requests are
counted by the S3 server, and compared with those of a listing every 60 s.
"""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import quantiles
from typing import TYPE_CHECKING, Any, Final

from bench.installation import installed
from bench.server import MOST_KEYS, BenchServer
from bucketwatch.local.servers import LOOPBACK, RedisServer
from scanning.core import redis_keys

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Mapping
    from pathlib import Path

QUEUE: Final = "linode:notifications:queue"
POLL_S: Final = 60.0
# What the monitor and its workers need to get going, and each object of a first pass.
PATIENCE_S: Final = 60.0
PATIENCE_PER_OBJECT_S: Final = 0.0005


@dataclass(frozen=True)
class Size:
    """Objects at the beginning, and for how long changes come, one each ``change_every_s``."""

    objects: int
    measured_s: float
    change_every_s: float
    probe_interval_s: int


@dataclass(frozen=True)
class Watched:
    """A bucket, and seconds between two passes over it: they are added to what was counted."""

    name: str
    passes_every_s: int


FULL: Final = Size(objects=1_000_000, measured_s=180.0, change_every_s=20.0, probe_interval_s=5)
QUICK: Final = Size(objects=50_000, measured_s=30.0, change_every_s=5.0, probe_interval_s=2)
# The endpoint of the first one tells totals.
TOLD: Final = Watched("told", passes_every_s=3600)
UNTOLD: Final = Watched("untold", passes_every_s=900)
# No pass is due while requests are counted.
POLLING_INTERVAL_S: Final = 604_800


def measure(directory: Path, size: Size) -> Mapping[str, float]:
    """Watch both buckets while objects come, and count what that took."""
    home = directory / "looks"
    home.mkdir()
    changes = int(size.measured_s / size.change_every_s)
    with ExitStack() as stack:
        redis = RedisServer(home / "redis", appendonly=True)
        redis.start()
        stack.callback(redis.stop)
        server = stack.enter_context(
            BenchServer(home, objects=size.objects + changes, changing=1, ports=2, silent=1)
        )
        server.show(objects=size.objects)
        buckets = [_bucket(*pair, size) for pair in zip((TOLD, UNTOLD), server.ports, strict=True)]
        stack.enter_context(installed(home, redis.url, buckets))
        client = stack.enter_context(redis.client())
        _await_first_passes(client, size)
        return _figures(server, client, size, changes)


def _figures(server: BenchServer, client: Any, size: Size, changes: int) -> Mapping[str, float]:
    before, began = server.requests(), time.monotonic()
    shown_at: list[float] = []
    lags_s: dict[str, list[float]] = {TOLD.name: [], UNTOLD.name: []}

    def read_queue(until: float) -> None:
        while (left_s := until - time.monotonic()) > 0:
            # Not longer than the client waits for an answer.
            if answer := client.blpop([QUEUE], timeout=min(left_s, 5)):
                lags = lags_s[json.loads(answer[1])["bucket"]]
                lags.append(time.monotonic() - shown_at[len(lags)])  # they come in order

    for number in range(1, changes + 1):
        server.show(objects=size.objects + number)
        shown_at.append(time.monotonic())
        read_queue(until=began + number * size.change_every_s)
    minutes = (time.monotonic() - began) / 60
    sent = server.requests() - before
    give_up_at = time.monotonic() + PATIENCE_S
    while any(len(lags) < changes for lags in lags_s.values()):
        if time.monotonic() > give_up_at:
            raise RuntimeError(f"not all of {changes} changes were announced: {lags_s}")
        read_queue(until=time.monotonic() + 1)
    pages = size.objects / MOST_KEYS
    scan = pages * 60 / POLL_S  # requests a minute of listing everything
    told, untold = (_requests(sent, bucket) / minutes for bucket in (TOLD, UNTOLD))
    hourly, quarterly = (pages * 60 / bucket.passes_every_s for bucket in (TOLD, UNTOLD))
    return {
        "probe_requests_vs_scan": told / scan,
        "probe_and_pass_requests_vs_scan": (told + hourly) / scan,
        "look_without_totals": (untold + quarterly) / scan,
        "probe_announced_p95_s": _p95(lags_s[TOLD.name]),
        "look_without_totals_announced_p95_s": _p95(lags_s[UNTOLD.name]),
        "probe_requests_per_minute": told,
        "look_without_totals_requests_per_minute": untold,
    }


def _bucket(bucket: Watched, port: int, size: Size) -> dict[str, Any]:
    return {
        "name": bucket.name,
        "region": bucket.name,
        "endpoint": f"http://{LOOPBACK}:{port}",
        "polling_interval": POLLING_INTERVAL_S,
        "probe_interval": size.probe_interval_s,
        "first_scan": "baseline",
        "fetch_metadata": False,
    }


def _await_first_passes(client: Any, size: Size) -> None:
    """Wait until both buckets are known, and were probed since."""
    give_up_at = time.monotonic() + PATIENCE_S + size.objects * PATIENCE_PER_OBJECT_S
    while not all(client.exists(redis_keys.last_scan(b.name)) for b in (TOLD, UNTOLD)):
        if time.monotonic() > give_up_at:
            raise RuntimeError("the first passes do not come to an end")
        time.sleep(0.5)
    time.sleep(2 * size.probe_interval_s)


def _requests(sent: Counter[str], bucket: Watched) -> int:
    return sent[f"GET {bucket.name}"] + sent[f"HEAD {bucket.name}"]


def _p95(values: list[float]) -> float:
    return quantiles(values, n=20, method="inclusive")[-1]
