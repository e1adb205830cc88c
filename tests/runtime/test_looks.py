"""Looks by real workers: what changed is announced soon, and passes come when they were due."""

import time
from collections.abc import Sequence

import pytest
import redis

from scanning import engine, wiring
from scanning.core import redis_keys
from scanning.core.types import BucketConfig
from scanning.runtime import region_task
from tests.support import engine_buckets
from tests.support.engine_buckets import REGION
from tests.support.notifications import queued

HOURLY = 3600


@pytest.fixture(autouse=True)
def _short_budget(monkeypatch) -> None:
    monkeypatch.setattr(region_task, "TIME_BUDGET_S", 0.4)


@pytest.fixture
def watched(store, s3_server) -> BucketConfig:
    """A bucket that had its pass, and has the next one in up to an hour."""
    name = s3_server.bucket()
    for key in ("a", "k", "z"):
        s3_server.put(name, key)
    bucket = engine_buckets.put_real(s3_server, name, interval=HOURLY)
    engine_buckets.schedule(store, bucket)
    region_task.scan_region(REGION)
    return bucket


def events(store: redis.Redis) -> list[tuple[str, str]]:
    """Take what was announced since the last call, as event type and key."""
    found = [(event["event_type"], event["key"]) for event in queued(store)]
    store.delete(wiring.conf().redis.queue_name)
    return found


def next_pass(store: redis.Redis, bucket: BucketConfig) -> float:
    at = store.zscore(redis_keys.due(REGION), bucket.name)
    assert at is not None
    return float(at)


def look(bucket: BucketConfig, *keys: str) -> None:
    assert engine.request_looks({bucket.name: REGION}, keys={bucket.name: keys}) == {bucket.name}
    region_task.scan_region(REGION)


def test_a_look_announces_a_new_object_and_the_pass_stays_when_it_was(store, watched, s3_server):
    events(store)
    due, last_scan = next_pass(store, watched), store.get(redis_keys.last_scan(watched.name))
    s3_server.put(watched.name, "zz")
    look(watched)
    assert events(store) == [("created", "zz")]
    assert next_pass(store, watched) == pytest.approx(due, abs=0.001)
    assert store.get(redis_keys.last_scan(watched.name)) == last_scan


def test_hinted_keys_are_announced_wherever_they_are(store, watched, s3_server):
    events(store)
    s3_server.put(watched.name, "b")
    s3_server.put(watched.name, "k", b"other bytes")
    look(watched, "b", "k")
    assert events(store) == [("created", "b"), ("updated", "k")]


def test_the_history_and_the_counters_tell_looks_from_passes(store, watched, s3_server):
    s3_server.put(watched.name, "zz")
    look(watched)
    assert kinds(watched) == [("pass", 3), ("look", 1)]
    counted = store.hgetall(redis_keys.STATS)
    assert (counted["total_scans"], counted["looks"]) == ("1", "1")
    assert "bucketwatch_looks_total" in engine.metrics_text("prometheus")[0].decode()


def kinds(bucket: BucketConfig) -> Sequence[tuple[str, int]]:
    return [(record.kind, record.changes) for record in engine.scan_history(bucket.name)]


def test_a_look_before_the_first_pass_is_that_pass(store, s3_server):
    bucket = engine_buckets.put_real(s3_server, s3_server.bucket(), interval=HOURLY)
    s3_server.put(bucket.name, "key")
    engine_buckets.schedule(store, bucket, at=time.time() + HOURLY)
    look(bucket)
    assert events(store) == [("created", "key")]
    assert kinds(bucket) == [("pass", 1)]
    assert store.hget(redis_keys.bucket(bucket.name), "complete") == "1"


def test_a_look_that_s3_refuses_is_tried_again_and_is_no_end_of_the_pass(store, watched, s3_server):
    events(store)
    before = store.hget(redis_keys.bucket(watched.name), "scan_at")
    s3_server.remove(watched.name)
    look(watched)
    assert events(store) == []
    fields = store.hgetall(redis_keys.bucket(watched.name))
    assert fields["error_class"] == "BucketNotFound"
    assert (fields["scan_at"], fields["failures"]) == (before, "1")
    assert fields["pass_due"]
