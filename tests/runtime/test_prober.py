"""`Prober`: what it asks, what comes of it, and what it does not hold up."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
import redis

from scanning import wiring
from scanning.core import probing as probing_rules
from scanning.core import redis_keys
from scanning.core.errors import RedisUnavailable
from scanning.core.probing import LastProbe
from scanning.core.totals import Totals
from scanning.core.types import BucketConfig, KeyPair
from scanning.runtime import region_task
from scanning.runtime.prober import Prober
from scanning.runtime.processes import StopSignal
from tests.chaos.s3_objects import Change
from tests.chaos.s3_server import ChaosS3
from tests.support import engine_buckets
from tests.support.engine_buckets import REGION
from tests.support.notifications import queued
from tests.support.product import Product
from tests.support.waiting import eventually

HOURLY = 3600
TELLING, SILENT = 0, 1  # endpoints of the server
_numbers = count(1)
_before: Counter[str] = Counter()  # what passes asked, by bucket


@pytest.fixture(scope="module")
def s3(tmp_path_factory) -> Iterator[ChaosS3]:
    with ChaosS3(tmp_path_factory.mktemp("s3"), endpoints=2, seed=1) as server:
        server.totals({TELLING: True})
        yield server


@pytest.fixture(autouse=True)
def _fast(monkeypatch, s3) -> None:
    monkeypatch.setattr(region_task, "TIME_BUDGET_S", 0.2)
    s3.faults({TELLING: {}, SILENT: {}})


def put_objects(s3: ChaosS3, bucket: str, *keys: str, size: int = 10) -> None:
    s3.change([Change(bucket, key, "e1", 1_700_000_000_000, size) for key in keys])


@pytest.fixture
def watched(store, s3):
    """Scan a bucket with some objects once; its next pass is an hour away."""
    wiring.vault().write("SHARED", KeyPair("key", "secret"))

    def make(
        *,
        objects: int = 3,
        endpoint: int = TELLING,
        probe_interval: int | None = 1,
        budget: int | None = None,
    ) -> BucketConfig:
        name = f"bucket-{next(_numbers)}"
        put_objects(s3, name, *(f"key-{number:04}" for number in range(objects)))
        given: dict[str, Any] = {
            "interval": HOURLY,
            "probe_interval": probe_interval,
            "credential": "SHARED",
        }
        given |= {"budget": budget}
        bucket = engine_buckets.put(name, endpoint=s3.urls[endpoint], **given)
        engine_buckets.schedule(store, bucket)
        region_task.scan_region(REGION)
        assert store.hget(redis_keys.bucket(name), "objects") == str(objects)
        store.delete(wiring.conf().redis.queue_name)
        _before[name] = [head for _, head in s3.heads()].count(name)
        return bucket

    return make


def probing(*buckets: BucketConfig) -> Prober:
    known = {bucket.name: bucket for bucket in buckets}
    return Prober(wiring.conf(), lambda: known)


def tick_until(prober: Prober, condition: Callable[[], Any]) -> Any:
    def tick() -> Any:
        prober.tick()
        return condition()

    return eventually(tick)


def heads(s3: ChaosS3, bucket: BucketConfig) -> int:
    """Count what asked for the bucket's totals since its first pass."""
    return [name for _, name in s3.heads()].count(bucket.name) - _before[bucket.name]


def last(bucket: BucketConfig) -> LastProbe | None:
    return wiring.background().probes.last([bucket.name]).get(bucket.name)


def is_due(store: redis.Redis, bucket: BucketConfig) -> bool:
    """Whether a look is wanted: the pass is an hour away."""
    return store.hexists(redis_keys.bucket(bucket.name), "pass_due")


def results(store: redis.Redis) -> Mapping[str, int]:
    counted: Any = store.hgetall(redis_keys.STATS)
    return {
        f.removeprefix("probes:"): int(n) for f, n in counted.items() if f.startswith("probes:")
    }


def announced(store: redis.Redis) -> list[tuple[str, str]]:
    return sorted((event["bucket"], event["key"]) for event in queued(store))


# --- what comes of it


def test_a_change_in_a_bucket_that_is_polled_hourly_is_announced_soon(store, s3, watched):
    bucket, quiet = watched(), watched()
    prober = probing(bucket, quiet)
    tick_until(prober, lambda: last(bucket) and last(quiet))
    assert last(bucket) == LastProbe(Totals(3, 30))
    put_objects(s3, bucket.name, "new")
    tick_until(prober, lambda: is_due(store, bucket))
    region_task.scan_region(REGION)
    assert announced(store) == [(bucket.name, "new")]
    assert not is_due(store, quiet)
    seen = tick_until(prober, lambda: last(bucket))
    assert seen.totals == Totals(4, 40)
    assert seen.moved_at is not None
    assert results(store)["moved"] >= 1
    assert results(store)["unmoved"] >= 2


