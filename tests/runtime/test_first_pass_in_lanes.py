"""A first pass in lanes with a real S3 server and a real Redis, killed and paused on the way."""

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import pytest

from scanning import wiring
from scanning.adapters.s3.storage import S3ClientCache
from scanning.core import redis_keys
from scanning.core.types import BucketConfig
from scanning.runtime.bucket_scanner import BucketScanner
from tests.support import engine_buckets
from tests.support.notifications import queued
from tests.support.servers import LOCAL, TestS3Server

PAGE = 10
KEYS = {f"{prefix}{number:03d}" for prefix in ("", "é/x/", "logs/2024/") for number in range(50)}


@pytest.fixture
def bucket(store, s3_server: TestS3Server) -> BucketConfig:
    name = s3_server.bucket()
    for key in KEYS:
        s3_server.put(name, key)
    return engine_buckets.put_real(s3_server, name)


@pytest.fixture
def clients() -> Iterator[S3ClientCache]:
    cache = S3ClientCache(LOCAL)
    yield cache
    cache.clear_cache()


def test_every_object_is_announced_once_in_slices_of_some_pages(bucket, store, clients):
    paused_ahead = 0
    seconds = count(round(time.time()))
    for _ in range(len(KEYS)):
        scanner = BucketScanner(
            bucket,
            store,
            wiring.conf(),
            None,
            clients,
            clock=lambda: float(next(seconds)),  # one passes each time somebody looks
            settings=replace(
                wiring.scan_settings(wiring.conf()),
                page_size=PAGE,
                lanes=4,
                slice_s=12.0,
                slow_page_s=-1.0,
            ),
        )
        scanner.run()
        assert scanner.result is not None
        assert scanner.result.ok, scanner.result.error
        paused_ahead += bool(store.hget(redis_keys.bucket(bucket.name), "ahead"))
        if scanner.result.complete:
            break
    assert paused_ahead
    assert sorted(event["key"] for event in queued(store)) == sorted(KEYS)
    assert scanner.result is not None
    assert scanner.result.listed == len(KEYS)
    assert not store.hexists(redis_keys.bucket(bucket.name), "ahead")
