"""`scanning/adapters/s3/name_lookups.py`: what a resolver that never answers costs."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from scanning import engine, wiring
from scanning.adapters.s3.name_lookups import NameLookups
from scanning.core import redis_keys
from scanning.core.errors import StorageUnavailable
from scanning.core.types import KeyPair
from scanning.runtime import region_task
from tests.runtime.test_region_task import with_conf
from tests.support import engine_buckets
from tests.support.engine_buckets import REGION
from tests.support.waiting import eventually

MOST = 3


class Resolver:
    """Answers for numbers; for every name it takes for ever, or until ``answers`` is set."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.asked: list[str] = []
        self._resolve = socket.getaddrinfo

    def __call__(self, host: str, *arguments: Any, **options: Any) -> Any:
        if not host.endswith(".example"):
            return self._resolve(host, *arguments, **options)
        self.asked.append(host)
        self.answers.wait()
        return self._resolve("127.0.0.1", *arguments, **options)


@pytest.fixture
def resolver(monkeypatch) -> Iterator[Resolver]:
    """What a name server answers is the rare thing that has no door."""
    resolver = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    yield resolver
    resolver.answers.set()
    eventually(lambda: look_ups() == 0)


def look_ups() -> int:
    return sum(thread.name == "name look-up" for thread in threading.enumerate())


def is_unanswered(names: NameLookups, host: str) -> bool:
    with pytest.raises(socket.gaierror) as caught:
        names.addresses(host, timeout_s=0.05)
    return caught.value.errno == socket.EAI_AGAIN


def in_threads(call: Callable[[], bool], number: int) -> list[bool]:
    with ThreadPoolExecutor(number) as pool:
        return [done.result() for done in [pool.submit(call) for _ in range(number)]]


def test_a_name_that_is_never_answered_is_given_up(resolver):
    assert is_unanswered(NameLookups(), "s3.example")


def test_a_name_is_asked_for_once_however_many_wait_for_it(resolver):
    names = NameLookups(limit=MOST)
    assert all(in_threads(lambda: is_unanswered(names, "s3.example"), 8))
    assert resolver.asked == ["s3.example"]
    assert look_ups() == 1
    assert names.addresses("127.0.0.1", timeout_s=20) == ["127.0.0.1"]


def test_look_ups_that_never_end_do_not_pile_up(resolver):
    names = NameLookups(limit=MOST)
    assert all(is_unanswered(names, f"{n}.example") for n in range(MOST + 2))
    assert len(resolver.asked) == look_ups() == MOST
    resolver.answers.set()
    assert names.addresses("another.example", timeout_s=20) == ["127.0.0.1"]
    assert names.addresses("0.example", timeout_s=20) == ["127.0.0.1"]


def test_a_bucket_whose_name_is_never_resolved_fails_and_backs_off(
    resolver, store: redis.Redis, settings, monkeypatch
):
    with_conf(settings, "storage", connect_timeout=0.1)
    monkeypatch.setattr(region_task, "TIME_BUDGET_S", 0.4)
    bucket = engine_buckets.put("bucket", endpoint="s3.example", interval=3600)
    wiring.vault().write(bucket.credential, KeyPair("id", "secret"))
    engine_buckets.schedule(store, bucket)

    task = threading.Thread(target=region_task.scan_region, args=[REGION], daemon=True)
    task.start()
    task.join(30)
    assert not task.is_alive()

    [status] = wiring.background().bucket_status.read(["bucket"])
    assert status.error_class == StorageUnavailable.__name__
    assert status.error == "bucket bucket at s3.example: the name server does not answer just now"
    assert wiring.background().schedule.due_times([REGION])[REGION]["bucket"] > time.time() + 2
    assert store.zcard(redis_keys.running(REGION)) == 0


def test_a_connection_is_tested_without_waiting_for_a_name_server(resolver, store, settings):
    with_conf(settings, "storage", connect_timeout=0.1)
    document = engine_buckets.document("bucket", endpoint="s3.example")
    with pytest.raises(StorageUnavailable, match="the name server does not answer just now"):
        engine.first_keys("bucket", document, KeyPair("id", "secret"), limit=1)
