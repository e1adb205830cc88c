"""What all processes share of endpoints, in real Redis."""

import pytest
import redis

from scanning import engine, wiring
from scanning.adapters.redis.connection import RedisConnection
from scanning.adapters.redis.pacing import RedisEndpointHealth
from scanning.core import pacing, redis_keys
from scanning.core.metrics import counters
from scanning.core.metrics.telemetry import EndpointLoad
from scanning.core.pacing import HEALTHY, EndpointHealth
from scanning.core.types import Claim
from scanning.ports import EndpointUsage
from tests.support import engine_buckets
from tests.support.engine_buckets import REGION

ENDPOINT = "s3.example.com"
LONG_PAST = 1.0


def paces(process: str) -> RedisEndpointHealth:
    return RedisEndpointHealth(RedisConnection(wiring.conf().redis), process=process)


@pytest.fixture
def here(store) -> RedisEndpointHealth:
    return paces("here:1")


@pytest.fixture
def there(store) -> RedisEndpointHealth:
    return paces("there:1")


def now(store: redis.Redis) -> float:
    return float(store.time()[0])


def dies(pace: EndpointHealth, now: float) -> EndpointHealth:
    for ago, bucket in enumerate("abc"):
        pace = pacing.failed(pace, bucket, now=now - 2 + ago, why="no answer", jitter=1.0)
    return pace


def revives(pace: EndpointHealth, now: float) -> EndpointHealth:
    return pacing.answered(pace)


def slows(pace: EndpointHealth, now: float) -> EndpointHealth:
    return pacing.throttled(pace, now=now, sent_per_s=100.0, jitter=0.5)


# --- use


def test_connections_are_granted_up_to_the_limit_over_all_processes(here, there):
    assert here.use(EndpointUsage(ENDPOINT, connections=6, limit=10)).connections == 6
    assert there.use(EndpointUsage(ENDPOINT, connections=6, limit=10)).connections == 4
    assert here.use(EndpointUsage(ENDPOINT, connections=9, limit=10)).connections == 6
    assert there.use(EndpointUsage(ENDPOINT, limit=10)).connections == 0
    assert here.use(EndpointUsage(ENDPOINT, connections=9, limit=10)).connections == 9
    assert there.use(EndpointUsage("elsewhere", connections=9, limit=10)).connections == 9


def test_without_a_limit_there_is_nothing_to_grant(here, there):
    assert here.use(EndpointUsage(ENDPOINT, connections=6)).connections == 6
    assert there.use(EndpointUsage(ENDPOINT, connections=6)).connections == 6


def test_a_process_that_tells_nothing_any_more_loses_its_connections(here, there, store):
    here.use(EndpointUsage(ENDPOINT, connections=10, limit=10))
    store.hset(redis_keys.pace_use(ENDPOINT), "here:1", "1.000:10:5.0")
    standing = there.use(EndpointUsage(ENDPOINT, connections=10, limit=10))
    assert (standing.connections, standing.others_per_s) == (10, 0.0)


def test_what_was_told_before_the_clock_went_back_counts_no_more(here, there, store):
    here.use(EndpointUsage(ENDPOINT, connections=10, limit=10))
    later = now(store) + 3600
    store.hset(redis_keys.pace_use(ENDPOINT), "here:1", f"{later}:10:5.0")
    assert there.use(EndpointUsage(ENDPOINT, connections=10, limit=10)).connections == 10


def test_moments_from_before_the_clock_went_back_are_not_waited_for(here, store):
    store.set(redis_keys.pace_slots(ENDPOINT, "bucket"), now(store) + 3600)
    assert here.reserve(ENDPOINT, "bucket", count=1, spacing_s=0.1, ahead_s=1e9) == 0
    assert here.reserve(ENDPOINT, "bucket", count=1, spacing_s=0.1, ahead_s=1e9) <= 0.1


def test_what_the_others_send_is_told(here, there):
    here.use(EndpointUsage(ENDPOINT, sent_per_s=12.5))
    assert there.use(EndpointUsage(ENDPOINT, sent_per_s=30.0)).others_per_s == 12.5
    assert here.use(EndpointUsage(ENDPOINT, sent_per_s=0.0)).others_per_s == 30.0
    assert there.use(EndpointUsage(ENDPOINT)).others_per_s == 0.0


