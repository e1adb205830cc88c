"""What a worker does when its region is woken: real buckets, real Redis, one process."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import redis

from scanning import engine, wiring
from scanning.adapters.redis.bucket_configs import BucketCache
from scanning.adapters.redis.leases import RedisLeases
from scanning.core import redis_keys
from scanning.core.types import BucketConfig, Claim, KeyPair
from scanning.runtime import django_q2, region_task
from scanning.runtime.bucket_scanner import BucketScanner
from scanning.runtime.monitor import MultiRegionMonitor
from scanning.runtime.processes import StopSignal
from tests.support import engine_buckets
from tests.support.canned_http import CannedServer, Stall
from tests.support.engine_buckets import REGION
from tests.support.notifications import queued
from tests.support.waiting import eventually

HOURLY = 3600
WORKERS_BUDGET_S = region_task.TIME_BUDGET_S


@pytest.fixture(autouse=True)
def _short_budget(monkeypatch) -> None:
    monkeypatch.setattr(region_task, "TIME_BUDGET_S", 0.4)


@pytest.fixture
def due_bucket(store, s3_server):
    """Make a bucket with these objects due, and return its configuration."""

    def make(*objects: str, **given: object) -> BucketConfig:
        name = s3_server.bucket()
        for key in objects:
            s3_server.put(name, key)
        bucket = engine_buckets.put_real(s3_server, name, **{"interval": HOURLY} | given)
        engine_buckets.schedule(store, bucket)
        return bucket

    return make


def announced(store: redis.Redis) -> list[tuple[str, str]]:
    events = queued(store)
    return sorted((event["bucket"], event["key"]) for event in events)


def scans(store: redis.Redis) -> int:
    return int(store.hget(redis_keys.STATS, "total_scans") or 0)


def with_conf(settings, section: str, **values: object) -> None:
    changed = getattr(settings.SCANNING, section).model_copy(update=values)
    settings.SCANNING = settings.SCANNING.model_copy(update={section: changed})


def test_everything_that_is_due_is_scanned_once_and_due_again_an_interval_later(store, due_bucket):
    names = [due_bucket("key").name for _ in range(3)]
    later = due_bucket("key")
    engine_buckets.schedule(store, later, at=time.time() + 60)

    region_task.scan_region(REGION)

    assert announced(store) == [(name, "key") for name in sorted(names)]
    assert scans(store) == 3
    due = wiring.background().schedule.due_times([REGION])[REGION]
    assert all(time.time() < due[name] <= time.time() + HOURLY for name in names)
    assert store.zcard(redis_keys.running(REGION)) == 0


def test_a_change_that_is_found_brings_the_interval_back(store, due_bucket, s3_server):
    """A minute, which may grow to a week."""
    bucket = due_bucket("key", interval=60, longest=604_800)
    hash_, grown_s = redis_keys.bucket(bucket.name), 60 * 2**10

    def scan() -> tuple[float, float]:
        """Scan it now; tell in how many seconds the next pass is due, and how long it was quiet."""
        began = time.time()
        engine_buckets.schedule(store, bucket)
        place_s = (began + grown_s / 2) % grown_s  # in the grown interval: half of one from now on
        store.hset(hash_, "offset", place_s / 2**10)
        region_task.scan_region(REGION)
        due = wiring.background().schedule.due_times([REGION])[REGION][bucket.name]
        return due - began, began - float(store.hget(hash_, "changed_at"))

    due_in_s, quiet_s = scan()  # the first one finds all that is there
    assert due_in_s < 120
    assert quiet_s < 120

    store.hset(hash_, "changed_at", repr(time.time() - 604_800))
    due_in_s, quiet_s = scan()  # nothing has changed
    assert grown_s / 2 - 120 < due_in_s < grown_s / 2 + 120
    assert quiet_s > 600_000

    s3_server.put(bucket.s3_name, "another")
    due_in_s, quiet_s = scan()
    assert due_in_s < 120
    assert quiet_s < 120


def test_a_look_says_what_it_listed_and_a_change_that_it_finds_brings_the_pass_forward(
    store, due_bucket, s3_server
):
    bucket = due_bucket("key", interval=60, longest=604_800)
    region_task.scan_region(REGION)
    # Nothing has changed for a week, and the next pass is days away.
    store.hset(redis_keys.bucket(bucket.name), "changed_at", repr(time.time() - 604_800))
    pass_due = time.time() + 300_000
    engine_buckets.schedule(store, bucket, at=pass_due)

    def look(key: str) -> float:
        """Look at a key; tell when the next pass is due."""
        assert engine.request_looks({bucket.name: REGION}, keys={bucket.name: [key]})
        region_task.scan_region(REGION)
        listed = engine.explain(bucket.name, key).last_listed
        assert listed is not None
        assert listed.by == "look"
        return wiring.background().schedule.due_times([REGION])[REGION][bucket.name]

    assert look("nothing new") == pytest.approx(pass_due, abs=1)
    s3_server.put(bucket.s3_name, "another")
    assert look("another") < time.time() + 120
    assert announced(store) == [(bucket.name, "another"), (bucket.name, "key")]


def test_a_bucket_that_comes_due_soon_is_waited_for(store, due_bucket):
    bucket = due_bucket("key")
    engine_buckets.schedule(store, bucket, at=time.time() + 0.2)
    region_task.scan_region(REGION)
    assert announced(store) == [(bucket.name, "key")]


def test_a_bucket_that_becomes_due_while_another_is_waited_for_is_scanned_soon(
    store, due_bucket, monkeypatch
):
    """With the settings that workers have: a new bucket, or *scan now*."""
    monkeypatch.setattr(region_task, "TIME_BUDGET_S", WORKERS_BUDGET_S)
    waits = threading.Event()
    next_due_in_s = RedisLeases.next_due_in_s

    def ask(leases: RedisLeases, region: str) -> float | None:
        due_in_s = next_due_in_s(leases, region)
        waits.set()
        return due_in_s

    monkeypatch.setattr(RedisLeases, "next_due_in_s", ask)
    stop = threading.Event()
    monkeypatch.setattr(region_task, "stop_signal", stop)
    engine_buckets.schedule(store, due_bucket(), at=time.time() + 15)
    task = threading.Thread(target=region_task.scan_region, args=[REGION])
    task.start()
    assert waits.wait(30)
    made_due_at = time.monotonic()
    added = due_bucket("key")
    eventually(lambda: announced(store) == [(added.name, "key")])
    took_s = time.monotonic() - made_due_at
    stop.set()
    task.join(30)
    print(f"scanned after {took_s:.2f} s")  # noqa: T201 - the figure: pytest -rP
    assert took_s < 5


def claimed(store: redis.Redis, bucket: BucketConfig, *, at: float) -> Claim:
    """The bucket is due at ``at`` in each of its intervals."""
    engine_buckets.schedule(store, bucket, at=at)
    store.hset(redis_keys.bucket(bucket.name), "offset", at % HOURLY)
    [claim] = wiring.background().leases.claim_due(REGION, limit=1, slots=1)
    return claim


def scan_under(claim: Claim, bucket: BucketConfig, *, clock: Callable[[], float]) -> None:
    client, cache = wiring.background().connection.client, wiring.client_cache()
    BucketScanner(bucket, client, wiring.conf(), None, cache, claim=claim, clock=clock).run()


@pytest.mark.parametrize("wrong_s", [-60, 60], ids=["behind", "ahead"])
def test_a_worker_whose_clock_is_wrong_scans_a_bucket_once_an_interval(store, due_bucket, wrong_s):
    """By a clock behind Redis's, the start that it was scanned at is still to come."""
    bucket, at = due_bucket("key"), wiring.background().schedule.now()
    claim = claimed(store, bucket, at=at)
    scan_under(claim, bucket, clock=lambda: time.time() + wrong_s)
    assert announced(store) == [(bucket.name, "key")]
    assert store.zscore(redis_keys.due(REGION), bucket.name) == pytest.approx(at + HOURLY, abs=0.01)


