"""Claims: the region's slots and the bucket's lock, shared by any number of claimants."""

import json
import math
import time
from dataclasses import asdict, replace
from typing import Any

import pytest
import redis

from scanning import engine, wiring
from scanning.adapters.redis.bucket_status import BucketStatusStore
from scanning.adapters.redis.connection import RedisConnection
from scanning.adapters.redis.leases import LEASE_S, RedisLeases
from scanning.core import redis_keys
from scanning.core.holds import Release
from scanning.core.scan_warnings import ScanWarning, ScanWarnings, WarningKind
from scanning.core.segments import key_ranges
from scanning.core.texts import MOST_MESSAGE
from scanning.core.types import BucketStatus, Claim, Held, HeldTimes
from scanning.ports import Commit, Progress
from tests.support import engine_buckets
from tests.support.engine_buckets import REGION
from tests.support.meddling import MeddlingConnection

LONG_PAST = 1.0


@pytest.fixture
def here(store) -> RedisLeases:
    return RedisLeases(RedisConnection(wiring.conf().redis))


@pytest.fixture
def there(store) -> RedisLeases:
    """Another host's leases."""
    return RedisLeases(RedisConnection(wiring.conf().redis))


def make_due(store: redis.Redis, *names: str) -> None:
    """The earlier named, the longer due."""
    for place, name in enumerate(names):
        engine_buckets.schedule(store, engine_buckets.put(name), at=LONG_PAST + place)


def names(claims: list[Claim]) -> list[str]:
    return [claim.bucket for claim in claims]


def expire(store: redis.Redis, name: str) -> None:
    store.zadd(redis_keys.running(REGION), {name: LONG_PAST})


def server_time(store: redis.Redis) -> float:
    seconds, micros = store.time()
    return float(seconds + micros / 1e6)


def test_a_bucket_that_another_claims_in_between_makes_room_for_the_next(there, store):
    make_due(store, "a", "b", "c")
    taken: list[Claim] = []
    here = RedisLeases(
        MeddlingConnection(lambda: taken.extend(there.claim_due(REGION, limit=1, slots=15)))
    )
    assert names(here.claim_due(REGION, limit=2, slots=15)) == ["b", "c"]
    assert names(taken) == ["a"]


def test_a_bucket_that_is_no_longer_due_when_it_is_claimed_is_left(store):
    make_due(store, "a")
    here = RedisLeases(MeddlingConnection(lambda: store.zadd(redis_keys.due(REGION), {"a": 9e9})))
    assert here.claim_due(REGION, limit=2, slots=15) == []
    assert not store.exists(redis_keys.running(REGION))


def test_the_longest_due_are_claimed_first(here, store):
    make_due(store, "a", "b", "c")
    assert names(here.claim_due(REGION, limit=2, slots=15)) == ["a", "b"]
    assert names(here.claim_due(REGION, limit=2, slots=15)) == ["c"]


def test_a_claim_says_all_that_a_scan_needs(here, store):
    make_due(store, "bucket")
    store.hset(redis_keys.bucket("bucket"), mapping={"commit": 7, "offset": "12.500000"})
    before = server_time(store)
    [claim] = here.claim_due(REGION, limit=1, slots=1)
    assert claim == Claim(
        bucket="bucket",
        region=REGION,
        fence=claim.fence,
        generation=1,
        scheduled_at=LONG_PAST,
        offset_s=12.5,
        expires_at=claim.expires_at,
        commit=7,
        taken_at=claim.taken_at,
        arrived_s=claim.arrived_s,
    )
    assert before <= claim.taken_at + 1e-6
    assert claim.expires_at == pytest.approx(claim.taken_at + LEASE_S, abs=1e-5)
    assert before * 1000 - 1 <= claim.fence <= server_time(store) * 1000
    assert before + LEASE_S <= claim.expires_at + 1e-6
    assert store.zscore(redis_keys.running(REGION), "bucket") == pytest.approx(claim.expires_at)


def test_what_is_not_due_yet_is_not_claimed(here, store):
    engine_buckets.schedule(store, engine_buckets.put("later"), at=server_time(store) + 60)
    assert here.claim_due(REGION, limit=5, slots=5) == []