def test_throttled_and_unanswered_requests_are_counted(here, store):
    here.use(EndpointUsage(ENDPOINT, throttled=2, unanswered=1))
    here.use(EndpointUsage(ENDPOINT, throttled=1))
    stats = store.hgetall(redis_keys.STATS)
    assert (stats[counters.THROTTLED], stats[counters.UNANSWERED]) == ("3", "1")


# --- changes


def test_a_change_is_seen_by_everybody(here, there):
    pace = here.change(ENDPOINT, slows).pace
    assert pacing.allowed(pace, now=pace.since) == 50
    assert there.use(EndpointUsage(ENDPOINT)).pace == pace


def test_changes_at_the_same_time_are_all_made(here, there):
    others = iter([slows])

    def fail(pace: EndpointHealth, now: float) -> EndpointHealth:
        for other in others:  # between our read and our write
            there.change(ENDPOINT, other)
        return pacing.failed(pace, "a", now=now, why="no answer", jitter=1.0)

    pace = here.change(ENDPOINT, fail).pace
    assert (pace.failures, pace.full) == (1, 100.0)


def test_a_change_that_changes_nothing_writes_nothing(here, store):
    here.change(ENDPOINT, lambda pace, _: pace)
    assert list(store.scan_iter()) == []


def test_an_endpoint_that_is_well_again_leaves_nothing_behind(here, store):
    here.change(ENDPOINT, dies)
    assert store.exists(redis_keys.pace(ENDPOINT))
    assert here.change(ENDPOINT, revives).pace == HEALTHY
    assert not store.exists(redis_keys.pace(ENDPOINT))


def test_every_key_expires(here, store):
    here.change(ENDPOINT, dies)
    here.use(EndpointUsage(ENDPOINT, sent_per_s=1.0, connections=2, limit=2))
    here.reserve(ENDPOINT, "bucket", count=2, spacing_s=0.1, ahead_s=1)
    here.park([claim(store, "bucket")], ENDPOINT, until=LONG_PAST)
    wiring.background().schedule.write_endpoints({REGION: ["a", "b"]})
    ours = [key for key in map(str, store.scan_iter()) if "pace" in key or "endpoints" in key]
    assert len(ours) == 6
    assert all(store.pttl(key) > 0 for key in ours)


# --- moments to ask


def test_moments_are_reserved_one_after_the_other_for_all_processes(here, there):
    assert here.reserve(ENDPOINT, "", count=10, spacing_s=1.0, ahead_s=60) == 0.0
    assert 9 < there.reserve(ENDPOINT, "", count=10, spacing_s=1.0, ahead_s=60) <= 10
    assert there.reserve(ENDPOINT, "bucket", count=1, spacing_s=1.0, ahead_s=60) == 0.0


def test_too_far_ahead_nothing_is_reserved(here):
    here.reserve(ENDPOINT, "", count=10, spacing_s=1.0, ahead_s=5)
    assert here.reserve(ENDPOINT, "", count=1, spacing_s=1.0, ahead_s=5) is None
    assert 9 < here.reserve(ENDPOINT, "", count=1, spacing_s=1.0, ahead_s=60) <= 10


# --- waiting for a dead endpoint


def claim(store: redis.Redis, name: str, *, due: float = LONG_PAST) -> Claim:
    engine_buckets.schedule(store, engine_buckets.put(name), at=due)
    [taken] = wiring.background().leases.claim_due(REGION, most=1, slots=1000)
    assert taken.bucket == name
    return taken


def due(store: redis.Redis) -> dict[str, float]:
    return wiring.background().schedule.due_times([REGION])[REGION]


