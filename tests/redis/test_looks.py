"""Looks before a bucket's pass is due: how they are asked for, claimed and ended."""

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
import redis

from scanning import engine, wiring
from scanning.adapters.redis.leases import RedisLeases
from scanning.core import redis_keys
from scanning.core.totals import SeenTotals, Totals
from scanning.core.types import MOST_HINTED_KEYS, Claim, LookRequest
from scanning.ports import Commit, Progress
from tests.support import engine_buckets
from tests.support.engine_buckets import REGION

FIELDS = ("pass_due", "look_keys", "again")


@pytest.fixture
def leases(store) -> RedisLeases:
    return wiring.background().leases


def server_time(store: redis.Redis) -> float:
    seconds, micros = store.time()
    return float(seconds + micros / 1e6)


def watch(store: redis.Redis, *, due_in_s: float, name: str = "bucket") -> float:
    """Watch a bucket; returns when its pass is due."""
    due = round(server_time(store) + due_in_s, 3)
    engine_buckets.schedule(store, engine_buckets.put(name), at=due)
    return due


def request(*keys: str) -> set[str]:
    return engine.request_looks({"bucket": REGION}, keys={"bucket": keys})


def claim(leases: RedisLeases) -> Claim:
    [claim] = leases.claim_due(REGION, limit=1, slots=1)
    return claim


def is_due(store: redis.Redis) -> bool:
    at = store.zscore(redis_keys.due(REGION), "bucket")
    return at is not None and float(at) <= server_time(store)


def left(store: redis.Redis) -> list[Any]:
    return list(store.hmget(redis_keys.bucket("bucket"), FIELDS))


def finish(leases: RedisLeases, claim: Claim, *, next_due: float, **ended: Any) -> None:
    ended["kind"] = "look" if claim.look else "pass"
    result = replace(engine_buckets.result("bucket"), **ended)
    leases.finish(claim, result, next_due=next_due)


def expire(store: redis.Redis) -> None:
    store.zadd(redis_keys.running(REGION), {"bucket": 1.0})


def paused(**progress: Any) -> dict[str, Any]:
    return {"complete": False, "progress": json.dumps(asdict(Progress(1.0, **progress)))}


def test_a_look_is_claimed_before_the_pass_is_due_and_knows_when_that_is(leases, store):
    due = watch(store, due_in_s=60)
    assert request("b", "ä/\U0001f30d", 'quoted"') == {"bucket"}
    assert claim(leases).look == LookRequest(("b", "ä/\U0001f30d", 'quoted"'), due)


def test_only_scheduled_buckets_are_looked_at(store):
    watch(store, due_in_s=60)
    asked = {"bucket": REGION, "stranger": REGION}
    assert engine.request_looks(asked) == {"bucket"}
    assert not store.exists(redis_keys.bucket("stranger"))


def test_looks_at_many_buckets_are_requested_at_once(leases, store):
    many = {f"bucket-{number}": REGION for number in range(1001)}
    store.zadd(redis_keys.due(REGION), dict.fromkeys(many, 1e12))
    assert engine.request_looks(many) == many.keys()
    assert store.zcount(redis_keys.due(REGION), "-inf", server_time(store)) == 1001


def test_keys_of_several_requests_are_looked_at_together(leases, store):
    due = watch(store, due_in_s=60)
    request("b", "a", "b")
    request("c", "b")
    request()
    assert claim(leases).look == LookRequest(("b", "a", "c"), due)


def test_more_keys_than_a_look_takes_are_not_all_remembered_and_seen_to_be_too_many(leases, store):
    watch(store, due_in_s=60)
    for start in range(0, 10_000, 1000):
        request(*(f"{number}" for number in range(start, start + 1000)))
    look = claim(leases).look
    assert look is not None
    assert MOST_HINTED_KEYS < len(look.keys) < 3 * MOST_HINTED_KEYS


