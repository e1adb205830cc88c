"""What a worker does when its region is woken: real buckets, real Redis, one process."""

import json
import threading
import time
from collections.abc import Iterator

import pytest
import redis

from scanning import clusters, tasks, wiring
from scanning.core import keys
from scanning.core.types import BucketConfig
from scanning.processes import StopSignal
from scanning.scanner import BucketScanner
from tests import engine
from tests.engine import REGION

QUEUE = "linode:notifications:queue"
HOURLY = 3600


@pytest.fixture
def store(redis_server) -> Iterator[redis.Redis]:
    with redis_server.client() as client:
        yield client


@pytest.fixture(autouse=True)
def _short_budget(monkeypatch) -> None:
    monkeypatch.setattr(tasks, "TIME_BUDGET_S", 0.4)


@pytest.fixture
def due_bucket(store, s3_server):
    """Make a bucket with these objects due, and return its configuration."""

    def make(*objects: str, **given: object) -> BucketConfig:
        name = s3_server.bucket()
        for key in objects:
            s3_server.put(name, key)
        bucket = engine.put_real(s3_server, name, **{"interval": HOURLY} | given)
        engine.schedule(store, bucket)
        return bucket

    return make


def announced(store: redis.Redis) -> list[tuple[str, str]]:
    events = [json.loads(text) for text in store.lrange(QUEUE, 0, -1)]
    return sorted((event["bucket"], event["key"]) for event in events)


def scans(store: redis.Redis) -> int:
    return int(store.hget(keys.STATS, "total_scans") or 0)


def with_conf(settings, section: str, **values: object) -> None:
    changed = getattr(settings.SCANNING, section).model_copy(update=values)
    settings.SCANNING = settings.SCANNING.model_copy(update={section: changed})


def test_everything_that_is_due_is_scanned_once_and_due_again_an_interval_later(store, due_bucket):
    names = [due_bucket("key").name for _ in range(3)]
    later = due_bucket("key")
    engine.schedule(store, later, at=time.time() + 60)

    tasks.scan_region(REGION)

    assert announced(store) == [(name, "key") for name in sorted(names)]
    assert scans(store) == 3
    due = wiring.schedule().due_times([REGION])[REGION]
    assert all(time.time() < due[name] <= time.time() + HOURLY for name in names)
    assert store.zcard(keys.running(REGION)) == 0


def test_a_bucket_that_comes_due_soon_is_waited_for(store, due_bucket):
    bucket = due_bucket("key")
    engine.schedule(store, bucket, at=time.time() + 0.2)
    tasks.scan_region(REGION)
    assert announced(store) == [(bucket.name, "key")]


def test_another_regions_buckets_are_left_alone(store, due_bucket):
    due_bucket("key", region="elsewhere")
    tasks.scan_region(REGION)
    assert announced(store) == []


def test_duplicate_tasks_scan_nothing_twice(store, due_bucket):
    names = sorted(due_bucket("a", "b").name for _ in range(6))
    duplicates = [threading.Thread(target=tasks.scan_region, args=[REGION]) for _ in range(3)]
    for task in duplicates:
        task.start()
    for task in duplicates:
        task.join()
    tasks.scan_region(REGION)
    assert announced(store) == [(name, key) for name in names for key in ("a", "b")]
    assert scans(store) == 6


def test_a_region_that_is_full_on_other_hosts_is_not_scanned(store, due_bucket, settings):
    with_conf(settings, "parallel", rate_limit_per_region=1)
    due_bucket("key")
    store.zadd(keys.running(REGION), {"on-another-host": time.time() + 60})
    tasks.scan_region(REGION)
    assert announced(store) == []


def test_a_slot_that_comes_free_is_used(store, due_bucket, settings):
    with_conf(settings, "parallel", rate_limit_per_region=1)
    bucket = due_bucket("key")
    store.zadd(keys.running(REGION), {"on-another-host": time.time() + 0.2})
    tasks.scan_region(REGION)
    assert announced(store) == [(bucket.name, "key")]


def test_no_more_scans_run_at_once_than_the_region_and_the_process_allow(
    store, due_bucket, settings, monkeypatch
):
    with_conf(settings, "parallel", rate_limit_per_region=3, max_workers=2)
    for _ in range(5):
        due_bucket("key")
    most = []
    scan = BucketScanner.run

    def counted(scanner: BucketScanner) -> None:
        most.append(store.zcard(keys.running(REGION)))
        scan(scanner)

    monkeypatch.setattr(BucketScanner, "run", counted)
    tasks.scan_region(REGION)
    assert len(most) == 5
    assert max(most) <= 2


