"""Endpoints that throttle, hang up or stall, as workers meet them: what the S3 server was asked.

The server is the one of the chaos runs: two endpoints that show the same buckets, each with faults
of its own, and a record of the LIST requests that came.
"""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import redis

from scanning import engine, wiring
from scanning.adapters.s3 import sender
from scanning.core import pacing, redis_keys
from scanning.core.types import KeyPair
from scanning.runtime import region_task
from tests.chaos.s3_objects import Change
from tests.chaos.s3_server import ChaosS3
from tests.runtime.test_region_task import with_conf
from tests.support import engine_buckets
from tests.support.engine_buckets import REGION
from tests.support.processes import ROOT
from tests.support.waiting import eventually

BAD, GOOD = 0, 1


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChaosS3]:
    with ChaosS3(tmp_path_factory.mktemp("s3"), endpoints=2, seed=1) as server:
        yield server


@pytest.fixture
def s3(server):
    server.faults({BAD: {}, GOOD: {}})
    return server


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch, settings) -> None:
    monkeypatch.setattr(sender, "AGAIN_S", 0.01)
    monkeypatch.setattr(pacing, "MOMENT_S", 0.005)
    with_conf(settings, "storage", connect_timeout=1.0, read_timeout=0.5)


def add(s3: ChaosS3, endpoint: int, *names: str, interval: int = 3600) -> None:
    """Make buckets with one object each that are due now."""
    s3.change([Change(name, "key", "etag", 1000, 1) for name in names])
    wiring.vault().write("A", KeyPair("id", "secret"))
    for name in names:
        url = s3.urls[endpoint]
        bucket = engine_buckets.put(name, endpoint=url, credential="A", interval=interval)
        engine_buckets.schedule(wiring.background().connection.client, bucket)
    wiring.background().schedule.write_endpoints({REGION: [url.split("//")[1] for url in s3.urls]})


def asked(s3: ChaosS3, prefix: str) -> Counter[str]:
    """How many LIST requests came for each bucket that is named so."""
    return Counter(bucket for _, bucket in s3.lists() if bucket.startswith(prefix))


def run(monkeypatch, seconds: float) -> None:
    monkeypatch.setattr(region_task, "TIME_BUDGET_S", seconds)
    monkeypatch.setattr(region_task, "LONGEST_S", seconds)
    monkeypatch.setattr(region_task, "PATIENCE_S", 60.0)  # slow scans lengthen no run
    region_task.scan_region(REGION)


def run_until(monkeypatch, condition: Callable[[], bool]) -> None:
    """Work in short runs, as wake-ups do."""

    def done() -> bool:
        run(monkeypatch, 0.5)
        return condition()

    eventually(done)


def names(prefix: str, number: int) -> list[str]:
    return [f"{prefix}-{n}" for n in range(number)]


def bad_state() -> str:
    return {pace.endpoint: pace.state for pace in engine.endpoint_loads()}[bad_endpoint()]


def is_dead() -> bool:
    return any(pace.state == "dead" for pace in engine.endpoint_loads())


def bad_endpoint() -> str:
    [name] = [p.endpoint for p in engine.endpoint_loads() if p.state != "normal"] or [""]
    return name


# --- dead


@pytest.mark.parametrize("fault", ["hang_up", "reset", "stall"])
def test_a_dead_endpoint_is_probed_while_its_region_keeps_its_pace(s3, store, monkeypatch, fault):
    s3.faults({BAD: {fault: 1.0}})
    prefix = f"dead-{fault}"
    add(s3, BAD, *names(prefix, 60))
    add(s3, GOOD, *names(f"good-{fault}", 5), interval=1)

    good = names(f"good-{fault}", 5)
    run_until(monkeypatch, lambda: min(asked(s3, "good")[name] for name in good) >= 3)

    # Two requests at most of each scan that began before the endpoint was found dead, and probes.
    assert asked(s3, prefix).total() <= 2 * 15 + 5
    assert [p.state for p in engine.endpoint_loads()].count("dead") == 1
    assert store.zcard(redis_keys.running(REGION)) == 0

    s3.faults({BAD: {}})
    before = asked(s3, prefix)
    run_until(monkeypatch, lambda: (asked(s3, prefix) - before).keys() == set(names(prefix, 60)))
    assert set((asked(s3, prefix) - before).values()) == {1}
    assert [p.state for p in engine.endpoint_loads()].count("dead") == 0


def test_a_bucket_scanned_by_hand_tries_a_dead_endpoint_at_once(s3, store, monkeypatch):
    s3.faults({BAD: {"hang_up": 1.0}})
    add(s3, BAD, *names("hand", 20))
    run_until(monkeypatch, is_dead)
    s3.faults({BAD: {}})
    before = asked(s3, "hand")

    wiring.background().endpoints.limiter_for(s3.urls[BAD]).claim_probe_now("hand-7")
    store.zadd(redis_keys.due(REGION), {"hand-7": 1.0})
    run_until(monkeypatch, lambda: (asked(s3, "hand") - before).total() == 20)