def test_two_claimants_never_get_the_same_bucket(here, there, store):
    make_due(store, "a", "b", "c")
    claimed = [
        *here.claim_due(REGION, limit=2, slots=15),
        *there.claim_due(REGION, limit=2, slots=15),
    ]
    assert sorted(names(claimed)) == ["a", "b", "c"]
    assert there.claim(engine_buckets.put("a"), slots=15) is None


def test_the_regions_slots_hold_over_all_claimants(here, there, store):
    make_due(store, "a", "b", "c", "d")
    assert len(here.claim_due(REGION, limit=15, slots=3)) == 3
    assert there.claim_due(REGION, limit=15, slots=3) == []
    assert there.claim(engine_buckets.put("d"), slots=3) is None


def test_another_regions_slots_are_its_own(here, store):
    make_due(store, "a", "b")
    here.claim_due(REGION, limit=1, slots=1)
    elsewhere = engine_buckets.put("c", region="elsewhere")
    engine_buckets.schedule(store, elsewhere)
    assert names(here.claim_due("elsewhere", limit=1, slots=1)) == ["c"]


def test_buckets_that_are_being_scanned_or_cleared_do_not_hide_those_behind_them(here, store):
    make_due(store, "a", "b", "c", "d", "e")
    store.sadd(redis_keys.CLEARING, "b", "c")
    assert names(here.claim_due(REGION, limit=1, slots=15)) == ["a"]
    assert names(here.claim_due(REGION, limit=1, slots=15)) == ["d"]
    assert names(here.claim_due(REGION, limit=5, slots=15)) == ["e"]


def test_a_bucket_that_is_being_cleared_cannot_be_claimed(here, store):
    bucket = engine_buckets.put("bucket")
    store.sadd(redis_keys.CLEARING, "bucket")
    assert here.claim(bucket, slots=15) is None
    store.srem(redis_keys.CLEARING, "bucket")
    assert here.claim(bucket, slots=15) is not None


def test_an_expired_lease_is_taken_over_with_a_larger_fence(here, there, store):
    make_due(store, "bucket")
    [lost] = here.claim_due(REGION, limit=1, slots=1)
    expire(store, "bucket")
    [taken] = there.claim_due(REGION, limit=1, slots=1)
    assert taken.fence > lost.fence


def test_a_fence_grows_with_each_claim_also_within_a_millisecond(here, store):
    bucket = engine_buckets.put("bucket")
    fences = []
    for _ in range(20):
        claim = here.claim(bucket, slots=1)
        assert claim is not None
        fences.append(claim.fence)
        here.release(claim)
    assert fences == sorted(set(fences))


def test_a_fence_ahead_of_the_clock_is_not_taken_back(here, store):
    """A failover to a host whose clock is behind."""
    bucket = engine_buckets.put("bucket")
    ahead = math.floor(server_time(store) * 1000) + 3_600_000
    store.hset(redis_keys.bucket("bucket"), "fence", ahead)
    claim = here.claim(bucket, slots=1)
    assert claim is not None
    assert claim.fence == ahead + 1


def test_a_lease_from_before_the_clock_went_back_lasts_no_longer_than_a_new_one(here, store):
    """Its worker, if it lives, renews it in time."""
    make_due(store, "bucket")
    [claim] = here.claim_due(REGION, limit=1, slots=1)
    store.zadd(redis_keys.running(REGION), {"bucket": server_time(store) + 3600})
    assert here.claim_due(REGION, limit=1, slots=1) == []
    assert store.zscore(redis_keys.running(REGION), "bucket") <= server_time(store) + LEASE_S
    assert here.renew(claim)


def test_a_renewed_lease_lasts_longer(here, store):
    claim = here.claim(engine_buckets.put("bucket"), slots=1)
    store.zadd(redis_keys.running(REGION), {"bucket": server_time(store) + 1})
    assert here.renew(claim)
    assert store.zscore(redis_keys.running(REGION), "bucket") > server_time(store) + LEASE_S - 1