def test_a_probe_takes_no_lease_and_commits_nothing(store, s3, watched):
    bucket = watched()
    fields = store.hgetall(redis_keys.bucket(bucket.name))
    due = store.zrange(redis_keys.due(REGION), 0, -1, withscores=True)
    prober = probing(bucket)
    tick_until(prober, lambda: results(store).get("unmoved", 0) >= 2)
    assert heads(s3, bucket) >= 2
    assert store.hgetall(redis_keys.bucket(bucket.name)) == fields
    assert store.zrange(redis_keys.due(REGION), 0, -1, withscores=True) == due
    assert not store.exists(redis_keys.running(REGION))


def test_totals_are_compared_with_what_the_last_look_saw(store, s3, watched):
    bucket = watched()
    store.hset(redis_keys.bucket(bucket.name), "totals", "2:20")
    tick_until(probing(bucket), lambda: is_due(store, bucket))


def test_what_moved_while_no_monitor_probed_is_found_by_the_next_one(store, s3, watched):
    bucket = watched()
    tick_until(probing(bucket), lambda: last(bucket))
    put_objects(s3, bucket.name, "new")
    tick_until(probing(bucket), lambda: is_due(store, bucket))


def test_the_same_totals_have_no_look_requested_again_and_again(store, s3, watched):
    """As where workers of an earlier version leave the totals of the last look as they were."""
    bucket = watched()
    store.hset(redis_keys.bucket(bucket.name), "totals", "2:20")
    prober = probing(bucket)
    tick_until(prober, lambda: is_due(store, bucket))
    store.hdel(redis_keys.bucket(bucket.name), "pass_due")
    moved = results(store)["moved"]
    tick_until(prober, lambda: results(store)["moved"] >= moved + 2)
    assert not is_due(store, bucket)


def test_a_request_that_was_lost_is_made_again(store, s3, watched, monkeypatch):
    bucket = watched()
    store.hset(redis_keys.bucket(bucket.name), "totals", "2:20")
    prober = probing(bucket)
    tick_until(prober, lambda: is_due(store, bucket))
    store.hdel(redis_keys.bucket(bucket.name), "pass_due")
    monkeypatch.setattr(probing_rules, "REQUEST_AGAIN_S", 0.1)
    engine_buckets.schedule(store, bucket, at=9e9)
    tick_until(prober, lambda: is_due(store, bucket))


def test_totals_that_lie_cost_requests_and_announce_nothing(store, s3, watched):
    bucket = watched()
    s3.faults({TELLING: {"totals_move": 1.0}})
    prober = probing(bucket)
    tick_until(prober, lambda: is_due(store, bucket))
    region_task.scan_region(REGION)
    assert announced(store) == []


# --- who is asked


def test_buckets_of_one_page_are_not_asked_unless_somebody_chose_to(store, s3, watched):
    small, large = watched(probe_interval=None), watched(objects=1001, probe_interval=None)
    prober = probing(small, large)
    prober.tick()
    for one in prober._watched.values():
        one.due_at = 0.0
    tick_until(prober, lambda: last(large))
    assert last(large) == LastProbe(Totals(1001, 10_010))
    assert heads(s3, small) == 0


def test_scans_see_totals_only_where_probes_go_by_them(store, s3, watched):
    """A first pass cannot know how large a bucket is, and asks."""
    small, large = watched(probe_interval=None), watched(objects=1001, probe_interval=None)
    assert store.hget(redis_keys.bucket(large.name), "totals") == "1001:10010"
    for bucket in (small, large):
        engine_buckets.schedule(store, bucket)
    region_task.scan_region(REGION)
    assert heads(s3, small) == 0
    assert heads(s3, large) == 2  # before the pass and after it


def test_a_bucket_that_never_was_scanned_or_fails_is_not_asked(store, s3, watched):
    new, failing, fine = watched(), watched(), watched()
    store.hdel(redis_keys.bucket(new.name), "objects")
    store.hset(redis_keys.bucket(failing.name), "failures", "1")
    tick_until(probing(new, failing, fine), lambda: results(store).get("unmoved", 0) >= 2)
    assert (heads(s3, new), heads(s3, failing)) == (0, 0)