def test_buckets_that_wait_free_their_slots_and_a_few_of_them_come_to_try(here, store):
    here.change(ENDPOINT, dies)
    names = [f"bucket-{n}" for n in range(5)]
    claims = [claim(store, name, due=LONG_PAST + n) for n, name in enumerate(names)]

    here.park(claims[1:], ENDPOINT, until=5000.0)
    here.park(claims[:1], ENDPOINT, until=5000.0)

    assert store.zcard(redis_keys.running(REGION)) == 0
    assert due(store) == {
        "bucket-0": 5000.0,
        "bucket-1": 5000.0,
        "bucket-2": 5001.0,
        "bucket-3": 5002.0,
        "bucket-4": 5060.0,
    }
    assert wiring.background().schedule.put_off([*names, "stranger"]) == set(names)


def test_all_are_due_soon_but_not_together_when_it_answers(here, there, store):
    here.change(ENDPOINT, dies)
    claims = [claim(store, f"bucket-{n}", due=LONG_PAST + n) for n in range(5)]
    here.park(claims, ENDPOINT, until=9e9)
    seconds, micros = store.time()
    now = seconds + micros / 1e6

    there.change(ENDPOINT, revives)

    times = due(store)
    assert list(times) == [f"bucket-{n}" for n in range(5)]
    first = times["bucket-0"]
    assert first >= now - 0.001
    assert [at - first for at in times.values()] == pytest.approx(
        [0, 0.05, 0.1, 0.15, 0.2], abs=1e-4
    )
    assert wiring.background().schedule.put_off(times) == set()
    assert not store.exists(redis_keys.pace_waiting(ENDPOINT))


def test_many_are_spread_over_some_seconds(here, store):
    here.change(ENDPOINT, dies)
    here.park([claim(store, f"bucket-{n}") for n in range(200)], ENDPOINT, until=9e9)
    here.change(ENDPOINT, revives)
    times = due(store).values()
    assert max(times) - min(times) == pytest.approx(5, abs=0.1)


def test_a_bucket_that_was_saved_or_removed_meanwhile_is_left_alone(here, store):
    here.change(ENDPOINT, dies)
    here.park([claim(store, name) for name in ("saved", "removed")], ENDPOINT, until=9e9)
    engine_buckets.put("saved")
    engine_buckets.remove("removed")
    saved = due(store)

    here.change(ENDPOINT, revives)

    assert due(store) == saved
    assert saved.keys() == {"saved"}


def test_who_waited_for_an_earlier_death_is_forgotten_at_the_next(here, store):
    here.change(ENDPOINT, dies)
    here.park([claim(store, "earlier")], ENDPOINT, until=9e9)
    store.delete(redis_keys.pace(ENDPOINT))  # as it expires
    here.change(ENDPOINT, dies)
    here.park([claim(store, "bucket")], ENDPOINT, until=5000.0)
    assert due(store)["bucket"] == 5000.0


def test_a_lost_lease_parks_nothing(here, store):
    here.change(ENDPOINT, dies)
    lost = claim(store, "bucket")
    store.zadd(redis_keys.running(REGION), {"bucket": LONG_PAST})
    taken = claim(store, "bucket")
    here.park([lost], ENDPOINT, until=9e9)
    here.defer([lost], until=9e9)
    assert due(store) == {"bucket": LONG_PAST}
    here.defer([taken], until=5000.0)
    assert due(store) == {"bucket": 5000.0}
    assert store.zcard(redis_keys.running(REGION)) == 0
    assert wiring.background().schedule.put_off(["bucket"]) == set()


# --- for people


def test_the_endpoints_that_were_asked_lately_are_shown(here, store):
    assert engine.endpoint_paces() == []
    for endpoint in ("c.example", "a.example", "b.example"):
        here.use(EndpointUsage(endpoint, sent_per_s=1.0))
    slowed = here.change("b.example", slows).pace
    died = here.change("c.example", dies).pace
    store.zadd(redis_keys.PACES, {"long-ago.example": LONG_PAST})

    shown = engine.endpoint_paces()

    assert shown == [
        EndpointLoad("a.example", "normal", 0.0),
        EndpointLoad("b.example", "slowed", shown[1].list_per_s),
        EndpointLoad("c.example", "dead", 0.0, died.wait_until, "no answer"),
    ]
    assert slowed.rate <= shown[1].list_per_s < slowed.rate + 30