def test_a_lost_lease_can_do_nothing(here, there, store):
    make_due(store, "bucket")
    [lost] = here.claim_due(REGION, limit=1, slots=1)
    expire(store, "bucket")
    there.claim_due(REGION, limit=1, slots=1)
    before = engine_buckets.dump(store)

    assert not here.renew(lost)
    here.finish(lost, engine_buckets.result("bucket"), next_due=5000.0)
    here.release(lost)

    assert engine_buckets.dump(store) == before


def test_an_expired_lease_is_not_renewed_even_if_nobody_took_it(here, store):
    claim = here.claim(engine_buckets.put("bucket"), slots=1)
    expire(store, "bucket")
    assert not here.renew(claim)


def test_a_removed_bucket_is_not_brought_back_by_the_end_of_its_scan(here, store):
    make_due(store, "bucket")
    [claim] = here.claim_due(REGION, limit=1, slots=1)
    engine_buckets.remove("bucket")
    before = engine_buckets.dump(store)

    assert not here.renew(claim)
    here.finish(claim, engine_buckets.result("bucket"), next_due=5000.0)
    here.release(claim)

    assert engine_buckets.dump(store) == before
    assert not store.exists(redis_keys.bucket("bucket"), redis_keys.last_scan("bucket"))


def test_a_finished_scan_frees_the_slot_and_is_recorded(here, store):
    make_due(store, "bucket")
    [claim] = here.claim_due(REGION, limit=1, slots=1)
    here.finish(claim, engine_buckets.result("bucket", started_at=1234.5), next_due=5000.25)
    assert store.zcard(redis_keys.running(REGION)) == 0
    assert store.zscore(redis_keys.due(REGION), "bucket") == 5000.25
    assert float(store.get(redis_keys.last_scan("bucket"))) == 1234.5
    assert store.hgetall(redis_keys.STATS) == {
        "total_scans": "1",
        "total_objects_scanned": "10",
        "list_calls": "1",
        "segments_unchanged": "4",
        "segments_compared": "2",
        "lateness:13": "1",
        "lateness_ms": "1233500",
        "last_scan_time": "1234.5",
    }
    assert store.hget(redis_keys.bucket("bucket"), "complete") == "1"


def test_scans_that_break_off_without_a_commit_are_counted_at_their_place(here, store):
    bucket = engine_buckets.put("bucket")
    states = wiring.background().states

    def scan(*, commits: bool = False, **ended: Any) -> int:
        make_due(store, "bucket")
        [claim] = here.claim_due(REGION, limit=1, slots=1)
        if commits:
            states.commit(claim, Commit(claim.commit + 1))
        result = replace(engine_buckets.result("bucket"), commit=None, **ended)
        here.finish(claim, result, next_due=5000.0, broke_off=bool(ended))
        return states.open(bucket).stuck

    failed: dict[str, Any] = {
        "error": "no answer",
        "error_class": "StorageUnavailable",
        "complete": False,
    }
    assert [scan(**failed) for _ in range(3)] == [1, 2, 3]
    assert [scan(**failed, commits=True), scan(**failed)] == [1, 2]
    assert scan() == 0


AHEAD = (("m", "p"),)


def test_warnings_of_a_pass_are_kept_while_it_pauses_and_shown_once_it_is_complete(here, store):
    bucket = engine_buckets.put("bucket")
    warnings = ScanWarnings()
    warnings.add(WarningKind.CONTRADICTED_ABSENCE, "a", "b")

    def finish(*, complete: bool) -> None:
        make_due(store, "bucket")
        [claim] = here.claim_due(REGION, limit=1, slots=1)
        result = replace(
            engine_buckets.result("bucket"),
            commit=None,
            complete=complete,
            progress=json.dumps(asdict(Progress(1.0))),
            warnings=tuple(warnings),
            ahead=key_ranges.as_json(AHEAD, 0),
        )
        here.finish(claim, result, next_due=5000.0)

    def shown() -> tuple[ScanWarning, ...]:
        [status] = wiring.background().bucket_status.read(["bucket"])
        return status.warnings

    finish(complete=False)
    states = wiring.background().states
    assert (states.open(bucket).warnings, shown()) == (tuple(warnings), ())
    assert states.open(bucket).ahead == AHEAD
    finish(complete=True)
    assert (states.open(bucket).warnings, shown()) == ((), tuple(warnings))
    assert states.open(bucket).ahead == ()