def test_a_failing_bucket_does_not_hold_the_others_up(store, due_bucket, s3_server):
    engine.schedule(store, engine.put_real(s3_server, "never-created", interval=HOURLY))
    bucket = due_bucket("key")
    tasks.scan_region(REGION)
    assert announced(store) == [(bucket.name, "key")]
    assert scans(store) == 2
    assert wiring.schedule().due_times([REGION])[REGION]["never-created"] > time.time()


# --- buckets that may not be scanned


def test_a_scheduled_bucket_that_is_not_configured_is_given_back_and_put_off(store):
    store.zadd(keys.due(REGION), {"stranger": 1.0})
    tasks.scan_region(REGION)
    assert store.zcard(keys.running(REGION)) == 0
    assert store.zscore(keys.due(REGION), "stranger") > time.time() + 2
    assert announced(store) == []


def test_a_paused_bucket_is_given_back(store, due_bucket, s3_server):
    bucket = due_bucket("key")
    engine.put_real(s3_server, bucket.name, status="paused")
    tasks.scan_region(REGION)
    assert store.zcard(keys.running(REGION)) == 0
    assert announced(store) == []


def test_a_bucket_that_was_changed_after_it_was_claimed_is_given_back(
    store, due_bucket, s3_server, monkeypatch
):
    bucket = due_bucket("key")
    refresh = tasks._RegionRun._refresh_buckets

    def change_first(run: tasks._RegionRun) -> None:
        engine.put_real(s3_server, bucket.name, generation=2)
        refresh(run)

    monkeypatch.setattr(tasks._RegionRun, "_refresh_buckets", change_first)
    tasks.scan_region(REGION)
    assert store.zcard(keys.running(REGION)) == 0
    assert announced(store) == []
    store.zadd(keys.due(REGION), {bucket.name: 1.0})
    monkeypatch.undo()
    tasks.scan_region(REGION)
    assert announced(store) == [(bucket.name, "key")]


def test_a_bucket_configured_while_the_task_runs_is_known(store, due_bucket, s3_server):
    run = tasks._RegionRun(REGION)
    run._refresh_buckets()
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
    monkeypatch.setattr(tasks, "stop_signal", stop)
    tasks.scan_region(REGION)
    assert announced(store) == []


def test_a_scan_that_is_interrupted_stays_due_and_loses_nothing(
    store, due_bucket, settings, monkeypatch
):
    with_conf(settings, "defaults", max_objects_per_batch=1)
    wanted = [f"key-{number}" for number in range(5)]
    bucket = due_bucket(*wanted)
    monkeypatch.setattr(tasks, "stop_signal", StopsAfter(4))
    tasks.scan_region(REGION)
    assert 0 < len(announced(store)) < 5
    assert store.zscore(keys.due(REGION), bucket.name) == 1.0
    assert store.zcard(keys.running(REGION)) == 0

    monkeypatch.setattr(tasks, "stop_signal", threading.Event())
    tasks.scan_region(REGION)
    assert announced(store) == [(bucket.name, key) for key in wanted]


# --- around it


def test_a_task_without_redis_says_so_and_ends(redis_server, monkeypatch, caplog):
    monkeypatch.setattr(wiring, "connection", wiring.impatient_connection)
    redis_server.stop()
    tasks.scan_region(REGION)
    assert f"{REGION}: scanning waits: Redis does not answer" in caplog.text


def test_the_client_cache_is_reported(store, due_bucket):
    due_bucket()
    tasks.scan_region(REGION)
    assert wiring.metrics()["client_cache"]["cache_misses"] == 1


def test_a_wake_up_is_put_once_and_names_the_region_only(store, monkeypatch):
    assert clusters.wake(REGION)
    assert not clusters.wake(REGION)
    [signed] = store.lrange(f"django_q:{REGION}:q", 0, -1)
    from django_q.signing import SignedPackage  # noqa: PLC0415 - as a worker reads it

    task = SignedPackage.loads(signed)
    assert (task["func"], task["args"], task["kwargs"]) == (
        "scanning.tasks.scan_region",
        (REGION,),
        {},
    )


def test_the_pusher_outlives_a_redis_that_is_away(redis_server):
    broker = clusters.RegionBroker(list_key=REGION)
    redis_server.stop()
    assert broker.dequeue() is None
    redis_server.start()
    clusters.wake(REGION)
    [(_, task)] = broker.dequeue()
    assert task
