"""When a bucket whose scan failed is tried again: a worker, real Redis, an S3 server that errs."""

import time
from collections.abc import Callable, Iterator

import pytest
import redis

from scanning import wiring
from scanning.core import redis_keys
from scanning.core.types import BucketConfig, KeyPair
from scanning.runtime import region_task
from scanning.runtime.monitor import MultiRegionMonitor
from tests.runtime.test_region_task import with_conf
from tests.support import engine_buckets
from tests.support.canned_http import Act, Answer, CannedServer, error
from tests.support.engine_buckets import REGION
from tests.support.listing_bodies import rgw

REFUSED = error("AccessDenied", status=403)
FAILING = error("InternalError", status=500)
HOURLY = 3600


@pytest.fixture(autouse=True)
def _short_budget(monkeypatch) -> None:
    monkeypatch.setattr(region_task, "TIME_BUDGET_S", 0.1)


@pytest.fixture
def s3() -> Iterator[CannedServer]:
    with CannedServer(REFUSED) as server:
        yield server


@pytest.fixture
def bucket(store, s3) -> Callable[..., BucketConfig]:
    """Make a bucket of that server due."""

    def make(name: str = "bucket", *, interval: int = 10) -> BucketConfig:
        made = engine_buckets.put(name, endpoint=s3.url, credential="A", interval=interval)
        wiring.vault().write("A", KeyPair("id", "secret"))
        engine_buckets.schedule(store, made)
        return made

    return make


@pytest.fixture
def waits_s(store, s3) -> Callable[..., float]:
    """Scan a bucket that is due, and say how long it waits then."""

    def scan(name: str = "bucket", *, answering: Act | None = None) -> float:
        if answering is not None:
            s3.answers = [answering]
        store.zadd(redis_keys.due(REGION), {name: 1.0})
        region_task.scan_region(REGION)
        assert store.zcard(redis_keys.running(REGION)) == 0
        return float(store.zscore(redis_keys.due(REGION), name)) - time.time()

    return scan


def failures(store: redis.Redis, name: str = "bucket") -> int:
    return int(store.hget(redis_keys.bucket(name), "failures") or 0)


def test_what_fails_for_now_is_tried_again_ever_later_whatever_its_interval(bucket, waits_s):
    bucket(interval=HOURLY)
    pauses = [waits_s(answering=FAILING) for _ in range(3)]
    assert 1 < pauses[0] <= 5
    assert 4 < pauses[1] <= 10
    assert 9 < pauses[2] <= 20


def test_the_longest_wait_is_configured(bucket, waits_s, store, settings):
    with_conf(settings, "retry", longest=7.0)
    bucket()
    store.hset(redis_keys.bucket("bucket"), "failures", 50)
    assert 2 < waits_s(answering=FAILING) <= 7


def test_the_first_success_ends_it(bucket, waits_s, store):
    bucket()
    waits_s(answering=FAILING)
    assert failures(store) == 1
    assert 0 < waits_s(answering=Answer(200, rgw([]))) <= 10
    assert failures(store) == 0


def test_what_stays_wrong_is_tried_slowly_and_says_so(bucket, waits_s, store):
    bucket()
    pauses = [waits_s() for _ in range(6)]
    assert 50 < pauses[0] <= 60
    assert 100 < pauses[1] <= 120
    assert 530 < pauses[-1] <= 600
    said = store.hget(redis_keys.bucket("bucket"), "error")
    assert "the credential may not read the bucket" in said
    assert "min, or once the bucket or its credential is saved" in said


def test_a_longer_interval_is_kept_by_what_stays_wrong(bucket, waits_s):
    bucket(interval=HOURLY)
    assert HOURLY - 10 < waits_s() <= HOURLY


def test_the_slowest_try_is_configured(bucket, waits_s, store, settings):
    with_conf(settings, "retry", permanent=20.0)
    bucket()
    assert 15 < waits_s() <= 20


def test_a_full_queue_is_no_fault_of_the_bucket(bucket, waits_s, store, settings, s3_server):
    with_conf(settings, "queue", high_water=1)
    store.rpush("linode:notifications:queue", "waiting")
    name = s3_server.bucket()
    s3_server.put(name, "key")
    engine_buckets.schedule(store, engine_buckets.put_real(s3_server, name, interval=HOURLY))
    store.hset(redis_keys.bucket(name), "failures", 50)
    assert 0 < waits_s(name) <= HOURLY
    assert store.hget(redis_keys.bucket(name), "error_class") == "QueueFull"


def test_the_status_tells_when_the_next_scan_is(bucket, waits_s, store):
    bucket()
    waits_s()
    [status] = wiring.background().bucket_status.read(["bucket"])
    assert status.next_scan_at == pytest.approx(
        store.zscore(redis_keys.due(REGION), "bucket"), abs=0.01
    )


# --- what makes it due at once


def test_saving_the_bucket_makes_it_due(bucket, waits_s, store):
    bucket()
    assert waits_s() > 50
    bucket("healthy")
    store.zadd(redis_keys.due(REGION), {"healthy": time.time() + 50})
    for name in ("bucket", "healthy"):
        engine_buckets.put(name, credential="A", interval=10)
    due = wiring.background().schedule.due_times([REGION])[REGION]
    assert due["bucket"] <= time.time()
    assert due["healthy"] > time.time()
    assert failures(store) == 0


def test_asking_for_a_scan_makes_it_due(bucket, waits_s):
    bucket()
    waits_s()
    wiring.background().schedule.postpone("bucket", REGION, until=time.time())
    assert wiring.background().schedule.due_times([REGION])[REGION]["bucket"] <= time.time()


def test_the_monitor_leaves_it_alone_until_then(bucket, waits_s, store):
    bucket()
    bucket("shortened", interval=HOURLY)
    waits_s()
    store.zadd(redis_keys.due(REGION), {"shortened": time.time() + HOURLY})
    engine_buckets.put("shortened", interval=5)
    MultiRegionMonitor(web=False, workers=False)._tick()
    due = wiring.background().schedule.due_times([REGION])[REGION]
    assert due["bucket"] > time.time() + 40
    assert due["shortened"] <= time.time() + 5