def test_the_end_of_a_scan_of_what_the_bucket_was_before_is_not_recorded(here, store):
    """Its endpoint or its region was changed while it was scanned."""
    make_due(store, "bucket")
    [claim] = here.claim_due(REGION, limit=1, slots=1)
    engine_buckets.put("bucket", generation=2)
    here.finish(claim, engine_buckets.result("bucket"), next_due=5000.0)
    assert store.zscore(redis_keys.due(REGION), "bucket") == LONG_PAST
    assert store.zcard(redis_keys.running(REGION)) == 0
    assert not store.exists(
        redis_keys.last_scan("bucket"), redis_keys.STATS, redis_keys.STATUS_CHANGES
    )


def test_the_end_of_a_scan_whose_last_commit_a_failover_forgot_is_not_recorded(here, store):
    """What it had made known is not known: a first scan would count as complete."""
    make_due(store, "bucket")
    [claim] = here.claim_due(REGION, limit=1, slots=1)
    store.hset(redis_keys.bucket("bucket"), "commit", 4)
    here.finish(claim, replace(engine_buckets.result("bucket"), commit=5), next_due=5000.0)
    assert store.zscore(redis_keys.due(REGION), "bucket") == LONG_PAST
    assert store.zcard(redis_keys.running(REGION)) == 0
    assert not store.exists(
        redis_keys.last_scan("bucket"), redis_keys.STATS, redis_keys.STATUS_CHANGES
    )
    [claim] = here.claim_due(REGION, limit=1, slots=1)
    here.finish(claim, replace(engine_buckets.result("bucket"), commit=4), next_due=5000.0)
    assert store.exists(redis_keys.last_scan("bucket"))


def test_failures_are_counted_from_claim_to_claim_until_a_scan_succeeds(here, store):
    make_due(store, "bucket")
    for failures in (1, 2, 0):
        [claim] = here.claim_due(REGION, limit=1, slots=1)
        here.finish(claim, engine_buckets.result("bucket"), next_due=LONG_PAST, failures=failures)
        [claim] = here.claim_due(REGION, limit=1, slots=1)
        assert claim.failures == failures
        here.release(claim)


def test_finishing_twice_is_harmless(here, store):
    """A command is sent again when its answer was lost."""
    make_due(store, "bucket")
    [claim] = here.claim_due(REGION, limit=1, slots=1)
    here.finish(claim, engine_buckets.result("bucket"), next_due=5000.0)
    before = engine_buckets.dump(store)
    here.finish(claim, engine_buckets.result("bucket"), next_due=5000.0)
    assert engine_buckets.dump(store) == before


def test_an_error_is_stored_clean_and_not_longer_than_a_message(here, store):
    make_due(store, "bucket")
    [claim] = here.claim_due(REGION, limit=1, slots=1)
    failed = engine_buckets.result("bucket", error="\x1b[2J" + "x" * 1_000_000)
    here.finish(claim, failed, next_due=5000.0)
    stored = store.hget(redis_keys.bucket("bucket"), "error")
    assert stored.startswith(r"\x1b[2Jxxx")
    assert len(stored) == MOST_MESSAGE


def test_a_failed_scan_is_no_last_scan_and_leaves_what_the_last_one_said(here, store):
    make_due(store, "bucket")
    [claim] = here.claim_due(REGION, limit=1, slots=1)
    here.finish(claim, engine_buckets.result("bucket"), next_due=LONG_PAST)
    [claim] = here.claim_due(REGION, limit=1, slots=1)
    failed = engine_buckets.result("bucket", error="no answer", started_at=2000.0)
    here.finish(claim, failed, next_due=5000.0)
    assert float(store.get(redis_keys.last_scan("bucket"))) == 1000.0
    stats = store.hgetall(redis_keys.STATS)
    assert (stats["total_scans"], stats["failed_scans"], stats["errors"]) == ("2", "1", "1")
    assert known_by_now(changed()) == [
        BucketStatus(
            "bucket",
            1000.0,
            2.0,
            10,
            3,
            "no answer",
            "StorageUnavailable",
            2002.0,
            lag_s=999.0,
            next_scan_at=5000.0,
            generation=1,
        )
    ]


