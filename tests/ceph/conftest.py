"""A Ceph gateway for the whole run, and scans of its buckets with states in real Redis."""

import queue
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from scanning import wiring
from scanning.adapters.s3.storage import S3ClientCache, S3Storage
from scanning.core.types import BucketConfig, KeyPair, ScanResult
from scanning.runtime.bucket_scanner import BucketScanner
from tests.support import ceph
from tests.support.ceph import CephAccount, CephGateway
from tests.support.servers import LOCAL, RedisServer, S3Account

Scan = Callable[..., ScanResult]
Open = Callable[..., S3Storage]


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CephGateway]:
    if ceph.missing():
        pytest.skip(f"NO CEPH TESTS: {ceph.missing()} (make test-ceph)")
    gateway = CephGateway(tmp_path_factory.mktemp("ceph"))
    try:
        gateway.start()
        yield gateway
    finally:
        gateway.stop()


@pytest.fixture(scope="session")
def owner(gateway: CephGateway) -> Iterator[CephAccount]:
    """Owns the buckets of the tests."""
    account = gateway.account("owner")
    yield account
    account.close()


@pytest.fixture(scope="session")
def guest(gateway: CephGateway) -> Iterator[CephAccount]:
    """May do what the owner of a bucket lets it do."""
    account = gateway.account("guest")
    yield account
    account.close()


@pytest.fixture
def clients() -> Iterator[S3ClientCache]:
    cache = S3ClientCache(LOCAL)
    yield cache
    cache.clear_cache()


@pytest.fixture
def storage(clients: S3ClientCache) -> Open:
    """Open a bucket as an account; ``options`` are those of its configuration."""

    def storage(account: S3Account, name: str, **options: Any) -> S3Storage:
        bucket = BucketConfig(name, account.url, "region", "C", **options)
        return S3Storage(clients, bucket, KeyPair(account.access_key, account.secret_key))

    return storage


@pytest.fixture
def scan(redis_server: RedisServer, clients: S3ClientCache) -> Scan:
    """Scan a bucket with the keys of an account, as the documentation shows."""

    def scan(account: S3Account, name: str, **ours: Any) -> ScanResult:
        document = {
            "name": name,
            "endpoint": account.url,
            "access_key": account.access_key,
            "secret_key": account.secret_key,
            "region": "ceph-test-1",
            "bucketwatch": ours,
        }
        results: queue.Queue[ScanResult] = queue.Queue()
        with redis_server.client() as client:
            BucketScanner(document, client, wiring.conf(), results, clients).run()
        return results.get_nowait()

    return scan