def test_a_scan_that_is_asked_for_tries_a_dead_endpoint_at_once(s3, store, monkeypatch):
    s3.faults({BAD: {"hang_up": 1.0}})
    add(s3, BAD, *names("asked", 20))
    run_until(monkeypatch, is_dead)
    long_dead(store, bad_endpoint())
    s3.faults({BAD: {}})
    before = asked(s3, "asked")

    run(monkeypatch, 0.3)
    assert asked(s3, "asked") == before
    engine.scan_now("asked-7", REGION, s3.urls[BAD])
    run_until(monkeypatch, lambda: (asked(s3, "asked") - before)["asked-7"] == 1)
    assert all(pace.state == "normal" for pace in engine.endpoint_loads())


def long_dead(store: redis.Redis, endpoint: str) -> None:
    """Nobody would try the endpoint, nor any of its buckets, for an hour."""
    pace = json.loads(str(store.get(redis_keys.pace(endpoint))))
    later_at = pace["dead_since"] + 3600
    store.set(redis_keys.pace(endpoint), json.dumps(pace | {"wait_until": later_at}), ex=60)
    for name in map(str, store.zrange(redis_keys.due(REGION), 0, -1)):
        store.zadd(redis_keys.due(REGION), {name: later_at})


# --- throttled


def test_a_throttled_endpoint_is_asked_less_and_its_buckets_back_off(s3, store, monkeypatch):
    s3.faults({BAD: {"slow_down": 1.0}})
    add(s3, BAD, *names("throttled", 10))
    began = time.time()
    run(monkeypatch, 2.0)  # shorter than the shortest back-off
    seconds = time.time() - began

    assert bad_state() == "slowed"
    counts = asked(s3, "throttled")
    assert max(counts.values()) <= 3  # one scan each, with its tries
    # All ten at once at the most, and then little more than half of that a second.
    assert counts.total() <= 10 + 5.5 * (seconds + 1)
    due = wiring.background().schedule.due_times([REGION])[REGION]
    scanned = [due[name] for name in counts if due[name] > 1.0]
    assert all(2 < at - began <= seconds + 5 for at in scanned)
    assert len(set(scanned)) == len(scanned)


def test_a_slowed_endpoint_recovers(s3, store, monkeypatch):
    s3.faults({BAD: {"too_many": 1.0}})
    add(s3, BAD, *names("recovering", 3))
    run(monkeypatch, 0.3)
    endpoint = bad_endpoint()
    s3.faults({BAD: {}})
    later(store, endpoint, seconds=30)
    [halfway] = [p for p in engine.endpoint_loads() if p.endpoint == endpoint]
    later(store, endpoint, seconds=120)
    add(s3, BAD, *names("recovering", 3))
    before = asked(s3, "recovering")
    run(monkeypatch, 1.0)
    assert halfway.state == "slowed"
    assert halfway.list_per_s > 4
    assert (asked(s3, "recovering") - before).total() == 3
    assert all(pace.state == "normal" for pace in engine.endpoint_loads())


def later(store: redis.Redis, endpoint: str, *, seconds: float) -> None:
    """As if so much time had passed since the endpoint was slowed down."""
    pace = json.loads(str(store.get(redis_keys.pace(endpoint))))
    store.set(
        redis_keys.pace(endpoint), json.dumps(pace | {"since": pace["since"] - seconds}), ex=60
    )


def test_other_endpoints_keep_their_pace_while_one_is_slowed(s3, store, monkeypatch):
    s3.faults({BAD: {"slow_down": 1.0}})
    add(s3, BAD, *names("slow", 10))
    add(s3, GOOD, *names("fast", 5), interval=1)
    run(monkeypatch, 3.0)
    fast = asked(s3, "fast")
    assert all(fast[name] >= 2 for name in names("fast", 5)), fast


# --- budgets

LISTING = """
import sys, django; django.setup()
from concurrent.futures import ThreadPoolExecutor
from scanning import wiring
from scanning.core.types import BucketConfig, KeyPair
bucket = BucketConfig("budget", sys.argv[1], "region", "A")
storage = wiring.storage(
    wiring.client_cache(), bucket, KeyPair("id", "secret"), wiring.background().endpoints)
with ThreadPoolExecutor(4) as lanes:
    list(lanes.map(lambda _: storage.page("", 1), range(100)))
"""


def test_the_lanes_of_a_scan_never_list_a_bucket_faster_than_its_budget(
    s3, store, redis_server, tmp_path
):
    """In a process of its own, so that nothing else of the tests holds its threads up."""
    s3.change([Change("budget", "key", "etag", 1000, 1)])
    environ = {
        "DJANGO_SETTINGS_MODULE": "bucketwatch.settings",
        "SECRET_KEY": "x",
        "ENV_FILE": "/dev/null",
        "DATA_DIR": str(tmp_path),
        "REDIS_URL": redis_server.url,
        "LIMITS_ENDPOINTS": "127.0.0.1=40/0",
        "SECURITY_ALLOW_PRIVATE_ENDPOINTS": "true",
    }
    command = [sys.executable, "-c", LISTING, s3.urls[GOOD]]
    subprocess.run(command, cwd=ROOT, env=environ, timeout=90, check=True)

    came = sorted(at for at, bucket in s3.lists() if bucket == "budget")
    assert len(came) == 102  # two of them to learn the endpoint's profile
    # What was sent in time may arrive late: one request of each lane.
    assert all(sum(at <= other < at + 1 for other in came) <= 40 + 4 for at in came)
