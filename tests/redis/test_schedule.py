"""Due times and the leader lease in Redis."""

from typing import Any

import pytest

from scanning import wiring
from scanning.adapters.redis.schedule import ScheduleStore
from scanning.core import redis_keys
from scanning.core.holds import Release
from tests.support import engine_buckets


@pytest.fixture
def schedule(store) -> ScheduleStore:
    return wiring.background().schedule


def write(schedule: ScheduleStore, **given: Any) -> None:
    schedule.write(**{"added": {}, "removed": {}, "offsets": {}, "regions": []} | given)


def round_trips(store: Any) -> int:
    """How often a script was called so far."""
    return int(store.info("commandstats")["cmdstat_evalsha"]["calls"])


def test_due_times_are_read_as_they_were_written(schedule):
    for name in ("a", "b", "c"):
        engine_buckets.put(name)
    added = {"r1": {"a": 100.25, "b": 200.5}, "r2": {"c": 300.0}}
    write(schedule, added=added, regions=["r1", "r2"])
    assert schedule.due_times(["r1", "r2"]) == added
    assert schedule.regions() == {"r1", "r2"}
    write(schedule, removed={"r1": ["a"]}, regions=["r1"])
    assert schedule.due_times(["r1", "r2"]) == {"r1": {"b": 200.5}, "r2": {"c": 300.0}}
    assert schedule.regions() == {"r1"}


def test_offsets_go_where_claims_read_them(schedule, store):
    bucket = engine_buckets.put("a")
    write(schedule, offsets={"a": 12.3456789})
    claim = wiring.background().leases.claim(bucket, slots=1)
    assert claim is not None
    assert claim.offset_s == 12.345679


def test_a_bucket_removed_meanwhile_is_not_scheduled_again(schedule, store):
    engine_buckets.put("a")
    engine_buckets.remove("a")
    write(schedule, added={"r1": {"a": 1.0}}, offsets={"a": 2.0}, regions=["r1"])
    assert schedule.due_times(["r1"]) == {"r1": {}}
    assert not store.exists(redis_keys.bucket("a"))


def test_no_region_left_is_written_too(schedule):
    write(schedule, regions=["r1"])
    write(schedule)
    assert schedule.regions() == set()


def test_a_region_counts_the_due_buckets_that_nobody_scans(schedule, store):
    for name, at in [("a", 1.0), ("b", 2.0), ("c", 3.0), ("later", 1e12)]:
        engine_buckets.schedule(store, engine_buckets.put(name), at=at)
    region = engine_buckets.REGION
    assert schedule.due_counts([region, "empty"]) == {region: 3, "empty": 0}
    wiring.background().leases.claim_due(region, limit=1, slots=15)
    assert schedule.due_counts([region]) == {region: 2}


def test_a_bucket_whose_worker_died_counts_as_due_once_the_lease_expired(schedule, store):
    """Nobody else takes expired leases away before somebody is woken."""
    engine_buckets.schedule(store, engine_buckets.put("a"))
    wiring.background().leases.claim_due(engine_buckets.REGION, limit=1, slots=15)
    assert schedule.due_counts([engine_buckets.REGION]) == {engine_buckets.REGION: 0}
    store.zadd(redis_keys.running(engine_buckets.REGION), {"a": 1.0})
    assert schedule.due_counts([engine_buckets.REGION]) == {engine_buckets.REGION: 1}


def test_a_scan_can_be_asked_for_now_but_only_of_a_scheduled_bucket(schedule, store):
    engine_buckets.schedule(store, engine_buckets.put("a"), at=1e12)
    schedule.postpone("a", engine_buckets.REGION, until=5.0)
    schedule.postpone("stranger", engine_buckets.REGION, until=5.0)
    assert schedule.due_times([engine_buckets.REGION]) == {engine_buckets.REGION: {"a": 5.0}}


