"""What happened lately in all processes, counted where it happens."""

import json
import time
from dataclasses import replace

import pytest
import redis

from scanning import engine, wiring
from scanning.adapters.redis import telemetry
from scanning.core import redis_keys
from scanning.core.errors import RedisUnavailable
from scanning.core.metrics import counters
from scanning.core.metrics.telemetry import (
    Percentiles,
    RegionLoad,
    ScanRecord,
    Telemetry,
    TimeBucket,
)
from scanning.core.types import Claim, EventType, ScanResult
from scanning.ports import Commit
from scanning.runtime.bucket_scanner import BucketScanner
from scanning.runtime.monitor import MultiRegionMonitor
from tests.support import engine_buckets

QUEUE = "linode:notifications:queue"
REGION = engine_buckets.REGION


def claimed(store: redis.Redis, name: str = "bucket", *, late_s: float = 0.0) -> Claim:
    engine_buckets.schedule(store, engine_buckets.put(name), at=time.time() - late_s)
    [claim] = wiring.background().leases.claim_due(REGION, limit=1, slots=15)
    return claim


def finish(claim: Claim, **members: object) -> None:
    result = engine_buckets.result(claim.bucket, started_at=time.time(), **members)  # type: ignore[arg-type]
    wiring.background().leases.finish(claim, result, next_due=None)


def announce(claim: Claim, number: int = 1, **members: object) -> Commit:
    commit = Commit(
        number=number,
        notifications=["{}", "{}", "{}"],
        counted={EventType.CREATED: 2, EventType.UPDATED: 1, EventType.DELETED: 5},
        announced={EventType.CREATED: 2, EventType.UPDATED: 1},
        lags_s=[3.0, 3.0, 50.0],
    )
    wiring.background().states.commit(claim, commit)
    return commit


def this_minute(store: redis.Redis) -> int:
    return int(store.time()[0]) // 60


def counted(store: redis.Redis, minutes_ago: int, **fields: int) -> None:
    """As if this had been counted so long ago."""
    for field, number in fields.items():
        store.hset(redis_keys.minute(this_minute(store) - minutes_ago), field, number)


def last(moments: tuple[TimeBucket, ...], member: str) -> list[int]:
    """A member of the last moments: two, as the minute may end while a test runs."""
    return [getattr(moment, member) for moment in moments[-2:]]


def test_an_empty_installation_has_moments_in_which_nothing_happened(store):
    now = engine.telemetry()
    minute = now.last_hour[-1].at
    quarter = now.last_day[-1].at
    assert now == Telemetry(
        last_hour=tuple(TimeBucket(minute - 60.0 * n, 60.0) for n in reversed(range(60))),
        last_day=tuple(TimeBucket(quarter - 900.0 * n, 900.0) for n in reversed(range(96))),
        lateness=Percentiles(),
        lag=Percentiles(),
        queue_length=0,
        queue_oldest_s=None,
        leader="",
        regions=(),
    )
    assert minute % 60 == quarter % 900 == 0
    assert 0 <= store.time()[0] - minute < 120


def test_commits_and_scans_are_counted_in_their_minute(store):
    claim = claimed(store)
    announce(claim)
    finish(claim)

    now = engine.telemetry()

    for moments in (now.last_hour, now.last_day):
        assert sum(last(moments, "created")) == 2
        assert sum(last(moments, "updated")) == 1
        assert sum(last(moments, "detected")) == 0
        assert sum(last(moments, "deleted")) == 0  # found, and announced to nobody
        assert sum(last(moments, "objects")) == 10
        assert sum(last(moments, "list_calls")) == 1
        assert sum(last(moments, "scans")) == 1
        assert sum(last(moments, "failed")) == 0


def test_a_failed_scan_is_a_scan_that_failed(store):
    finish(claimed(store), error="no answer")
    now = engine.telemetry()
    assert sum(last(now.last_hour, "scans")) == sum(last(now.last_hour, "failed")) == 1
    assert store.hget(redis_keys.STATS, "error:StorageUnavailable") == "1"


def test_what_is_sent_again_counts_once(store):
    claim = claimed(store)
    announce(claim)
    before = engine_buckets.dump(store)
    announce(claim)
    assert engine_buckets.dump(store) == before
    finish(claim)
    before = engine_buckets.dump(store)
    finish(claim)
    assert engine_buckets.dump(store) == before


def test_minutes_are_forgotten_after_a_day_and_days_after_two(store):
    announce(claimed(store))
    minutes = list(store.scan_iter(redis_keys.MINUTE_PREFIX + "*"))
    [day] = store.scan_iter(redis_keys.DAY_PREFIX + "*")
    assert all(24 * 3600 + 900 < store.ttl(minute) <= 25 * 3600 for minute in minutes)
    assert 24 * 3600 < store.ttl(day) <= 48 * 3600


