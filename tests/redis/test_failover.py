"""Redis fails over while buckets are scanned: real servers, the master killed with kill -9."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from scanning import wiring
from scanning.config import settings as engine_settings
from scanning.core import redis_keys
from scanning.core.types import BucketConfig
from scanning.runtime import region_task
from tests.support import engine_buckets
from tests.support.engine_buckets import REGION
from tests.support.notifications import queued
from tests.support.redis_topology import Node, RedisTopology
from tests.support.servers import TestS3Server
from tests.support.waiting import eventually

OBJECTS = 300
A_PAGE = 5


@pytest.fixture
def topology(
    tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RedisTopology]:
    monkeypatch.setattr(region_task, "TIME_BUDGET_S", 1.0)
    with RedisTopology(tmp_path / "redis", down_after_s=1.0) as built:
        found = engine_settings.RedisSection.model_validate(built.settings())
        pages = engine_settings.DefaultsSection(max_objects_per_batch=A_PAGE)
        settings.SCANNING = settings.SCANNING.model_copy(update={"redis": found, "defaults": pages})
        wiring.reset()
        yield built


@pytest.fixture
def workers() -> Iterator[Callable[[], None]]:
    """Start one more worker of the region; each goes on through whatever happens."""
    stop = threading.Event()
    threads: list[threading.Thread] = []

    def work() -> None:
        while not stop.is_set():
            region_task.scan_region(REGION)
            stop.wait(0.1)

    def start() -> None:
        threads.append(threading.Thread(target=work))
        threads[-1].start()

    yield start
    stop.set()
    for thread in threads:
        thread.join(60)


@pytest.fixture
def watched(topology: RedisTopology, s3_server: TestS3Server) -> Callable[..., BucketConfig]:
    """A bucket with these objects that is due now, and every second from then on."""

    def make(*objects: str) -> BucketConfig:
        name = s3_server.bucket()
        for key in objects:
            s3_server.put(name, key)
        bucket = engine_buckets.put_real(s3_server, name, interval=1)
        with topology.client() as client:
            engine_buckets.schedule(client, bucket)
        return bucket

    return make


def fail_over(topology: RedisTopology) -> Node:
    killed = topology.kill_master()
    return topology.wait_for_master(other_than=killed, writable=True)


def commits(client: redis.Redis, bucket: BucketConfig) -> int:
    return int(client.hget(redis_keys.bucket(bucket.name), "commit") or 0)


def scanned_since(client: redis.Redis, bucket: BucketConfig, at: float) -> bool:
    return float(client.get(redis_keys.last_scan(bucket.name)) or 0) > at


def announced(client: redis.Redis) -> Counter[tuple[str, str]]:
    return Counter((event["bucket"], event["key"]) for event in queued(client))


def test_a_scan_of_many_commits_loses_and_repeats_nothing(topology, workers, watched):
    bucket = watched(*(f"key-{number:03}" for number in range(OBJECTS)))
    workers()
    with topology.client() as master:
        eventually(lambda: commits(master, bucket) >= 5)
        assert commits(master, bucket) < OBJECTS // A_PAGE  # it is still at it
    with fail_over(topology).client() as master:
        eventually(lambda: scanned_since(master, bucket, 0), timeout=90)
        found = announced(master)
    assert found == {(bucket.name, f"key-{number:03}"): 1 for number in range(OBJECTS)}


def test_claims_and_short_scans_go_on_and_every_change_is_announced_once(
    topology, workers, watched, s3_server
):
    buckets = [watched("before") for _ in range(5)]
    for _ in range(2):
        workers()
    with topology.client() as master:
        eventually(lambda: all(scanned_since(master, b, 0) for b in buckets))
    killed = topology.kill_master()
    for bucket in buckets:
        s3_server.put(bucket.name, "meanwhile")
    with topology.wait_for_master(other_than=killed, writable=True).client() as master:
        now = time.time()
        eventually(lambda: all(scanned_since(master, b, now) for b in buckets), timeout=90)
        found = announced(master)
    expected = [(b.name, key) for b in buckets for key in ("before", "meanwhile")]
    assert found == Counter(expected)


def test_a_commit_that_the_failover_lost_is_found_again_under_the_same_id(
    topology, watched, s3_server
):
    bucket = watched("first")
    region_task.scan_region(REGION)
    with topology.client() as master:
        assert master.wait(2, 30_000) == 2
        # So that it takes the commit although nobody is there to copy it.
        master.config_set("min-replicas-to-write", 0)
        for replica in topology.nodes[1:]:
            replica.signal(signal.SIGSTOP)
        master.client_kill_filter(_type="replica")
        s3_server.put(bucket.name, "second")
        engine_buckets.schedule(master, bucket)
        region_task.scan_region(REGION)
        [_first, lost] = queued(master)
    killed = topology.kill_master()
    for replica in topology.nodes[1:]:
        replica.signal(signal.SIGCONT)
    with topology.wait_for_master(other_than=killed, writable=True).client() as master:
        assert [event["key"] for event in queued(master)] == ["first"]
        engine_buckets.schedule(master, bucket)
        region_task.scan_region(REGION)
        [_first, again] = queued(master)
    assert (again["key"], again["event_id"]) == ("second", lost["event_id"])
    assert again["sequencer"] > lost["sequencer"]