def test_many_buckets_are_made_due_in_a_few_round_trips(schedule, store):
    many = {f"bucket-{number}": engine_buckets.REGION for number in range(1001)}
    store.zadd(redis_keys.due(engine_buckets.REGION), dict.fromkeys(many, 1e12))
    schedule.make_due({"warm": engine_buckets.REGION})  # the script is known from here on
    asked = round_trips(store)
    schedule.make_due(many | {"stranger": engine_buckets.REGION})
    assert round_trips(store) - asked == 3
    due = schedule.due_times([engine_buckets.REGION])[engine_buckets.REGION]
    assert due.keys() == many.keys()
    assert max(due.values()) < 1e12
    assert store.hget(redis_keys.bucket("bucket-1000"), "again") == "1"
    assert not store.exists(redis_keys.bucket("stranger"))


def test_only_what_is_held_is_released(schedule, store):
    for name in ("held", "other"):
        engine_buckets.schedule(store, engine_buckets.put(name), at=1e12)
    store.hset(redis_keys.bucket("held"), mapping={"held_since": "1", "held_missing": "7"})
    schedule.release_holds({"held": engine_buckets.REGION, "other": engine_buckets.REGION})
    due = schedule.due_times([engine_buckets.REGION])[engine_buckets.REGION]
    assert (due["held"] < 1e12, due["other"]) == (True, 1e12)
    assert store.hmget(redis_keys.bucket("held"), "released", "again") == ["7", "1"]
    assert store.hmget(redis_keys.bucket("other"), "released", "again") == [None, None]


@pytest.mark.parametrize(
    ("choice", "released"),
    [(Release.ANNOUNCE_UPDATES, "9"), (Release.TAKE_TIMES, "silently")],
)
def test_only_the_kind_of_hold_is_released_that_somebody_chose(schedule, store, choice, released):
    for name in ("deletion", "both"):
        engine_buckets.schedule(store, engine_buckets.put(name), at=1e12)
        store.hset(redis_keys.bucket(name), mapping={"held_since": "1", "held_missing": "7"})
    moved = {"held_moved_since": "1", "held_moved": "9"}
    store.hset(redis_keys.bucket("both"), mapping=moved)
    schedule.release_holds(dict.fromkeys(["deletion", "both"], engine_buckets.REGION), choice)
    due = schedule.due_times([engine_buckets.REGION])[engine_buckets.REGION]
    assert (due["both"] < 1e12, due["deletion"]) == (True, 1e12)
    fields = ("released", "released_moved", "again")
    assert store.hmget(redis_keys.bucket("both"), *fields) == [None, released, "1"]
    assert store.hmget(redis_keys.bucket("deletion"), *fields) == [None, None, None]


def test_last_scans_are_told_for_the_buckets_that_have_one(schedule, store):
    store.set(redis_keys.last_scan("a"), "1640995200.5")
    assert schedule.last_scans(["a", "b"]) == {"a": 1640995200.5}
    assert schedule.last_scans([]) == {}


@pytest.mark.parametrize("text", ["", "yesterday", "nan", "inf"])
def test_a_last_scan_that_is_no_time_counts_as_none(schedule, store, text):
    store.set(redis_keys.last_scan("a"), text)
    store.rpush(redis_keys.last_scan("b"), "a list")
    assert schedule.last_scans(["a", "b"]) == {}


def test_one_leads_until_it_steps_down(schedule):
    assert schedule.lead("one", lease_s=60)
    assert schedule.lead("one", lease_s=60)
    assert not schedule.lead("two", lease_s=60)
    schedule.step_down("two")
    assert not schedule.lead("two", lease_s=60)
    schedule.step_down("one")
    assert schedule.lead("two", lease_s=60)


def test_a_lead_from_before_the_clock_went_back_is_nobodys(schedule, store):
    """Who leads renews it every second."""
    schedule.lead("one", lease_s=60)
    store.pexpire(redis_keys.LEADER, 3_600_000)
    assert schedule.lead("two", lease_s=60)


def test_a_lead_expires_by_itself(schedule, store):
    schedule.lead("one", lease_s=60)
    assert 59_000 < store.pttl(redis_keys.LEADER) <= 60_000
    schedule.lead("one", lease_s=90)
    assert store.pttl(redis_keys.LEADER) > 60_000