def test_a_minute_has_a_bounded_number_of_fields(store):
    claim = claimed(store)
    for number in range(1, 200):
        lags = [float(number**2)]
        commit = Commit(number=number, lags_s=lags, announced=dict.fromkeys(EventType, 1))
        wiring.background().states.commit(claim, commit)
    assert all(store.hlen(key) < 60 for key in store.scan_iter(redis_keys.MINUTE_PREFIX + "*"))


@pytest.mark.parametrize("value", ["somebody else's", {"announced:created": "many"}])
def test_a_broken_minute_breaks_neither_commits_nor_scans_nor_reading(store, value):
    claim = claimed(store)
    for key in (redis_keys.minute(this_minute(store) + n) for n in (0, 1)):
        if isinstance(value, str):
            store.set(key, value)
        else:
            store.hset(key, mapping=value)
    announce(claim)
    store.set(redis_keys.history(claim.bucket), "somebody else's")
    finish(claim)
    assert store.llen(QUEUE) == 3
    assert store.hget(redis_keys.STATS, "total_scans") == "1"
    assert len(engine.telemetry().last_hour) == 60


def test_hours_and_days_add_up_what_lies_in_them(store):
    created = counters.ANNOUNCED[EventType.CREATED]
    counted(store, 0, **{created: 1})
    counted(store, 50, **{created: 20})
    counted(store, 700, **{created: 300})
    counted(store, 3000, **{created: 4000})
    now = engine.telemetry()
    assert sum(moment.created for moment in now.last_hour) == 21
    assert sum(moment.created for moment in now.last_day) == 321
    assert next(m.created for m in now.last_day if m.created) == 300


def test_percentiles_are_of_the_last_hour(store):
    claim = claimed(store, late_s=4.0)
    announce(claim)
    finish(claim)
    counted(store, 70, **{"lateness:0": 1000, "lag:0": 1000})
    now = engine.telemetry()
    assert now.lateness.p50 is not None
    assert 2.5 < now.lateness.p50 <= 10
    assert (now.lag.p50, now.lag.p95) == pytest.approx((4.375, 57.75))


def test_the_queue_is_measured_now_and_remembered(store):
    store.rpush(QUEUE, json.dumps({"detection_time": time.time() - 90}), "{}")
    wiring.interactive().telemetry.sample_queue()
    store.rpush(QUEUE, "{}")
    now = engine.telemetry()
    assert now.queue_length == 3
    assert now.queue_oldest_s == pytest.approx(90, abs=60)
    assert 2 in last(now.last_hour, "queue_length")
    assert 2 in last(now.last_day, "queue_length")
    assert now.last_hour[0].queue_length is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"detection_time":"then"}', "\xff"])
def test_a_notification_of_unknown_age_is_not_guessed_at(store, text):
    store.rpush(QUEUE, text)
    assert engine.telemetry().queue_oldest_s is None


@pytest.mark.parametrize("key", [QUEUE, "minute"])
def test_a_key_of_another_type_does_not_stop_the_schedule(store, key):
    for name in (
        [QUEUE] if key == QUEUE else [redis_keys.minute(this_minute(store) + n) for n in (0, 1)]
    ):
        store.set(name, "somebody else's")
    wiring.interactive().telemetry.sample_queue()


def test_regions_show_what_runs_and_what_is_late(store):
    now = time.time()
    for name, late_s in {"a": 60.0, "b": 60.0, "c": 2.0, "d": -30.0}.items():
        engine_buckets.schedule(store, engine_buckets.put(name), at=now - late_s)
    engine_buckets.schedule(store, engine_buckets.put("e", region="eu-test-1"), at=now + 50)
    wiring.background().leases.claim_due(REGION, limit=1, slots=15)
    store.zadd(redis_keys.running(REGION), {"gone": now - 5})
    assert engine.telemetry().regions == (
        RegionLoad("eu-test-1", buckets=1, late=0, running=0, slots=15),
        RegionLoad(REGION, buckets=4, late=1, running=1, slots=15),
    )


def test_the_leader_is_named(store):
    wiring.background().schedule.lead("host:7", lease_s=60)
    assert engine.telemetry().leader == "host:7"


def test_a_bucket_remembers_its_last_scans(store):
    for error in ("", "no answer"):
        claim = claimed(store)
        finish(claim, error=error)
    first, second = engine.scan_history("bucket")
    assert first == ScanRecord(first.at, 2.0, 10, 3)
    assert second == ScanRecord(second.at, 2.0, 10, 3, "StorageUnavailable")
    assert first.at <= second.at
    assert engine.scan_history("other") == []