def test_a_bucket_without_totals_is_looked_at_as_often_as_it_would_be_asked(store, s3, watched):
    chosen = watched(endpoint=SILENT)
    prober = probing(chosen)
    for _ in range(2):
        tick_until(prober, lambda: is_due(store, chosen))
        store.hdel(redis_keys.bucket(chosen.name), "pass_due")
        engine_buckets.schedule(store, chosen, at=9e9)
    assert heads(s3, chosen) == 0  # that there are none is known since its first pass
    assert last(chosen) == LastProbe(None)


def test_a_bucket_without_totals_that_nobody_chose_to_probe_is_left_alone(store, s3, watched):
    large = watched(objects=1001, endpoint=SILENT, probe_interval=None)
    prober = probing(large)
    prober.tick()
    prober._watched[large.name].due_at = 0.0
    tick_until(prober, lambda: last(large))
    assert not is_due(store, large)
    assert results(store) == {"untold": 1}


def test_a_budget_that_passes_need_pays_for_no_probes(store, s3, watched):
    poor, fine = watched(budget=2), watched()
    tick_until(probing(poor, fine), lambda: results(store).get("unmoved", 0) >= 2)
    assert heads(s3, poor) == 0


def test_a_dead_endpoint_is_not_asked(store, s3, watched):
    bucket, other = watched(), watched(endpoint=SILENT)
    limiter = wiring.interactive().endpoints.limiter_for(bucket.endpoint)
    limiter.health()
    health = {"failures": 3, "dead_since": 1.0, "wait_until": 9e9, "why": "test"}
    store.set(redis_keys.pace(limiter.endpoint), json.dumps(health))
    eventually(lambda: limiter.health().is_dead)
    tick_until(probing(bucket, other), lambda: results(store).get("untold", 0) >= 3)
    assert heads(s3, bucket) == 0
    assert "failed" not in results(store)


def test_a_bucket_whose_keys_the_vault_does_not_hold_fails_alone(store, s3, watched):
    bucket, fine = replace(watched(), credential="UNKNOWN"), watched()
    tick_until(probing(bucket, fine), lambda: {"failed", "unmoved"} <= results(store).keys())
    assert heads(s3, bucket) == 0


# --- when


def test_buckets_that_are_gone_are_forgotten(store, s3, watched):
    gone, stays = watched(), watched()
    known = {"now": {gone.name: gone, stays.name: stays}}
    prober = Prober(wiring.conf(), lambda: known["now"])
    tick_until(prober, lambda: last(gone) and last(stays))
    known["now"] = {stays.name: stays}
    prober.tick()
    assert last(gone) is None
    assert last(stays) is not None


def test_only_a_monitor_that_leads_probes_and_redis_may_be_away(
    store, s3, watched, redis_server, monkeypatch
):
    bucket = watched()
    leads, stopping, stood_by = threading.Event(), StopSignal(), threading.Event()
    prober = probing(bucket)
    monkeypatch.setattr(prober, "stand_by", stood_by.set)
    prober.start(leads=leads.is_set, stopping=stopping)
    try:
        assert stood_by.wait(60)
        assert heads(s3, bucket) == 0
        leads.set()
        eventually(lambda: heads(s3, bucket) >= 1)
        redis_server.stop()
        with pytest.raises(RedisUnavailable):
            last(bucket)
        redis_server.start()  # without what it held
        before = heads(s3, bucket)
        store.hset(redis_keys.bucket(bucket.name), "objects", "3")
        eventually(lambda: heads(s3, bucket) > before)
    finally:
        stopping.set()


@pytest.mark.processes
def test_the_product_announces_a_change_long_before_the_next_pass(
    tmp_path, redis_server, store, s3
):
    name = f"bucket-{next(_numbers)}"
    put_objects(s3, name, "old")
    settings = {
        "POLLING_INTERVAL": str(HOURLY),
        "PROBE_INTERVAL": "1",
        "SECURITY_ALLOW_PRIVATE_ENDPOINTS": "true",
    }
    product = Product(tmp_path, redis_url=redis_server.url, **settings)
    try:
        product.wait_until_ready()
        keys = {"access_key": "key", "secret_key": "secret"}
        given = {"name": name, "endpoint": s3.urls[TELLING], "region": REGION, **keys}
        product.call(f"services.add_bucket(**{given!r})")
        eventually(lambda: [event["key"] for event in queued(store)] == ["old"])
        eventually(lambda: [bucket for _, bucket in s3.heads()].count(name) >= 2)
        put_objects(s3, name, "new")
        eventually(lambda: [event["key"] for event in queued(store)] == ["old", "new"])
    finally:
        product.stop_and_wait()
