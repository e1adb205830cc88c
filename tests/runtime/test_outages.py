"""Redis or the database gone for a while, under a whole installation: nothing is lost."""

import signal
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from bucketwatch.local.servers import RedisServer
from scanning.core import redis_keys
from tests.support.notifications import QUEUE, queued
from tests.support.product import Product
from tests.support.servers import TestS3Server
from tests.support.waiting import eventually

pytestmark = pytest.mark.processes


class Site:
    """An installation that watches one bucket, on a Redis that keeps its data."""

    def __init__(self, directory: Path, s3: TestS3Server) -> None:
        self.store = RedisServer(directory / "redis", appendonly=True)
        self.store.start()
        self.s3 = s3
        self.bucket = s3.bucket()
        self.product = Product(directory, redis_url=self.store.url)
        self.database = directory / "data/bucketwatch.sqlite3"

    def begin(self) -> None:
        self.product.wait_until_ready()
        self.s3.put(self.bucket, "first")
        self.product.add(self.bucket, self.s3)
        eventually(lambda: self.announced() == ["first"])

    def announced(self) -> list[str]:
        with self.store.client() as client:
            return sorted(event["key"] for event in queued(client))

    def has_announced(self, key: str) -> bool:
        return key in self.announced()

    def commit_is_remembered(self) -> bool:
        with sqlite3.connect(self.database) as connection:
            [[at]] = connection.execute("SELECT last_commit_at FROM buckets_bucket").fetchall()
        connection.close()
        return at is not None

    def lost_since(self) -> str | None:
        shown = self.product.call(
            f"print(repr(selectors.bucket_named({self.bucket!r}).lost_since is not None))"
        )
        return shown.strip()

    def status_of(self, path: str) -> int:
        try:
            with urllib.request.urlopen(f"{self.product.url}{path}", timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refusal:
            refusal.close()
            return refusal.code

    def says(self, text: str) -> None:
        eventually(lambda: text in self.product.output())

    def close(self) -> None:
        self.product.clear_away()
        self.store.stop()


@pytest.fixture
def site(tmp_path: Path, s3_server: TestS3Server) -> Iterator[Site]:
    built = Site(tmp_path, s3_server)
    try:
        built.begin()
        yield built
    finally:
        built.close()


def test_while_redis_is_away_everything_waits_and_then_goes_on(site, s3_server):
    tree = site.product.tree()
    site.store.kill()
    s3_server.put(site.bucket, "meanwhile")
    site.says("scheduling waits: Redis does not answer")
    site.says("workers wait for Redis")
    assert site.status_of("/health") == 200
    assert site.status_of("/ready") == 503

    site.store.start()
    eventually(lambda: site.announced() == ["first", "meanwhile"])
    site.product.wait_until_ready()
    assert site.product.process.poll() is None
    assert {pid for pid, _ in tree} == {pid for pid, _ in site.product.tree()}
    assert "Traceback" not in site.product.output()
    assert site.lost_since() == "False"


def test_while_the_database_is_locked_scanning_goes_on_and_the_status_catches_up(site, s3_server):
    eventually(site.commit_is_remembered)
    connection = sqlite3.connect(site.database, timeout=60, isolation_level=None)
    try:
        connection.execute("BEGIN EXCLUSIVE")
        for number in range(3):
            s3_server.put(site.bucket, f"meanwhile-{number}")
            eventually(partial(site.has_announced, f"meanwhile-{number}"))
        [[before]] = connection.execute("SELECT last_scan_at FROM buckets_bucket").fetchall()
    finally:
        connection.execute("ROLLBACK")

    def has_caught_up() -> bool:
        [[now]] = connection.execute("SELECT last_scan_at FROM buckets_bucket").fetchall()
        return bool(now > before)

    eventually(has_caught_up)
    connection.close()
    assert len(site.announced()) == 4
    assert "Traceback" not in site.product.output()


@pytest.mark.parametrize(
    ("choice", "expected"), [("announce", ["first", "meanwhile"]), ("baseline", [])]
)
def test_a_redis_that_was_emptied_floods_nobody(site, s3_server, choice, expected):
    eventually(site.commit_is_remembered)
    with site.store.client() as client:
        client.flushall()
        s3_server.put(site.bucket, "meanwhile")
        site.says("Redis forgot what was known of 1 buckets")
        eventually(lambda: client.get(redis_keys.TRUSTED) == "checked")
        eventually(lambda: site.lost_since() == "True")
        assert client.llen(QUEUE) == 0

        site.product.call(
            "services.resume_after_loss("
            f"buckets=[selectors.bucket_named({site.bucket!r})], choice={choice!r})"
        )
        eventually(lambda: client.get(redis_keys.last_scan(site.bucket)))
        assert site.announced() == expected
        s3_server.put(site.bucket, "later")
        eventually(lambda: site.announced() == sorted([*expected, "later"]))
    site.product.signal(signal.SIGTERM)
    assert "Traceback" not in site.product.output()