def test_a_scan_of_several_slices_is_remembered_once_from_its_beginning(store):
    part = replace(engine_buckets.result("bucket", started_at=1000.0), complete=False)
    wiring.background().leases.finish(claimed(store), part, next_due=None)
    assert engine.scan_history("bucket") == []
    rest = replace(engine_buckets.result("bucket", started_at=1030.0), began=1000.0, listed=500)
    wiring.background().leases.finish(claimed(store), rest, next_due=None)
    assert engine.scan_history("bucket") == [ScanRecord(1000.0, 32.0, 500, 3)]


def test_the_history_is_capped_and_goes_with_the_bucket(store):
    for _ in range(telemetry.SCANS_KEPT + 5):
        finish(claimed(store))
    assert len(engine.scan_history("bucket")) == telemetry.SCANS_KEPT
    engine_buckets.remove("bucket")
    assert not store.exists(redis_keys.history("bucket"))


def test_a_scan_that_ends_after_its_bucket_was_removed_leaves_no_history(store):
    claim = claimed(store)
    engine_buckets.remove("bucket")
    finish(claim)
    assert not store.exists(redis_keys.history("bucket"))


def test_events_of_today_are_those_announced(store):
    claim = claimed(store)
    announce(claim, 1)
    announce(claim, 2)
    assert engine.events_today(["bucket", "other"]) == {"bucket": 6, "other": 0}
    assert engine.events_today([]) == {}


def test_without_redis_there_is_no_telemetry(redis_server):
    redis_server.stop()
    asks = [engine.telemetry, lambda: engine.scan_history("a"), lambda: engine.events_today("a")]
    for ask in asks:
        with pytest.raises(RedisUnavailable, match="Redis does not answer"):
            ask()


# --- real scans


@pytest.fixture
def scan(store, s3_server):
    """Scans a bucket of the S3 server, which was due for four seconds, as a worker does."""

    def run(name: str) -> ScanResult:
        bucket = wiring.background().bucket_configs.get(name) or engine_buckets.put_real(
            s3_server, name
        )
        engine_buckets.schedule(store, bucket, at=time.time() - 4)
        [claim] = wiring.background().leases.claim_due(REGION, limit=1, slots=15)
        link, clients = wiring.background().connection.client, wiring.client_cache()
        scanner = BucketScanner(bucket, link, wiring.conf(), None, clients, claim=claim)
        scanner.run()
        assert scanner.result is not None
        return scanner.result

    return run


def test_real_scans_are_told_of_from_change_to_queue(scan, s3_server, store):
    name = s3_server.bucket()
    s3_server.put(name, "a")
    assert scan(name).ok
    assert engine.telemetry().lag == Percentiles()  # a first scan says nothing of how fast we are
    s3_server.put(name, "a", b"changed")
    s3_server.put(name, "b")
    assert scan(name).ok

    now = engine.telemetry()

    assert sum(m.created for m in now.last_hour) == 2
    assert sum(m.updated for m in now.last_hour) == 1
    assert sum(m.scans for m in now.last_hour) == sum(m.scans for m in now.last_day) == 2
    assert sum(m.objects for m in now.last_hour) == 3
    assert sum(m.list_calls for m in now.last_hour) == 2
    assert now.lateness.p50 is not None
    assert now.lateness.p50 > 2.5
    assert now.lag.p95 is not None
    assert now.queue_length == store.llen(QUEUE) == 3
    assert now.queue_oldest_s is not None
    assert engine.events_today([name]) == {name: 3}
    assert [(r.objects, r.changes) for r in engine.scan_history(name)] == [(1, 1), (2, 2)]


def test_what_is_found_and_not_announced_is_no_notification(scan, s3_server, store):
    name = s3_server.bucket()
    engine_buckets.put_real(s3_server, name, notifications=False)
    s3_server.put(name, "a")
    assert scan(name).counts.created == 1
    assert sum(m.created for m in engine.telemetry().last_hour) == 0
    assert store.hget(redis_keys.STATS, "total_new_objects") == "1"
    assert engine.events_today([name]) == {name: 0}


def test_a_real_failure_is_part_of_the_history_with_its_class(scan, s3_server, store):
    result = scan("no-such-bucket")
    assert result.error_class == "BucketNotFound"
    [record] = engine.scan_history("no-such-bucket")
    assert record.error_class == "BucketNotFound"
    assert sum(m.failed for m in engine.telemetry().last_hour) == 1


def test_the_monitor_that_leads_measures_the_queue(store):
    store.rpush(QUEUE, *"123")
    MultiRegionMonitor(web=False, workers=False)._tick()
    assert 3 in last(engine.telemetry().last_hour, "queue_length")