def test_a_deletion_that_is_confirmed_during_a_scan_is_confirmed_for_the_next(here, store):
    """The scan began before, and holds the deletion once more."""
    make_due(store, "bucket")
    store.hset(redis_keys.bucket("bucket"), mapping={"held_since": "900.0", "held_missing": "7"})
    [claim] = here.claim_due(REGION, limit=1, slots=1)
    wiring.background().schedule.release_holds({"bucket": REGION})
    held = replace(engine_buckets.result("bucket"), held=Held(missing=7, known=9, since=900.0))
    here.finish(claim, held, next_due=server_time(store) + 60)
    assert wiring.background().states.open(engine_buckets.put("bucket")).released == 7
    [claim] = here.claim_due(REGION, limit=1, slots=1)
    more = replace(engine_buckets.result("bucket"), held=Held(missing=9, known=9, since=900.0))
    here.finish(claim, more, next_due=server_time(store) + 60)
    assert wiring.background().states.open(engine_buckets.put("bucket")).released == 0
    assert here.claim_due(REGION, limit=1, slots=1) == []


def test_a_choice_that_is_made_during_a_scan_is_for_the_next(here, store):
    make_due(store, "bucket")
    fields = {"held_moved_since": "900.0", "held_moved": "7"}
    store.hset(redis_keys.bucket("bucket"), mapping=fields)
    [claim] = here.claim_due(REGION, limit=1, slots=1)
    wiring.background().schedule.release_holds({"bucket": REGION}, Release.TAKE_TIMES)
    storm = HeldTimes(moved=7, known=9, since=900.0)
    held = replace(engine_buckets.result("bucket"), held_times=storm)
    here.finish(claim, held, next_due=server_time(store) + 60)
    assert wiring.background().states.open(engine_buckets.put("bucket")).takes_times
    [claim] = here.claim_due(REGION, limit=1, slots=1)
    here.finish(claim, engine_buckets.result("bucket"), next_due=server_time(store) + 60)
    known = wiring.background().states.open(engine_buckets.put("bucket"))
    assert (known.takes_times, known.held_moved_since) == (False, None)
    assert here.claim_due(REGION, limit=1, slots=1) == []


def asked_for(bucket: str) -> None:
    engine.scan_now(bucket, REGION, "s3.example.com")


def saved(bucket: str) -> None:
    engine_buckets.put(bucket)


@pytest.mark.parametrize("wish", [asked_for, saved])
def test_a_scan_that_is_wanted_while_one_runs_comes_after_it(here, store, wish):
    """What changed since the running one began may be behind it."""
    make_due(store, "bucket")
    store.hset(redis_keys.bucket("bucket"), "failures", 3)
    [claim] = here.claim_due(REGION, limit=1, slots=1)
    wish("bucket")
    failed = engine_buckets.result("bucket", error="no answer")
    here.finish(claim, failed, next_due=server_time(store) + 60, failures=4)
    [claim] = here.claim_due(REGION, limit=1, slots=1)
    here.finish(claim, failed, next_due=server_time(store) + 60, failures=4)
    assert here.claim_due(REGION, limit=1, slots=1) == []


def test_a_bucket_that_left_the_schedule_does_not_come_back_by_finishing(here, store):
    make_due(store, "bucket")
    [claim] = here.claim_due(REGION, limit=1, slots=1)
    store.zrem(redis_keys.due(REGION), "bucket")
    here.finish(claim, engine_buckets.result("bucket"), next_due=5000.0)
    assert store.zscore(redis_keys.due(REGION), "bucket") is None
    assert store.zcard(redis_keys.running(REGION)) == 0


def test_a_released_bucket_stays_due_and_nothing_is_recorded(here, store):
    make_due(store, "bucket")
    [claim] = here.claim_due(REGION, limit=1, slots=1)
    here.release(claim)
    assert store.zscore(redis_keys.due(REGION), "bucket") == LONG_PAST
    assert store.zcard(redis_keys.running(REGION)) == 0
    assert not store.exists(
        redis_keys.last_scan("bucket"), redis_keys.STATS, redis_keys.STATUS_CHANGES
    )