def test_a_claim_that_waited_for_its_thread_into_the_next_interval_is_scanned_once(
    store, due_bucket
):
    bucket, at = due_bucket("key"), wiring.background().schedule.now() - HOURLY + 60
    claim = claimed(store, bucket, at=at)
    waited = replace(claim, arrived_s=claim.arrived_s - 90)
    scan_under(waited, bucket, clock=time.time)
    assert store.zscore(redis_keys.due(REGION), bucket.name) == pytest.approx(
        at + 2 * HOURLY, abs=0.01
    )


def test_another_regions_buckets_are_left_alone(store, due_bucket):
    due_bucket("key", region="elsewhere")
    region_task.scan_region(REGION)
    assert announced(store) == []


def test_duplicate_tasks_scan_nothing_twice(store, due_bucket):
    names = sorted(due_bucket("a", "b").name for _ in range(6))
    duplicates = [threading.Thread(target=region_task.scan_region, args=[REGION]) for _ in range(3)]
    for task in duplicates:
        task.start()
    for task in duplicates:
        task.join()
    region_task.scan_region(REGION)
    assert announced(store) == [(name, key) for name in names for key in ("a", "b")]
    assert scans(store) == 6


def test_a_region_that_is_full_on_other_hosts_is_not_scanned(store, due_bucket, settings):
    with_conf(settings, "parallel", rate_limit_per_region=1)
    due_bucket("key")
    store.zadd(redis_keys.running(REGION), {"on-another-host": time.time() + 60})
    region_task.scan_region(REGION)
    assert announced(store) == []


