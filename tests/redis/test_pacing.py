"""What all processes share of endpoints, in real Redis."""

import json

import pytest
import redis

from scanning import engine, wiring
from scanning.adapters.redis.connection import RedisConnection
from scanning.adapters.redis.pacing import RedisEndpointHealth
from scanning.core import pacing, redis_keys
from scanning.core.metrics import counters
from scanning.core.metrics.telemetry import EndpointLoad
from scanning.core.pacing import HEALTHY, EndpointHealth
from scanning.core.request_costs import RequestKind
from scanning.core.types import Claim
from scanning.ports import EndpointUsage, RequestReport
from tests.support import engine_buckets
from tests.support.engine_buckets import REGION
from tests.support.meddling import MeddlingConnection

ENDPOINT = "s3.example.com"
LIST, METADATA, BUCKET = RequestKind.LIST, RequestKind.METADATA, RequestKind.BUCKET
LONG_PAST = 1.0


def store_of(process: str) -> RedisEndpointHealth:
    return RedisEndpointHealth(RedisConnection(wiring.conf().redis), process=process)


@pytest.fixture
def here(store) -> RedisEndpointHealth:
    return store_of("here:1")


@pytest.fixture
def there(store) -> RedisEndpointHealth:
    return store_of("there:1")


def now(store: redis.Redis) -> float:
    return float(store.time()[0])


def dies(health: EndpointHealth, now: float) -> EndpointHealth:
    for ago, bucket in enumerate("abc"):
        health = pacing.record_failure(
            health, bucket, now=now - 2 + ago, why="no answer", jitter=1.0
        )
    return health


def revives(health: EndpointHealth, now: float) -> EndpointHealth:
    return pacing.record_answer(health)


def slows(health: EndpointHealth, now: float) -> EndpointHealth:
    return pacing.record_throttling(health, now=now, sent_per_s=100.0, jitter=0.5)


# --- use


def test_connections_are_granted_up_to_the_limit_over_all_processes(here, there):
    assert here.share_usage(EndpointUsage(ENDPOINT, connections=6, limit=10)).connections == 6
    assert there.share_usage(EndpointUsage(ENDPOINT, connections=6, limit=10)).connections == 4
    assert here.share_usage(EndpointUsage(ENDPOINT, connections=9, limit=10)).connections == 6
    assert there.share_usage(EndpointUsage(ENDPOINT, limit=10)).connections == 0
    assert here.share_usage(EndpointUsage(ENDPOINT, connections=9, limit=10)).connections == 9
    assert there.share_usage(EndpointUsage("elsewhere", connections=9, limit=10)).connections == 9


def test_without_a_limit_there_is_nothing_to_grant(here, there):
    assert here.share_usage(EndpointUsage(ENDPOINT, connections=6)).connections == 6
    assert there.share_usage(EndpointUsage(ENDPOINT, connections=6)).connections == 6


def test_a_process_that_reports_nothing_any_more_loses_its_connections(here, there, store):
    here.share_usage(EndpointUsage(ENDPOINT, connections=10, limit=10))
    store.hset(redis_keys.pace_use(ENDPOINT), "here:1", "1.000:10:5.0")
    status = there.share_usage(EndpointUsage(ENDPOINT, connections=10, limit=10))
    assert (status.connections, status.others_per_s) == (10, 0.0)


def test_what_was_told_before_the_clock_went_back_counts_no_more(here, there, store):
    here.share_usage(EndpointUsage(ENDPOINT, connections=10, limit=10))
    later = now(store) + 3600
    store.hset(redis_keys.pace_use(ENDPOINT), "here:1", f"{later}:10:5.0")
    assert there.share_usage(EndpointUsage(ENDPOINT, connections=10, limit=10)).connections == 10


def test_moments_from_before_the_clock_went_back_are_not_waited_for(here, store):
    store.set(redis_keys.pace_slots(ENDPOINT), now(store) + 3600)
    assert here.reserve(ENDPOINT, count=1, spacing_s=0.1, max_wait_s=1e9) == 0
    assert here.reserve(ENDPOINT, count=1, spacing_s=0.1, max_wait_s=1e9) <= 0.1


