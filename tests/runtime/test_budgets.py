"""Budgets of requests: what runs out makes passes rarer, and ends none."""

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
import redis

from scanning import engine, wiring
from scanning.adapters.redis.schedule import server_time
from scanning.adapters.s3.storage import S3ClientCache
from scanning.core import redis_keys
from scanning.core.endpoint_profile import EndpointSettings
from scanning.core.endpoints import endpoint_name
from scanning.core.request_costs import DAY_S, RequestKind, day_left_s
from scanning.core.types import BucketConfig, Claim, LookRequest
from scanning.ports import EndpointUsage, RequestReport
from scanning.runtime.bucket_scanner import BucketScanner
from scanning.runtime.scheduler import Scheduler
from tests.support import engine_buckets
from tests.support.servers import LOCAL, TestS3Server
from tests.support.waiting import eventually

REGION = engine_buckets.REGION
# Short, so that a budget stretches it also where little is left of the day.
INTERVAL_S = 2
LATE_S = 250

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def clients() -> Iterator[S3ClientCache]:
    cache = S3ClientCache(LOCAL)
    yield cache
    cache.clear_cache()


@pytest.fixture(autouse=True)
def _not_at_midnight(store: redis.Redis) -> None:
    """What was sent before midnight counts no more after it."""
    eventually(lambda: day_left_s(now(store)) > LATE_S, timeout=2 * LATE_S)


def now(store: redis.Redis) -> float:
    return server_time(store)


def send(bucket: BucketConfig, number: int, *, name: str = "") -> None:
    """As if so many requests had been sent for a bucket today."""
    endpoint = endpoint_name(bucket.endpoint)
    sent = {(name or bucket.name, RequestKind.LIST): number}
    report = RequestReport(f"test-{time.time_ns()}", 1, sent)
    wiring.background().endpoint_health.share_usage(EndpointUsage(endpoint, report=report))


def scan(store: redis.Redis, bucket: BucketConfig, clients: S3ClientCache) -> float:
    """Scan a due bucket as a worker does; return how long it is until the next scan, in seconds."""
    engine_buckets.schedule(store, bucket, at=now(store))
    [claim] = wiring.background().leases.claim_due(REGION, limit=1, slots=15)
    client, conf = wiring.background().connection.client, wiring.conf()
    scanner = BucketScanner(bucket, client, conf, None, clients, claim=claim)
    scanner.run()
    assert scanner.result is not None
    assert scanner.result.ok
    due = store.zscore(redis_keys.due(REGION), bucket.name)
    assert due is not None
    return float(due) - now(store)


def put(s3: TestS3Server, *, budget: int | None) -> BucketConfig:
    return engine_buckets.put_real(s3, s3.bucket(), interval=INTERVAL_S, budget=budget)


def test_a_bucket_without_a_budget_is_scanned_at_its_interval(store, s3_server, clients):
    bucket = put(s3_server, budget=None)
    send(bucket, 1_000_000)
    assert scan(store, bucket, clients) <= INTERVAL_S
    assert engine.stretched_buckets() == {}


def test_a_budget_that_lasts_changes_nothing(store, s3_server, clients):
    bucket = put(s3_server, budget=10**9)
    send(bucket, 1000)
    assert scan(store, bucket, clients) <= INTERVAL_S
    assert engine.stretched_buckets() == {}


def test_passes_that_a_budget_does_not_pay_for_come_less_often(store, s3_server, clients):
    bucket = put(s3_server, budget=1100)
    send(bucket, 1000)
    left_s = day_left_s(now(store))
    wait_s = scan(store, bucket, clients)
    # Up to 20 of the 100 that are left are sent by now, to learn the endpoint and to scan.
    assert left_s / 101 <= wait_s <= left_s / 80 + INTERVAL_S
    [(name, until)] = engine.stretched_buckets().items()
    assert name == bucket.name
    assert until == store.zscore(redis_keys.due(REGION), bucket.name)