def test_a_slot_that_comes_free_is_used(store, due_bucket, settings):
    with_conf(settings, "parallel", rate_limit_per_region=1)
    bucket = due_bucket("key")
    store.zadd(redis_keys.running(REGION), {"on-another-host": time.time() + 0.2})
    region_task.scan_region(REGION)
    assert announced(store) == [(bucket.name, "key")]


def test_a_scan_that_takes_its_time_keeps_no_other_bucket_waiting(store, due_bucket, monkeypatch):
    """Not even one that comes due when the task's time is over."""
    long, other = due_bucket("a"), due_bucket("b")
    engine_buckets.schedule(store, other, at=time.time() + 2 * region_task.TIME_BUDGET_S)
    other_was_scanned, in_time = threading.Event(), []
    scan = BucketScanner.run

    def run(scanner: BucketScanner) -> None:
        scan(scanner)
        if scanner.bucket.name == other.name:
            other_was_scanned.set()
        elif scanner.bucket.name == long.name:
            in_time.append(other_was_scanned.wait(20))

    monkeypatch.setattr(BucketScanner, "run", run)
    region_task.scan_region(REGION)
    assert in_time == [True]


def test_a_scan_that_does_not_end_keeps_no_other_bucket_waiting(store, due_bucket, monkeypatch):
    """Its region would be scanned again when django-q2 ends the worker: after an hour."""
    monkeypatch.setattr(region_task, "LONGEST_S", 0.2)
    monkeypatch.setattr(region_task, "PATIENCE_S", 0.2)
    stuck, other = due_bucket("a"), due_bucket("b")
    engine_buckets.schedule(store, other, at=time.time() + 1)
    other_was_scanned, in_time = threading.Event(), []
    scan = BucketScanner.run

    def run(scanner: BucketScanner) -> None:
        if scanner.bucket.name == stuck.name:
            in_time.append(other_was_scanned.wait(20))
        scan(scanner)
        if scanner.bucket.name == other.name:
            other_was_scanned.set()

    monkeypatch.setattr(BucketScanner, "run", run)
    region_task.scan_region(REGION)
    assert in_time == [True]


def test_no_more_scans_run_at_once_than_the_region_and_the_process_allow(
    store, due_bucket, settings, monkeypatch
):
    with_conf(settings, "parallel", rate_limit_per_region=3, max_workers=2)
    for _ in range(5):
        due_bucket("key")
    most = []
    scan = BucketScanner.run

    def counted(scanner: BucketScanner) -> None:
        most.append(store.zcard(redis_keys.running(REGION)))
        scan(scanner)

    monkeypatch.setattr(BucketScanner, "run", counted)

    def all_scanned() -> bool:
        region_task.scan_region(REGION)  # as often as wake-ups come
        return len(most) == 5

    eventually(all_scanned)
    assert max(most) <= 2


def test_a_failing_bucket_does_not_hold_the_others_up(store, due_bucket, s3_server):
    engine_buckets.schedule(
        store, engine_buckets.put_real(s3_server, "never-created", interval=HOURLY)
    )
    bucket = due_bucket("key")
    region_task.scan_region(REGION)
    assert announced(store) == [(bucket.name, "key")]
    assert scans(store) == 2
    assert wiring.background().schedule.due_times([REGION])[REGION]["never-created"] > time.time()


# --- buckets that may not be scanned


def test_a_scheduled_bucket_that_is_not_configured_is_given_back_and_put_off(store):
    engine_buckets.trust()
    store.zadd(redis_keys.due(REGION), {"stranger": 1.0})
    region_task.scan_region(REGION)
    assert store.zcard(redis_keys.running(REGION)) == 0
    assert store.zscore(redis_keys.due(REGION), "stranger") > time.time() + 2
    assert announced(store) == []