def test_what_the_others_send_is_told(here, there):
    here.share_usage(EndpointUsage(ENDPOINT, sent_per_s=12.5))
    assert there.share_usage(EndpointUsage(ENDPOINT, sent_per_s=30.0)).others_per_s == 12.5
    assert here.share_usage(EndpointUsage(ENDPOINT, sent_per_s=0.0)).others_per_s == 30.0
    assert there.share_usage(EndpointUsage(ENDPOINT)).others_per_s == 0.0


def test_throttled_and_unanswered_requests_are_counted(here, store):
    report(here, RequestReport("reporter", 1, throttled=2, unanswered=1))
    report(here, RequestReport("reporter", 2, throttled=1))
    stats = store.hgetall(redis_keys.STATS)
    assert (stats[counters.THROTTLED], stats[counters.UNANSWERED]) == ("3", "1")


def test_requests_are_counted_by_bucket_endpoint_and_kind(here, there, store):
    report(here, RequestReport("a", 1, {("in", LIST): 5, ("in", METADATA): 2, ("out", LIST): 1}))
    report(there, RequestReport("b", 1, {("in", LIST): 1}))
    report(there, RequestReport("b", 2, {("in", BUCKET): 9}), endpoint="elsewhere")
    read = wiring.background().telemetry.requests(["in", "out", "other"])
    assert {name: found.today for name, found in read.items()} == {
        "in": {LIST: 6, METADATA: 2, BUCKET: 9},
        "out": {LIST: 1},
        "other": {},
    }
    by_endpoint = wiring.background().telemetry.endpoint_requests([ENDPOINT, "elsewhere"])
    assert {name: found.today for name, found in by_endpoint.items()} == {
        ENDPOINT: {LIST: 7, METADATA: 2},
        "elsewhere": {BUCKET: 9},
    }
    stats = store.hgetall(redis_keys.STATS)
    assert (stats["list_requests"], stats["head_calls:metadata"], stats["head_calls:bucket"]) == (
        "7",
        "2",
        "9",
    )


def test_a_report_that_is_sent_twice_counts_once(here, store):
    for number in (1, 1, 2, 1):
        report(here, RequestReport("reporter", number, {("in", LIST): 5}, throttled=1))
    assert store.hget(redis_keys.STATS, "list_requests") == "10"
    assert store.hget(redis_keys.STATS, counters.THROTTLED) == "2"


def test_what_counts_requests_expires(here, store):
    report(here, RequestReport("reporter", 1, {("in", LIST): 5}))
    keys = [
        *store.scan_iter(f"{redis_keys.REQUESTS_PREFIX}*"),
        redis_keys.request_report(ENDPOINT, "reporter"),
    ]
    assert len(keys) == 3
    assert all(store.ttl(key) > 0 for key in keys)


def report(
    store: RedisEndpointHealth, requests: RequestReport, *, endpoint: str = ENDPOINT
) -> None:
    store.share_usage(EndpointUsage(endpoint, report=requests))


# --- changes


def test_a_change_is_seen_by_everybody(here, there):
    health = here.update(ENDPOINT, slows).health
    assert pacing.allowed_per_s(health, now=health.since) == 50
    assert there.share_usage(EndpointUsage(ENDPOINT)).health == health


def test_changes_at_the_same_time_are_all_made(here, there):
    others = iter([slows])

    def fail(health: EndpointHealth, now: float) -> EndpointHealth:
        for other in others:  # between our read and our write
            there.update(ENDPOINT, other)
        return pacing.record_failure(health, "a", now=now, why="no answer", jitter=1.0)

    health = here.update(ENDPOINT, fail).health
    assert (health.failures, health.full) == (1, 100.0)


def test_a_change_that_changes_nothing_writes_nothing(here, store):
    here.update(ENDPOINT, lambda health, _: health)
    assert list(store.scan_iter()) == []


def test_an_endpoint_that_is_well_again_leaves_nothing_behind(here, store):
    here.update(ENDPOINT, dies)
    assert store.exists(redis_keys.pace(ENDPOINT))
    assert here.update(ENDPOINT, revives).health == HEALTHY
    assert not store.exists(redis_keys.pace(ENDPOINT))