def test_after_a_look_the_pass_is_due_when_it_was(leases, store):
    due = watch(store, due_in_s=60)
    request("a")
    look = claim(leases)
    finish(leases, look, next_due=due)
    assert left(store) == [None, None, None]
    assert store.zscore(redis_keys.due(REGION), "bucket") == due


def test_a_pass_that_is_due_by_now_is_no_look(leases, store):
    watch(store, due_in_s=-1)
    assert request("a") == {"bucket"}
    assert left(store) == [None, None, None]
    assert claim(leases).look is None


def test_a_look_that_was_not_claimed_before_the_pass_was_due_is_that_pass(leases, store):
    watch(store, due_in_s=60)
    request("a")
    store.hset(redis_keys.bucket("bucket"), "pass_due", server_time(store) - 1)
    claimed = claim(leases)
    assert claimed.look is None
    finish(leases, claimed, next_due=5e9)
    assert left(store) == [None, None, None]


def test_a_bucket_that_is_being_scanned_is_looked_at_afterwards(leases, store):
    watch(store, due_in_s=-1)
    scanned = claim(leases)
    assert request("a") == {"bucket"}
    finish(leases, scanned, next_due=5e9)
    assert is_due(store)
    assert claim(leases).look == LookRequest(("a",), 5e9)


def test_keys_that_come_during_a_look_are_looked_at_by_the_next(leases, store):
    due = watch(store, due_in_s=60)
    request("a", "b")
    look = claim(leases)
    request("b", "c")
    finish(leases, look, next_due=due)
    look = claim(leases)
    assert look.look == LookRequest(("b", "c"), due)
    request()
    finish(leases, look, next_due=due)
    assert claim(leases).look == LookRequest((), due)


def lease_expired(leases: RedisLeases, store: redis.Redis, claimed: Claim) -> None:
    expire(store)


def released(leases: RedisLeases, store: redis.Redis, claimed: Claim) -> None:
    leases.release(claimed)


def failed(leases: RedisLeases, store: redis.Redis, claimed: Claim) -> None:
    finish(leases, claimed, next_due=server_time(store), error="no answer", error_class="Error")


@pytest.mark.parametrize("ended", [lease_expired, released, failed])
def test_a_look_that_broke_off_is_claimed_again_with_all_its_keys(leases, store, ended):
    due = watch(store, due_in_s=60)
    request("a")
    look = claim(leases)
    request("b")
    ended(leases, store, look)
    assert claim(leases).look == LookRequest(("a", "b"), due)


@pytest.mark.parametrize("ended", [lease_expired, released, failed])
def test_a_pass_that_broke_off_is_claimed_again_as_a_pass(leases, store, ended):
    watch(store, due_in_s=-1)
    scanned = claim(leases)
    request("a")
    ended(leases, store, scanned)
    scanned = claim(leases)
    assert scanned.look is None
    finish(leases, scanned, next_due=5e9)
    assert left(store) == [None, None, None]
    assert not is_due(store)


def test_a_bucket_whose_scan_failed_waits_for_its_next_try(leases, store):
    watch(store, due_in_s=-1)
    next_try = server_time(store) + 60
    failed_scan = engine_buckets.result("bucket", error="no answer")
    leases.finish(claim(leases), failed_scan, next_due=next_try, failures=1)
    assert request("a") == {"bucket"}
    assert not is_due(store)
    assert left(store) == [None, None, None]


def test_a_long_pass_is_paused_for_looks_and_goes_on_between_them(leases, store):
    watch(store, due_in_s=-1)
    claimed, keys = claim(leases), []
    for key in "abcd":
        request(key)
        now = server_time(store)
        finish(leases, claimed, next_due=now, **({} if claimed.look else paused(after="m")))
        claimed = claim(leases)
        keys.append(claimed.look and claimed.look.keys)
    assert keys == [("a",), None, ("b", "c"), None]