def test_buckets_that_are_not_configured_hold_up_no_region_of_several_endpoints(store, due_bucket):
    """There are more of them than any endpoint's share of the slots."""
    bucket = due_bucket("key")
    wiring.background().schedule.write_endpoints({REGION: ["one.example", "another.example"]})
    strangers = [f"stranger-{n}" for n in range(14)]
    store.zadd(redis_keys.due(REGION), dict.fromkeys(strangers, 0.5))
    region_task.scan_region(REGION)
    assert store.zcard(redis_keys.running(REGION)) == 0
    assert all(store.zscore(redis_keys.due(REGION), name) > time.time() + 2 for name in strangers)
    assert announced(store) == [(bucket.name, "key")]


def test_a_paused_bucket_is_given_back(store, due_bucket, s3_server):
    bucket = due_bucket("key")
    engine_buckets.put_real(s3_server, bucket.name, status="paused")
    region_task.scan_region(REGION)
    assert store.zcard(redis_keys.running(REGION)) == 0
    assert announced(store) == []


def test_a_bucket_that_was_changed_after_it_was_claimed_is_given_back(
    store, due_bucket, s3_server, monkeypatch
):
    bucket = due_bucket("key")
    get = BucketCache.get

    def change_first(cache: BucketCache, names: Sequence[str]) -> dict[str, BucketConfig]:
        engine_buckets.put_real(s3_server, bucket.name, generation=2)
        return get(cache, names)

    with monkeypatch.context() as patched:
        patched.setattr(BucketCache, "get", change_first)
        region_task.scan_region(REGION)
    assert store.zcard(redis_keys.running(REGION)) == 0
    assert announced(store) == []
    store.zadd(redis_keys.due(REGION), {bucket.name: 1.0})
    region_task.scan_region(REGION)
    assert announced(store) == [(bucket.name, "key")]


@pytest.fixture
def move(s3_server, settings, monkeypatch):
    """Change a bucket's region or endpoint when so many pages of its scan have come."""
    with_conf(settings, "defaults", max_objects_per_batch=1)

    def arrange(bucket: BucketConfig, *, after: int, **moved: Any) -> None:
        looks = iter(range(1, 1000))

        def look() -> None:
            if next(looks) == after:
                given = {"endpoint": s3_server.url, "credential": bucket.credential} | moved
                engine_buckets.put(bucket.name, generation=2, interval=HOURLY, **given)

        monkeypatch.setattr(region_task, "stop_if_asked", look)

    return arrange


KEYS = [f"key-{number}" for number in range(5)]
MOMENTS = pytest.mark.parametrize("after", [1, 4], ids=["before its first commit", "in the middle"])


@MOMENTS
def test_a_bucket_whose_region_changes_under_a_scan_goes_on_there(store, due_bucket, move, after):
    bucket = due_bucket(*KEYS)
    store.set(redis_keys.last_scan(bucket.name), time.time())
    move(bucket, after=after, region="elsewhere")

    region_task.scan_region(REGION)
    assert len(announced(store)) < len(KEYS)
    assert store.hget(redis_keys.bucket(bucket.name), "complete") is None
    assert store.zcard(redis_keys.running(REGION)) == 0

    MultiRegionMonitor(web=False, workers=False)._tick()
    due = wiring.background().schedule.due_times([REGION, "elsewhere"])
    assert due[REGION] == {}
    assert due["elsewhere"][bucket.name] <= time.time()
    region_task.scan_region("elsewhere")
    assert {key for _, key in announced(store)} == set(KEYS)
    assert store.hget(redis_keys.bucket(bucket.name), "complete") == "2"


@MOMENTS
def test_a_bucket_whose_endpoint_changes_under_a_scan_is_scanned_there_at_once(
    store, due_bucket, move, s3_server, after
):
    bucket = due_bucket(*KEYS)
    move(bucket, after=after, endpoint=s3_server.url.replace("127.0.0.1", "localhost"))
    region_task.scan_region(REGION)
    region_task.scan_region(REGION)
    assert {key for _, key in announced(store)} == set(KEYS)
    assert [event["region"][:9] for event in queued(store)][-5:] == ["localhost"] * 5
    assert store.hget(redis_keys.bucket(bucket.name), "complete") == "2"


def test_a_bucket_configured_while_the_task_runs_is_known(store, due_bucket, s3_server):
    run = region_task.RegionSession(REGION)
    wiring.background().bucket_cache.get(["not-there-yet"])
    bucket = due_bucket("key")
    run.run()
    assert announced(store) == [(bucket.name, "key")]