def test_every_key_expires(here, store):
    here.update("failing.example", fails)
    here.update(ENDPOINT, dies)
    here.share_usage(EndpointUsage(ENDPOINT, sent_per_s=1.0, connections=2, limit=2))
    here.reserve(ENDPOINT, count=2, spacing_s=0.1, max_wait_s=1)
    here.postpone_until_answer([claim(store, "bucket")], ENDPOINT, until=LONG_PAST)
    wiring.background().schedule.write_endpoints({REGION: ["a", "b"]})
    ours = [key for key in map(str, store.scan_iter()) if "pace" in key or "endpoints" in key]
    assert len(ours) == 8
    assert all(store.pttl(key) > 0 for key in ours)


def fails(health: EndpointHealth, now: float) -> EndpointHealth:
    return pacing.record_failure(health, "bucket", now=now, why="no answer", jitter=1.0)


def test_a_host_of_the_version_before_can_read_a_failing_endpoint(here, there, store):
    """Its dataclass raises TypeError for a member that it does not know."""
    failing = here.update(ENDPOINT, fails).health
    known = {"rate", "since", "full", "failures", "buckets", "probes"}
    known |= {"dead_since", "wait_until", "probe", "why"}
    assert json.loads(store.get(redis_keys.pace(ENDPOINT))).keys() <= known
    assert failing.failed_at > 0
    assert there.share_usage(EndpointUsage(ENDPOINT)).health == failing
    assert there.update(ENDPOINT, lambda health, _: health).health == failing


def test_what_the_version_before_wrote_is_read(here, store):
    """It knows nothing of when the endpoint failed, and does not remove what we wrote of that."""
    here.update(ENDPOINT, fails)
    store.delete(redis_keys.pace(ENDPOINT))
    assert here.share_usage(EndpointUsage(ENDPOINT)).health == HEALTHY
    text = json.dumps({"failures": 2, "buckets": ["a"], "why": "no answer"})
    store.set(redis_keys.pace(ENDPOINT), text)
    store.set(redis_keys.pace_failed_at(ENDPOINT), "1.0")
    assert here.update(ENDPOINT, fails).health.is_dead


def test_members_that_a_later_version_writes_are_ignored(here, store):
    store.set(redis_keys.pace(ENDPOINT), json.dumps({"failures": 1, "mood": "bad"}))
    assert here.share_usage(EndpointUsage(ENDPOINT)).health == EndpointHealth(failures=1)


# --- moments to ask


def test_moments_are_reserved_one_after_the_other_for_all_processes(here, there):
    assert here.reserve(ENDPOINT, count=10, spacing_s=1.0, max_wait_s=60) == 0.0
    assert 9 < there.reserve(ENDPOINT, count=10, spacing_s=1.0, max_wait_s=60) <= 10
    assert there.reserve("elsewhere", count=1, spacing_s=1.0, max_wait_s=60) == 0.0


def test_too_far_ahead_nothing_is_reserved(here):
    here.reserve(ENDPOINT, count=10, spacing_s=1.0, max_wait_s=5)
    assert here.reserve(ENDPOINT, count=1, spacing_s=1.0, max_wait_s=5) is None
    assert 9 < here.reserve(ENDPOINT, count=1, spacing_s=1.0, max_wait_s=60) <= 10


# --- waiting for a dead endpoint


def claim(store: redis.Redis, name: str, *, due: float = LONG_PAST) -> Claim:
    engine_buckets.schedule(store, engine_buckets.put(name), at=due)
    [taken] = wiring.background().leases.claim_due(REGION, limit=1, slots=1000)
    assert taken.bucket == name
    return taken


def due(store: redis.Redis) -> dict[str, float]:
    return wiring.background().schedule.due_times([REGION])[REGION]


def test_buckets_that_wait_free_their_slots_and_a_few_of_them_come_to_try(here, store):
    here.update(ENDPOINT, dies)
    names = [f"bucket-{n}" for n in range(5)]
    claims = [claim(store, name, due=LONG_PAST + n) for n, name in enumerate(names)]

    here.postpone_until_answer(claims[1:], ENDPOINT, until=5000.0)
    here.postpone_until_answer(claims[:1], ENDPOINT, until=5000.0)

    assert store.zcard(redis_keys.running(REGION)) == 0
    assert due(store) == {
        "bucket-0": 5000.0,
        "bucket-1": 5000.0,
        "bucket-2": 5001.0,
        "bucket-3": 5002.0,
        "bucket-4": 5060.0,
    }
    assert wiring.background().schedule.postponed([*names, "stranger"]) == set(names)