def test_a_look_that_is_wanted_while_a_pass_pauses_comes_after_its_next_slice(leases, store):
    watch(store, due_in_s=-1)
    finish(leases, claim(leases), next_due=server_time(store), **paused(after="m"))
    request("a")
    request("b")
    scanned = claim(leases)
    assert scanned.look is None
    expire(store)  # it was killed
    scanned = claim(leases)
    assert scanned.look is None
    finish(leases, scanned, next_due=5e9)
    assert claim(leases).look == LookRequest(("a", "b"), 5e9)


@pytest.mark.parametrize("running", [False, True])
def test_scan_now_means_a_pass(leases, store, running):
    due = watch(store, due_in_s=60)
    request("a")
    if running:
        look = claim(leases)
    engine.scan_now("bucket", REGION, "s3.example.com")
    if running:
        finish(leases, look, next_due=due)
    assert claim(leases).look is None


def test_scan_now_during_a_pass_means_another_one_also_if_a_look_was_wanted(leases, store):
    watch(store, due_in_s=-1)
    scanned = claim(leases)
    request("a")
    engine.scan_now("bucket", REGION, "s3.example.com")
    request("b")
    finish(leases, scanned, next_due=5e9)
    assert claim(leases).look is None


def test_a_bucket_that_points_elsewhere_has_no_look_to_come(leases, store):
    watch(store, due_in_s=60)
    request("a")
    engine_buckets.put("bucket", generation=2)
    assert left(store) == [None, None, "1"]


def seen(store: redis.Redis) -> list[Any]:
    fields = ("totals", "totals_apart", "totals_before")
    return list(store.hmget(redis_keys.bucket("bucket"), fields))


def test_the_totals_that_scans_saw_are_there_for_probes_and_for_the_next_look(leases, store):
    watch(store, due_in_s=-1)
    one, two = Totals(1, 10), Totals(2, 20)
    finish(leases, claim(leases), next_due=1, totals=SeenTotals(one, before=one), **paused())
    assert seen(store) == [None, None, "1:10"]
    apart = Totals(-3, 0)
    finish(leases, claim(leases), next_due=5e9, totals=SeenTotals(one, one, apart))
    assert seen(store) == ["1:10", "-3:0", None]
    request()
    finish(leases, claim(leases), next_due=5e9, totals=SeenTotals(two))
    assert seen(store) == ["2:20", "-3:0", None]
    assert wiring.background().states.open(engine_buckets.put("bucket")).totals_apart == apart
    request()
    finish(leases, claim(leases), next_due=5e9)  # probes are off by now
    assert seen(store) == ["2:20", "-3:0", None]
    engine.scan_now("bucket", REGION, "s3.example.com")
    finish(leases, claim(leases), next_due=5e9, totals=SeenTotals(None))  # none are told
    assert seen(store) == [None, None, None]


def test_commits_add_up_what_is_listed(leases, store):
    watch(store, due_in_s=-1)
    scanned = claim(leases)
    states, large = wiring.background().states, 2**52
    states.commit(scanned, Commit(1, gained=Totals(3, large)))
    states.commit(scanned, Commit(1, gained=Totals(3, large)))  # sent twice
    states.commit(scanned, Commit(2, gained=Totals(-1, -7)))
    assert states.open(engine_buckets.put("bucket")).listed == Totals(2, large - 7)


def test_a_claim_by_hand_is_a_pass_and_covers_what_was_to_be_looked_at(leases, store):
    watch(store, due_in_s=60)
    request("a")
    by_hand = leases.claim(engine_buckets.put("bucket"), slots=1)
    assert by_hand is not None
    assert by_hand.look is None
    finish(leases, by_hand, next_due=5e9)
    assert left(store) == [None, None, None]
    assert not is_due(store)


def test_a_claim_by_hand_that_scans_nothing_leaves_the_look_to_come(leases, store):
    due = watch(store, due_in_s=60)
    request("a")
    by_hand = leases.claim(engine_buckets.put("bucket"), slots=1)
    assert by_hand is not None
    leases.release(by_hand)
    assert claim(leases).look == LookRequest(("a",), due)