def next_is_due_at(leases: RedisLeases, store: redis.Redis, at: float) -> bool:
    before, in_s = server_time(store), leases.next_due_in_s(REGION)
    return in_s is not None and before + in_s - 1e-5 <= at <= server_time(store) + in_s + 1e-5


def test_the_next_due_bucket_is_one_that_nobody_scans(here, store):
    assert here.next_due_in_s(REGION) is None
    make_due(store, "a", "b")
    assert next_is_due_at(here, store, LONG_PAST)
    here.claim_due(REGION, limit=1, slots=15)
    assert next_is_due_at(here, store, LONG_PAST + 1)
    here.claim_due(REGION, limit=1, slots=15)
    assert here.next_due_in_s(REGION) is None


def test_a_bucket_whose_lease_expired_is_waiting_again(here, store):
    make_due(store, "bucket")
    here.claim_due(REGION, limit=1, slots=15)
    expire(store, "bucket")
    assert next_is_due_at(here, store, LONG_PAST)


# --- statuses


def statuses() -> BucketStatusStore:
    return wiring.background().bucket_status


def changed(most: int = 1000) -> list[BucketStatus]:
    return statuses().read(list(statuses().changed(most)))


def known_by_now(found: list[BucketStatus]) -> list[BucketStatus]:
    """By name; without when they were known to Redis first, which is some moment ago."""
    for status in found:
        assert status.commit_at is not None
        assert time.time() - 60 < status.commit_at <= time.time()
    return sorted((replace(s, commit_at=None) for s in found), key=lambda status: status.bucket)


def scanned(leases: RedisLeases, store: redis.Redis, *buckets: str) -> None:
    make_due(store, *buckets)
    for claim in leases.claim_due(REGION, limit=15, slots=15):
        leases.finish(claim, engine_buckets.result(claim.bucket), next_due=None)


def test_a_changed_status_is_given_until_it_is_stored(here, store):
    scanned(here, store, "a", "b")
    for _ in range(2):  # whoever had it first was killed
        assert known_by_now(changed()) == [
            BucketStatus(name, 1000.0, 2.0, 10, 3, "", "", None, lag_s=lag_s, generation=1)
            for name, lag_s in {"a": 999.0, "b": 998.0}.items()
        ]
    statuses().forget(statuses().changed())
    assert statuses().changed() == {}
    statuses().forget({})


def test_no_more_are_given_than_asked_for_and_those_that_wait_longest_first(here, store):
    scanned(here, store, "c", "a", "b")
    first = statuses().changed(2)
    assert list(first) == ["c", "a"]
    statuses().forget(first)
    assert list(statuses().changed(2)) == ["b"]


def test_a_status_that_changes_while_it_is_stored_is_given_again(here, store):
    scanned(here, store, "a", "b")
    given = statuses().changed()
    store.zadd(redis_keys.STATUS_CHANGES, {"b": server_time(store)})
    statuses().forget(given)
    assert list(statuses().changed()) == ["b"]


def test_a_changed_status_whose_answer_was_lost_is_given_again(here, store, monkeypatch):
    read, lost = redis.Connection.read_response, list[object]()

    def without_answer(connection: redis.Connection, **options: object) -> object:
        answer = read(connection, **options)
        if isinstance(answer, list) and "a" in answer and not lost:
            lost.append(answer)
            raise redis.exceptions.TimeoutError("no answer")
        return answer

    scanned(here, store, "a")
    monkeypatch.setattr(redis.Connection, "read_response", without_answer)
    assert list(statuses().changed()) == ["a"]
    assert lost


def test_a_change_that_an_earlier_version_noted_is_given_until_it_is_stored(here, store):
    """Its workers go on beside ours until their hosts are upgraded too."""
    store.sadd(redis_keys.CHANGED_STATUS, "a", "b")
    for _ in range(2):
        assert sorted(statuses().changed()) == ["a", "b"]
    statuses().forget(statuses().changed())
    assert statuses().changed() == {}


def test_a_removed_bucket_has_no_status_to_give(here, store):
    scanned(here, store, "a")
    engine_buckets.remove("a")
    assert statuses().changed() == {}