def test_all_are_due_soon_but_not_together_when_it_answers(here, there, store):
    here.update(ENDPOINT, dies)
    claims = [claim(store, f"bucket-{n}", due=LONG_PAST + n) for n in range(5)]
    here.postpone_until_answer(claims, ENDPOINT, until=9e9)
    seconds, micros = store.time()
    now = seconds + micros / 1e6

    there.update(ENDPOINT, revives)

    times = due(store)
    assert list(times) == [f"bucket-{n}" for n in range(5)]
    first = times["bucket-0"]
    assert first >= now - 0.001
    assert [at - first for at in times.values()] == pytest.approx(
        [0, 0.05, 0.1, 0.15, 0.2], abs=1e-4
    )
    assert wiring.background().schedule.postponed(times) == set()
    assert not store.exists(redis_keys.pace_waiting(ENDPOINT))


def test_a_bucket_that_begins_to_wait_while_an_endpoint_revives_is_due_as_well(there, store):
    there.update(ENDPOINT, dies)
    early, late = claim(store, "early"), claim(store, "late")
    there.postpone_until_answer([early], ENDPOINT, until=9e9)
    connection = MeddlingConnection(
        lambda: there.postpone_until_answer([late], ENDPOINT, until=9e9), answers=2
    )
    RedisEndpointHealth(connection).update(ENDPOINT, revives)
    assert max(due(store).values()) < now(store) + 10


def test_many_are_spread_over_some_seconds(here, store):
    here.update(ENDPOINT, dies)
    here.postpone_until_answer(
        [claim(store, f"bucket-{n}") for n in range(200)], ENDPOINT, until=9e9
    )
    here.update(ENDPOINT, revives)
    times = due(store).values()
    assert max(times) - min(times) == pytest.approx(5, abs=0.1)


def test_a_bucket_that_was_saved_or_removed_meanwhile_is_left_alone(here, store):
    here.update(ENDPOINT, dies)
    here.postpone_until_answer(
        [claim(store, name) for name in ("saved", "removed")], ENDPOINT, until=9e9
    )
    engine_buckets.put("saved")
    engine_buckets.remove("removed")
    saved = due(store)

    here.update(ENDPOINT, revives)

    assert due(store) == saved
    assert saved.keys() == {"saved"}


def test_who_waited_for_an_earlier_death_is_forgotten_at_the_next(here, store):
    here.update(ENDPOINT, dies)
    here.postpone_until_answer([claim(store, "earlier")], ENDPOINT, until=9e9)
    store.delete(redis_keys.pace(ENDPOINT))  # as it expires
    here.update(ENDPOINT, dies)
    here.postpone_until_answer([claim(store, "bucket")], ENDPOINT, until=5000.0)
    assert due(store)["bucket"] == 5000.0


def test_a_lost_lease_postpones_nothing(here, store):
    here.update(ENDPOINT, dies)
    lost = claim(store, "bucket")
    store.zadd(redis_keys.running(REGION), {"bucket": LONG_PAST})
    taken = claim(store, "bucket")
    here.postpone_until_answer([lost], ENDPOINT, until=9e9)
    here.postpone([lost], until=9e9)
    assert due(store) == {"bucket": LONG_PAST}
    here.postpone([taken], until=5000.0)
    assert due(store) == {"bucket": 5000.0}
    assert store.zcard(redis_keys.running(REGION)) == 0
    assert wiring.background().schedule.postponed(["bucket"]) == set()


# --- for people


def test_the_endpoints_that_were_asked_lately_are_shown(here, store):
    assert engine.endpoint_loads() == []
    for endpoint in ("c.example", "a.example", "b.example"):
        here.share_usage(EndpointUsage(endpoint, sent_per_s=1.0))
    slowed = here.update("b.example", slows).health
    died = here.update("c.example", dies).health
    store.zadd(redis_keys.PACES, {"long-ago.example": LONG_PAST})

    shown = engine.endpoint_loads()

    assert shown == [
        EndpointLoad("a.example", "normal", 0.0),
        EndpointLoad("b.example", "slowed", shown[1].list_per_s),
        EndpointLoad("c.example", "dead", 0.0, died.wait_until, "no answer"),
    ]
    assert slowed.rate <= shown[1].list_per_s < slowed.rate + 30