def test_a_budget_that_is_spent_lets_the_next_pass_come_after_midnight(store, s3_server, clients):
    bucket = put(s3_server, budget=1000)
    send(bucket, 5000)
    left_s = day_left_s(now(store))
    assert left_s - 30 <= scan(store, bucket, clients) <= left_s + INTERVAL_S


def test_the_buckets_of_an_endpoint_share_its_budget(store, s3_server, clients):
    bucket = put(s3_server, budget=None)
    endpoint = endpoint_name(bucket.endpoint)
    settings = EndpointSettings(requests_per_day=10_000)
    wiring.background().endpoint_profiles.set(endpoint, settings, revision=1)
    try:
        send(bucket, 4500, name="another")
        send(bucket, 4500)
        left_s = day_left_s(now(store))
        wait_s = scan(store, bucket, clients)
        assert left_s / 501 <= wait_s <= left_s / 400 + INTERVAL_S
        send(bucket, 5000, name="another")
        assert scan(store, bucket, clients) >= left_s - 60
    finally:
        wiring.background().endpoint_profiles.remove(endpoint)


def test_looks_put_no_pass_off_that_is_planned(store, s3_server, clients):
    """Else a bucket that is looked at again and again would never be passed over."""
    bucket = put(s3_server, budget=1000)
    s3_server.put(bucket.name, "key")
    scan(store, bucket, clients)
    send(bucket, 5000)
    planned = now(store) + 30
    store.zadd(redis_keys.due(REGION), {bucket.name: planned})
    engine.request_looks({bucket.name: REGION})
    [claim] = wiring.background().leases.claim_due(REGION, limit=1, slots=15)
    assert claim.look is not None
    client, conf = wiring.background().connection.client, wiring.conf()
    scanner = BucketScanner(bucket, client, conf, None, clients, claim=claim)
    scanner.run()
    assert scanner.result is not None
    assert scanner.result.is_look
    assert store.zscore(redis_keys.due(REGION), bucket.name) == pytest.approx(planned, abs=1)


def test_a_look_that_becomes_a_pass_is_held_to_the_budget(store, s3_server, clients):
    bucket = put(s3_server, budget=1000)
    s3_server.put(bucket.name, "key")
    scan(store, bucket, clients)
    send(bucket, 5000)
    result = replace(engine_buckets.result(bucket.name), kind="pass", listed=1)
    look = LookRequest((), now(store) + 30)
    claim = Claim(bucket.name, REGION, 1, 1, now(store), 0.0, now(store) + 15, 1, look=look)
    claim = replace(claim, taken_at=now(store), arrived_s=time.monotonic())
    client, conf = wiring.background().connection.client, wiring.conf()
    scanner = BucketScanner(bucket, client, conf, None, clients, claim=claim)
    due, is_stretched = scanner._within_budget(claim, result, now(store) + 60)
    assert is_stretched
    assert due is not None
    assert due >= now(store) + day_left_s(now(store)) - 30


def test_the_schedule_leaves_a_stretched_bucket_alone_until_somebody_saves_it(
    store, s3_server, clients
):
    bucket = put(s3_server, budget=1)
    send(bucket, 5000)
    store.set(redis_keys.last_scan(bucket.name), now(store))
    scan(store, bucket, clients)
    scheduler = Scheduler(wiring.conf())
    scheduler.refresh()
    due = store.zscore(redis_keys.due(REGION), bucket.name)
    assert due - now(store) > INTERVAL_S or day_left_s(now(store)) < 2 * INTERVAL_S

    engine_buckets.put(bucket.name, endpoint=bucket.endpoint, interval=INTERVAL_S, budget=10**9)
    scheduler.refresh()
    assert store.zscore(redis_keys.due(REGION), bucket.name) - now(store) <= INTERVAL_S
    assert engine.stretched_buckets() == {}


def test_a_bucket_is_stretched_no_longer_once_its_budget_lasts_again(store, s3_server, clients):
    bucket = put(s3_server, budget=10**9)
    store.zadd(redis_keys.STRETCHED, {bucket.name: now(store) + DAY_S, "of long ago": 1.0})
    scan(store, bucket, clients)
    assert store.zcard(redis_keys.STRETCHED) == 0
