"""`MultiRegionMonitor`: who is due, who leads, and what happens while Redis is away."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from django.db import OperationalError

from scanning import engine, wiring
from scanning.core import redis_keys
from scanning.core.errors import RedisUnavailable
from scanning.runtime import housekeeping, leader_lease, scheduler
from scanning.runtime.monitor import MultiRegionMonitor
from scanning.runtime.processes import StopSignal
from tests.support import engine_buckets
from tests.support.engine_buckets import REGION
from tests.support.waiting import eventually


@pytest.fixture
def monitor(store) -> MultiRegionMonitor:
    return MultiRegionMonitor(web=False, workers=False)


@pytest.fixture
def standby(store) -> MultiRegionMonitor:
    other = MultiRegionMonitor(web=False, workers=False)
    other.lease.holder = "another-host:1"
    return other


def due(store: redis.Redis, region: str = REGION) -> dict[str, float]:
    return wiring.background().schedule.due_times([region])[region]


def wakeups(store: redis.Redis, region: str = REGION) -> int:
    return int(store.llen(f"django_q:{region}:q"))


def scan(store: redis.Redis, name: str, *, at: float | None = None) -> None:
    """Claim and finish, as a worker does; ``at`` is when the scan began."""
    [claim] = wiring.background().leases.claim_due(REGION, limit=1, slots=15)
    assert claim.bucket == name
    result = engine_buckets.result(name, started_at=at or time.time())
    wiring.background().leases.finish(claim, result, next_due=time.time() + 1e6)


# --- the schedule


def test_a_new_bucket_is_due_at_once(monitor, store):
    monitor._tick()
    engine_buckets.put("bucket")
    before = time.time()
    monitor._tick()
    assert before <= due(store)["bucket"] <= time.time()
    assert store.smembers(redis_keys.REGIONS) == {REGION}
    assert wakeups(store) == 1


def test_a_scanned_bucket_is_due_at_its_next_place_on_the_grid(monitor, store):
    engine_buckets.put("bucket", interval=3600)
    store.set(redis_keys.last_scan("bucket"), time.time() - 5)
    monitor._tick()
    [at] = due(store).values()
    assert time.time() < at <= time.time() + 3600
    offset = float(store.hget(redis_keys.bucket("bucket"), "offset"))
    assert (at - offset) % 3600 == pytest.approx(0, abs=1e-3) or (
        at - offset
    ) % 3600 == pytest.approx(3600, abs=1e-3)
    assert wakeups(store) == 0


def test_a_bucket_that_missed_scans_while_everything_was_down_is_due_now(monitor, store):
    engine_buckets.put("bucket", interval=60)
    store.set(redis_keys.last_scan("bucket"), time.time() - 10_000)
    monitor._tick()
    assert due(store)["bucket"] <= time.time()


def test_a_due_time_is_left_alone_by_later_ticks(monitor, store):
    engine_buckets.put("bucket", interval=3600)
    store.set(redis_keys.last_scan("bucket"), time.time())
    monitor._tick()
    before = due(store)
    engine_buckets.put("other")
    monitor._tick()
    assert due(store) == before | {"other": pytest.approx(time.time(), abs=5)}


@pytest.mark.parametrize(
    "change",
    [
        lambda: engine_buckets.remove("bucket"),
        lambda: engine_buckets.put("bucket", status="paused"),
    ],
)
def test_a_removed_or_paused_bucket_leaves_the_schedule(monitor, store, change):
    engine_buckets.put("bucket")
    engine_buckets.put("other")
    monitor._tick()
    change()
    monitor._tick()
    assert due(store).keys() == {"other"}
    assert [bucket.name for bucket in monitor.get_buckets_due_for_scan()] == ["other"]


def test_the_last_bucket_of_a_region_takes_its_region_with_it(monitor, store):
    engine_buckets.put("bucket")
    monitor._tick()
    engine_buckets.remove("bucket")
    monitor._tick()
    assert not store.exists(redis_keys.REGIONS)


def test_a_removed_bucket_added_again_between_two_ticks_is_due_at_once(monitor, store):
    engine_buckets.put("bucket", interval=604_800)
    monitor._tick()
    scan(store, "bucket")
    engine_buckets.remove("bucket")
    engine_buckets.put("bucket", generation=2, interval=604_800)
    monitor._tick()
    assert due(store)["bucket"] <= time.time()


def test_a_bucket_moves_with_its_region(monitor, store):
    engine_buckets.put("bucket")
    monitor._tick()
    engine_buckets.put("bucket", region="elsewhere")
    monitor._tick()
    assert due(store) == {}
    assert due(store, "elsewhere").keys() == {"bucket"}
    assert store.smembers(redis_keys.REGIONS) == {"elsewhere"}


def test_a_shortened_interval_comes_forward(monitor, store):
    engine_buckets.put("bucket", interval=604_800)
    monitor._tick()
    scan(store, "bucket")
    engine_buckets.put("bucket", interval=30)
    monitor._tick()
    assert time.time() < due(store)["bucket"] <= time.time() + 30


@pytest.mark.parametrize(
    ("longest", "is_left"),
    [
        pytest.param(3600, True, id="the interval has grown so far"),
        pytest.param(600, False, id="it may grow to less now"),
        pytest.param(0, False, id="it does not grow any more"),
    ],
)
def test_a_quiet_bucket_is_left_where_its_interval_in_force_put_it(
    monitor, store, longest, is_left
):
    now = time.time()
    engine_buckets.put("bucket", longest=longest)
    store.set(redis_keys.last_scan("bucket"), now)
    quiet = {"scan_at": repr(now), "changed_at": repr(now - 100_000)}
    store.hset(redis_keys.bucket("bucket"), mapping=quiet)
    store.zadd(redis_keys.due(REGION), {"bucket": now + 3000})
    monitor._tick()
    assert (due(store)["bucket"] == pytest.approx(now + 3000)) is is_left
    assert is_left or due(store)["bucket"] <= time.time() + 600


def test_a_due_time_that_redis_lost_is_found_again_on_the_grown_grid(monitor, store):
    now = time.time()
    engine_buckets.put("bucket", longest=3600)
    store.set(redis_keys.last_scan("bucket"), now - 900)
    quiet = {"scan_at": repr(now - 900), "changed_at": repr(now - 100_000)}
    store.hset(redis_keys.bucket("bucket"), mapping=quiet)
    monitor._tick()
    assert now < due(store)["bucket"] <= time.time() + 3600


@pytest.mark.parametrize("wrong_s", [-20, 20], ids=["behind", "ahead"])
def test_a_monitor_whose_clock_is_wrong_leaves_what_was_just_scanned(
    monitor, store, monkeypatch, wrong_s
):
    engine_buckets.put("bucket", interval=30)
    monitor._tick()
    [claim] = wiring.background().leases.claim_due(REGION, limit=1, slots=15)
    next_due = claim.taken_at + 30
    wiring.background().leases.finish(claim, engine_buckets.result("bucket"), next_due=next_due)
    store.set(redis_keys.last_scan("bucket"), claim.taken_at)

    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + wrong_s)
    monitor.scheduler.invalidate()
    monitor._tick()
    assert due(store)["bucket"] == pytest.approx(next_due, abs=0.01)


def test_the_configured_interval_counts_for_buckets_without_their_own(monitor, store, settings):
    engine_buckets.put("bucket")
    store.set(redis_keys.last_scan("bucket"), time.time() - 1)
    monitor._tick()
    assert time.time() < due(store)["bucket"] <= time.time() + 60


def test_an_emptied_redis_is_scheduled_again_although_its_version_repeats(
    monitor, store, monkeypatch
):
    engine_buckets.put("bucket")
    monitor._tick()
    store.flushall()
    engine_buckets.put("bucket")
    monkeypatch.setattr(scheduler, "RESCHEDULE_S", 0.0)
    monitor._tick()
    assert due(store).keys() == {"bucket"}


@pytest.mark.parametrize("method", ["hash", "equal", "random"])
def test_places_stay_when_a_bucket_is_added(redis_server, settings, store, method):
    parallel = settings.SCANNING.parallel.model_copy(update={"stagger_method": method})
    settings.SCANNING = settings.SCANNING.model_copy(update={"parallel": parallel})
    monitor = MultiRegionMonitor(web=False, workers=False)
    for name in ("a", "b"):
        engine_buckets.put(name)
    monitor._tick()
    before = dict(monitor.offsets)
    engine_buckets.put("c")
    monitor._tick()
    assert monitor.offsets.keys() == {"a", "b", "c"}
    if method != "equal":
        assert {name: monitor.offsets[name] for name in before} == before


@pytest.mark.parametrize("text", ["yesterday", "nan"])
def test_a_last_scan_that_makes_no_sense_counts_as_none(monitor, store, text):
    engine_buckets.put("bucket")
    store.set(redis_keys.last_scan("bucket"), text)
    monitor._tick()
    assert due(store)["bucket"] <= time.time()


# --- waking workers


def test_only_regions_with_due_buckets_are_woken_and_once(monitor, store):
    for name, region in [("a", "r1"), ("b", "r1"), ("c", "r2"), ("d", "r3")]:
        engine_buckets.put(name, region=region)
    monitor._tick()
    store.zadd(redis_keys.due("r2"), {"c": time.time() + 60})
    store.zadd(redis_keys.running("r3"), {"d": time.time() + 60})
    for region in ("r1", "r2", "r3"):
        store.delete(f"django_q:{region}:q")

    assert monitor.wake_due_regions() == {"r1": 2}
    assert monitor.wake_due_regions() == {"r1": 2}

    assert [wakeups(store, region) for region in ("r1", "r2", "r3")] == [1, 0, 0]


def test_a_region_is_woken_before_its_next_bucket_is_due(monitor, store):
    engine_buckets.put("bucket")
    monitor._tick()
    at = wiring.background().schedule.due_times([REGION])[REGION]["bucket"]
    now = float(store.time()[0])
    store.zadd(redis_keys.due(REGION), {"bucket": max(at, now) + 3600})
    assert monitor.wake_due_regions() == {}
    store.zadd(redis_keys.due(REGION), {"bucket": float(store.time()[0]) + scheduler.TICK_S})
    assert monitor.wake_due_regions() == {REGION: 1}


def test_a_region_whose_worker_died_is_woken_again(monitor, store):
    engine_buckets.put("bucket")
    monitor._tick()
    wiring.background().leases.claim_due(REGION, limit=1, slots=1)
    store.zadd(redis_keys.running(REGION), {"bucket": 1.0})
    assert monitor.wake_due_regions() == {REGION: 1}


def test_is_bucket_due_for_scan_asks_the_schedule(monitor, store):
    bucket = engine_buckets.put("bucket")
    assert not monitor.is_bucket_due_for_scan(bucket)
    monitor._tick()
    assert monitor.is_bucket_due_for_scan(bucket)
    assert monitor.is_bucket_due_for_scan(engine_buckets.document("bucket"))
    store.zadd(redis_keys.due(REGION), {"bucket": time.time() + 60})
    assert not monitor.is_bucket_due_for_scan(bucket)


def test_due_buckets_are_listed_latest_first(monitor, store):
    for name in ("a", "b", "c"):
        engine_buckets.put(name)
    monitor._tick()
    store.zadd(redis_keys.due(REGION), {"a": 20.0, "b": 10.0, "c": time.time() + 60})
    assert [bucket.name for bucket in monitor.get_buckets_due_for_scan()] == ["b", "a"]


# --- several monitors


def test_one_monitor_schedules_and_the_other_stands_by(monitor, standby, store):
    engine_buckets.put("bucket")
    monitor._tick()
    standby._tick()
    assert (monitor.lease.is_held(), standby.lease.is_held()) == (True, False)
    assert standby.buckets == {}


def test_the_standby_takes_over_when_the_leader_stops(monitor, standby, store):
    monitor._tick()
    standby._tick()
    monitor._shut_down()
    standby._tick()
    engine_buckets.put("bucket")
    standby._tick()
    assert due(store).keys() == {"bucket"}


def test_the_standby_takes_over_when_the_leader_says_nothing_any_more(monitor, standby, store):
    monitor._tick()
    assert 0 < store.pttl(redis_keys.LEADER) <= leader_lease.LEADER_LEASE_S * 1000
    store.delete(redis_keys.LEADER)  # as it expires
    standby._tick()
    monitor._tick()
    assert (monitor.lease.is_held(), standby.lease.is_held()) == (False, True)


# --- Redis away


def test_a_monitor_that_cannot_keep_its_lead_stops_leading_when_another_may(
    monitor, redis_server, monkeypatch
):
    """Housekeeping goes by it: two monitors must not do it."""
    monkeypatch.setattr(leader_lease, "LEADER_LEASE_S", 1.0)
    monitor._tick()
    assert monitor.lease.is_held()
    redis_server.stop()
    monitor._tick()
    eventually(lambda: not monitor.lease.is_held())
    redis_server.start()
    monitor._tick()
    assert monitor.lease.is_held()


def test_a_tick_without_redis_waits_and_the_first_one_with_it_goes_on(
    monitor, redis_server, store, caplog
):
    caplog.set_level("INFO")
    engine_buckets.put("bucket")
    monitor._tick()
    redis_server.stop()
    monitor._tick()
    monitor._tick()
    assert caplog.text.count("scheduling waits: Redis does not answer") == 1
    redis_server.start()  # and it has forgotten everything
    engine_buckets.put("bucket")
    monitor.scheduler.invalidate()
    monitor._tick()
    assert "scheduling goes on" in caplog.text
    assert due(store).keys() == {"bucket"}


def test_a_tick_asks_nothing_over_a_connection_that_waits_for_redis(monitor, store, monkeypatch):
    """Who waits as long as the lead lasts has lost it, and keeps no child alive meanwhile."""
    waits = wiring.background().connection.run
    asked: list[object] = []

    def ask(operation: Callable[[Any], object]) -> object:
        asked.append(operation)
        return waits(operation)

    engine_buckets.put("bucket")
    monkeypatch.setattr(wiring.background().connection, "run", ask)
    monitor._tick()
    assert wakeups(store) == 1
    assert asked == []


def test_redis_may_be_away_at_the_start(redis_server, caplog):
    redis_server.stop()
    monitor = MultiRegionMonitor(web=False, workers=False)
    monitor._tick()
    assert "scheduling waits" in caplog.text
    redis_server.start()
    engine_buckets.put("bucket")
    monitor._tick()
    assert monitor.lease.is_held()


def test_a_stop_without_redis_needs_no_lead_to_give_back(monitor, redis_server):
    monitor._tick()
    redis_server.stop()
    monitor._shut_down()


def test_an_error_of_ours_costs_one_tick(monitor, store, monkeypatch, caplog):
    engine_buckets.put("bucket")
    with monkeypatch.context() as patch:
        patch.setattr(monitor.scheduler, "wake_due_regions", lambda: 1 / 0)
        monitor._tick()
    assert "an error in bucketwatch broke a tick" in caplog.text
    monitor._tick()
    assert wakeups(store) == 1


# --- running


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_run_schedules_keeps_house_and_gives_the_lead_back_at_sigterm(
    monitor, store, settings, monkeypatch, handlers
):
    settings.PERIODIC_JOBS = [
        "tests.runtime.test_monitor.broken_job",
        "tests.runtime.test_monitor.waiting_job",
    ]
    monkeypatch.setattr(housekeeping, "EVERY_S", 0.02)
    monkeypatch.setattr(scheduler, "TICK_S", 0.02)
    engine_buckets.put("bucket")
    engine_buckets.put("gone")
    store.set("linode:objstore:state:gone:key", "{}")
    engine_buckets.remove("gone")

    def stop_when_done() -> None:
        try:
            eventually(lambda: store.get(redis_keys.LEADER) == monitor.lease.holder)
            eventually(lambda: due(store).keys() == {"bucket"})
            eventually(
                lambda: not store.exists("linode:objstore:state:gone:key", redis_keys.CLEARING)
            )
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    watcher = threading.Thread(target=stop_when_done)
    watcher.start()
    monitor.run()
    watcher.join()

    assert not store.exists("linode:objstore:state:gone:key")
    assert store.get(redis_keys.LEADER) is None


def broken_job() -> None:
    raise ValueError("a bug in a job")


def waiting_job() -> None:
    raise RedisUnavailable("Redis does not answer")


@pytest.mark.parametrize(
    ("exc", "says"),
    [
        (OperationalError("no such table: buckets_bucket"), "run manage.py migrate"),
        (OperationalError("connection refused\nIs it up?"), "does not answer: connection refused"),
    ],
    ids=["forgotten migrations", "away"],
)
def test_a_database_that_fails_is_logged_once_and_when_it_answers_again(
    monkeypatch, caplog, exc, says
):
    caplog.set_level("INFO", "scanning.runtime.housekeeping")
    monkeypatch.setattr(housekeeping, "EVERY_S", 0.01)
    left, stopping = [exc] * 3, StopSignal()

    def job() -> None:
        if left:
            raise left.pop()

    housekeeping.run_periodically("test", [job, job], leads=lambda: True, stopping=stopping)
    eventually(lambda: "goes on" in caplog.text)
    stopping.set()
    failed, again = caplog.records
    assert failed.levelname == "ERROR"
    assert says in failed.getMessage()
    assert again.getMessage() == "housekeeping goes on: the database answers"


def test_what_redis_may_lose_is_logged_once_and_again_when_it_changes(store, caplog):
    caplog.set_level("INFO", "scanning.runtime.housekeeping")
    warnings = housekeeping.RedisWarnings(every_s=0)

    def look() -> list[str]:
        caplog.clear()
        wiring.reset()  # what was seen is remembered for some seconds
        warnings.check()
        return [record.getMessage() for record in caplog.records]

    [warning] = look()
    assert "appendonly is off and save is empty" in warning
    assert look() == []
    store.config_set("save", "3600 1")
    assert look() == [warning.replace("Redis:", "Redis, no longer:")]
    store.config_set("save", "")
    assert look() == [warning]


# --- scanning in this process


def test_a_bucket_can_be_scanned_through_its_regions_pool(monitor, s3_server, store):
    name = s3_server.bucket()
    s3_server.put(name, "key")
    bucket = engine_buckets.put_real(s3_server, name)
    monitor.refresh_config_from_redis()
    monitor.init_thread_pools()
    assert monitor.get_all_regions() == list(monitor.region_pools) == [REGION]

    future = monitor.scan_bucket_with_region_pool(bucket, monitor.region_pools[REGION])

    assert future.result(30).counts.created == 1
    monitor.scan_bucket(engine_buckets.put_real(s3_server, "never-created"))
    documented = engine.metrics()["scan_stats"]
    assert monitor.scan_stats == {name: documented[name] for name in monitor.scan_stats}
    assert {"total_scans", "total_new_objects", "success_rate"} <= monitor.scan_stats.keys()
    monitor._shut_down()


# --- what the workers recorded


def finish(store: redis.Redis, name: str, **given: str) -> None:
    """Claim and finish, as a worker does that found three new objects among ten."""
    bucket = wiring.background().bucket_configs.get(name)
    assert bucket is not None
    claim = wiring.background().leases.claim(bucket, slots=15)
    assert claim is not None
    result = engine_buckets.result(name, started_at=time.time(), **given)
    wiring.background().leases.finish(claim, result, next_due=time.time() + 60)


def test_what_workers_recorded_since_the_last_call_is_what_the_stats_are_updated_from(
    monitor, store
):
    for name in ("a", "b", "c"):
        engine_buckets.put(name)
    finish(store, "a")
    monitor.refresh_config_from_redis()
    monitor.update_scan_stats(monitor.process_due_buckets())
    assert monitor.scan_stats == {}
    assert wakeups(store) == 1

    finish(store, "a")
    finish(store, "b", error="S3 does not answer")
    results = monitor.process_due_buckets()
    monitor.update_scan_stats(results)

    assert {(r.bucket, r.ok, r.error, r.counts.created) for r in results} == {
        ("a", True, "", 3),
        ("b", False, "S3 does not answer", 0),
    }
    found = monitor.scan_stats
    assert (found["total_scans"], found["failed_scans"], found["success_rate"]) == (2, 1, 0.5)
    assert (found["total_objects_scanned"], found["total_new_objects"]) == (10, 3)
    assert monitor.process_due_buckets() == []
    finish(store, "b")
    assert [(r.bucket, r.ok) for r in monitor.process_due_buckets()] == [("b", True)]


def test_a_scan_in_this_process_is_counted_once(monitor, s3_server, store):
    name = s3_server.bucket()
    s3_server.put(name, "key")
    bucket = engine_buckets.put_real(s3_server, name)
    missing = engine_buckets.put_real(s3_server, "never-created")
    monitor.refresh_config_from_redis()
    monitor.update_scan_stats(monitor.process_due_buckets())

    monitor.scan_bucket(bucket)
    monitor.scan_bucket(missing)
    monitor.update_scan_stats(monitor.process_due_buckets())

    assert (monitor.scan_stats["total_scans"], monitor.scan_stats["failed_scans"]) == (2, 1)


def test_configurations_are_read_and_buckets_scanned_without_a_key_pair_in_the_monitor(
    monitor, s3_server, store
):
    """`refresh_config_from_redis` merges none in, and what it read is enough for a scan."""
    name = s3_server.bucket()
    s3_server.put(name, "key")
    engine_buckets.put_real(s3_server, name)
    monitor.refresh_config_from_redis()

    assert s3_server.secret_key not in repr(vars(monitor))
    assert monitor.scan_bucket(monitor.buckets[name]).counts.created == 1