# --- stopping


class StopsAfter:
    """A stop signal that is set once it was looked at so often."""

    def __init__(self, looks: int) -> None:
        self.left = looks

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0

    def wait(self, timeout: float | None = None) -> bool:
        return self.is_set()


def test_a_worker_that_is_to_stop_begins_nothing(store, due_bucket, monkeypatch):
    due_bucket("key")
    stop = StopSignal()
    stop.set()
    monkeypatch.setattr(region_task, "stop_signal", stop)
    region_task.scan_region(REGION)
    assert announced(store) == []


def test_a_scan_that_is_interrupted_stays_due_and_loses_nothing(
    store, due_bucket, settings, monkeypatch
):
    with_conf(settings, "defaults", max_objects_per_batch=1)
    wanted = [f"key-{number}" for number in range(5)]
    bucket = due_bucket(*wanted)
    monkeypatch.setattr(region_task, "stop_signal", StopsAfter(4))
    region_task.scan_region(REGION)
    assert 0 < len(announced(store)) < 5
    assert store.zscore(redis_keys.due(REGION), bucket.name) == 1.0
    assert store.zcard(redis_keys.running(REGION)) == 0

    monkeypatch.setattr(region_task, "stop_signal", threading.Event())
    region_task.scan_region(REGION)
    assert announced(store) == [(bucket.name, key) for key in wanted]


def test_a_scan_that_waits_for_an_answer_ends_when_the_process_is_to_stop(store, monkeypatch):
    monkeypatch.setattr(region_task, "_LAST_ANSWER_S", 0.1)
    stop = threading.Event()
    monkeypatch.setattr(region_task, "stop_signal", stop)
    with CannedServer(Stall()) as s3:
        bucket = engine_buckets.put("bucket", endpoint=s3.url)
        wiring.vault().write(bucket.credential, KeyPair("id", "secret"))
        engine_buckets.schedule(store, bucket)
        task = threading.Thread(target=region_task.scan_region, args=[REGION])
        task.start()
        eventually(lambda: s3.asked)
        stop.set()
        task.join(15)  # its time-out is 30 s
        assert not task.is_alive()
    assert store.zcard(redis_keys.running(REGION)) == 0
    assert store.zscore(redis_keys.due(REGION), "bucket") == 1.0
    assert not store.hexists(redis_keys.bucket("bucket"), "error")


# --- around it


def test_a_task_without_redis_says_so_and_ends(redis_server, monkeypatch, caplog):
    monkeypatch.setattr(wiring, "background", wiring.interactive)
    redis_server.stop()
    region_task.scan_region(REGION)
    assert f"{REGION}: scanning waits: Redis does not answer" in caplog.text


def test_the_client_cache_is_reported_while_a_scan_takes_its_time(store, due_bucket, monkeypatch):
    """A process that says nothing for two minutes counts as gone."""
    monkeypatch.setattr(region_task, "_REPORT_S", 0.1)
    due_bucket("key")
    reported = []
    scan = BucketScanner.run

    def run(scanner: BucketScanner) -> None:
        eventually(lambda: store.exists(redis_keys.CLIENTS), 20)
        reported.append(True)
        scan(scanner)

    monkeypatch.setattr(BucketScanner, "run", run)
    region_task.scan_region(REGION)
    assert reported == [True]


def test_the_client_cache_is_reported(store, due_bucket):
    due_bucket()
    region_task.scan_region(REGION)
    assert engine.metrics()["client_cache"]["cache_misses"] == 1


def test_a_wake_up_is_put_once_and_names_the_region_only(store, monkeypatch):
    assert django_q2.wake(REGION)
    assert not django_q2.wake(REGION)
    [signed] = store.lrange(f"django_q:{REGION}:q", 0, -1)
    from django_q.signing import SignedPackage  # noqa: PLC0415 - as a worker reads it

    task = SignedPackage.loads(signed)
    assert (task["func"], task["args"], task["kwargs"]) == (
        "scanning.tasks.scan_region",
        (REGION,),
        {},
    )


def test_the_pusher_outlives_a_redis_that_is_away(redis_server):
    broker = django_q2.RegionBroker(list_key=REGION)
    redis_server.stop()
    assert broker.dequeue() is None
    redis_server.start()
    django_q2.wake(REGION)
    [(_, task)] = broker.dequeue()
    assert task
