"""Two hosts, each with all of `runmonitor`, share the buckets and scan none of them twice."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator

import pytest
import redis

from bucketwatch.local.servers import RedisServer
from scanning.core import redis_keys, schedule
from scanning.core.endpoints import endpoint_name
from tests.chaos.s3_objects import Change
from tests.chaos.s3_server import ChaosS3
from tests.chaos.site import Host, install, site_environ
from tests.support.processes import all_gone
from tests.support.waiting import eventually

BUCKETS = 500
REGIONS = 5
INTERVAL_S = 20
# So many intervals one after the other in which every bucket is listed.
INTERVALS = 2
NAMES = [f"bucket-{number:03}" for number in range(BUCKETS)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChaosS3]:
    with ChaosS3(tmp_path_factory.mktemp("s3"), endpoints=1, seed=0) as server:
        server.change([Change(name, "key", "etag", 1_700_000_000_000, 1) for name in NAMES])
        yield server


@pytest.fixture(scope="module")
def hosts(
    tmp_path_factory: pytest.TempPathFactory, store: RedisServer, s3: ChaosS3
) -> Iterator[list[Host]]:
    directory = tmp_path_factory.mktemp("site")
    environ = site_environ(
        directory / "data", {"REDIS_URL": store.url}, POLLING_INTERVAL=str(INTERVAL_S)
    )
    install(
        directory,
        environ,
        [
            {"name": name, "endpoint": s3.urls[0], "region": f"region-{number % REGIONS}"}
            for number, name in enumerate(NAMES)
        ],
    )
    with store.client() as client:
        # Known, so that no scan has requests of its own to learn what the endpoint does.
        profile = redis_keys.endpoint_profile(endpoint_name(s3.urls[0]))
        client.hset(profile, "asked_at", f"{time.time():.0f}")
    hosts = [Host(number, directory, environ) for number in (1, 2)]
    yield hosts
    trees = {process for host in hosts for process in host.tree()}
    for host in hosts:
        host.stop(patience_s=20)
    all_gone(trees)


def lists_by_interval(s3: ChaosS3) -> dict[str, Counter[int]]:
    """How often each bucket was listed from one of its due times to the next."""
    counted: dict[str, Counter[int]] = defaultdict(Counter)
    for at, name in s3.lists():
        offset = schedule.hash_offset(name, INTERVAL_S)
        counted[name][int((at - offset) // INTERVAL_S)] += 1
    return counted


def in_a_row(intervals: Counter[int]) -> bool:
    """Whether some ``INTERVALS`` follow each other without one left out."""
    return any(all(first + later in intervals for later in range(INTERVALS)) for first in intervals)


def scanning_processes(client: redis.Redis) -> set[int]:
    """The processes that hold S3 clients, on whichever host."""
    said = {str(name): str(text) for name, text in client.hgetall(redis_keys.CLIENTS).items()}
    return {int(name.rpartition(":")[2]) for name, text in said.items() if text[0] != "0"}


@pytest.mark.processes
@pytest.mark.starts_early
@pytest.mark.timeout(400)
def test_two_hosts_list_each_bucket_once_in_each_interval(hosts, s3, store):
    with store.client() as client:

        def all_listed_and_by_both() -> bool:
            counted = lists_by_interval(s3)
            assert len(counted) == BUCKETS
            assert all(map(in_a_row, counted.values()))
            scanners = scanning_processes(client)
            return all(scanners & {pid for pid, _ in host.tree()} for host in hosts)

        eventually(all_listed_and_by_both, timeout=300, interval=1)
    listed_again = {
        (name, number): times
        for name, intervals in lists_by_interval(s3).items()
        for number, times in intervals.items()
        if times > 1
    }
    assert listed_again == {}
