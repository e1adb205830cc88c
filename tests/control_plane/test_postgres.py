"""The control plane on a real PostgreSQL, under a whole installation."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from bucketwatch.local.servers import RedisServer
from scanning.core import redis_keys
from tests.support import postgres
from tests.support.notifications import queued
from tests.support.postgres import PostgresServer
from tests.support.product import Product
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(bool(postgres.missing()), reason=f"PostgreSQL: {postgres.missing()}"),
]

# Four operators change the same bucket at the same time, each another field, and one adds buckets.
EDITS = """
import threading
from django.db import connection

def change(field, values):
    for value in values:
        services.update_bucket(bucket=selectors.bucket_named("media-in"), **{field: value})
    connection.close()

def add():
    credential = selectors.bucket_named("media-in").credential
    for number in range(5):
        services.add_bucket(name=f"more-{number}", region="r", credential=credential)
    connection.close()

work = [
    (change, "polling_interval", range(100, 110)),
    (change, "suffix", [f".{n}" for n in range(10)]),
    (change, "webhook_url", [f"https://hook.example.com/{n}" for n in range(10)]),
    (change, "lanes", [1 + n % 9 for n in range(10)]),
    (add,),
]
threads = [threading.Thread(target=target, args=args) for target, *args in work]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


@pytest.fixture(scope="module")
def database() -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"), appendonly=True)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def product(
    tmp_path_factory: pytest.TempPathFactory, database: PostgresServer, store: RedisServer
) -> Iterator[Product]:
    """One installation for all tests here; it is migrated when it is made."""
    directory = tmp_path_factory.mktemp("product")
    built = Product(directory, redis_url=store.url, DATABASE_URL=database.url)
    try:
        built.wait_until_ready()
        yield built
    finally:
        built.clear_away()


def ready(product: Product) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"{product.url}/ready", timeout=30) as answer:
            body: dict[str, Any] = json.load(answer)
    except urllib.error.HTTPError as refusal:
        with refusal:
            body = json.load(refusal)
    return body


def announced(client: redis.Redis, name: str) -> list[str]:
    """The keys of one bucket in the queue: all tests here share it, in any order."""
    return [event["key"] for event in queued(client) if event["bucket"] == name]


def last_scan(product: Product, name: str) -> str:
    return product.call(f"print(selectors.bucket_named({name!r}).last_scan_at)").strip()


def test_a_bucket_is_added_mirrored_scanned_and_its_status_stored(product, store, s3_server):
    name = s3_server.bucket()
    s3_server.put(name, "key")
    product.add(name, s3_server)
    with store.client() as client:
        eventually(lambda: announced(client, name) == ["key"])
    eventually(lambda: last_scan(product, name) != "None")


def test_what_several_people_save_at_once_is_all_kept_and_mirrored(product, store):
    product.call("services.add_bucket(name='media-in', region='r', access_key='A', secret_key='S')")
    product.call(EDITS)
    with store.client() as client:

        def mirrored() -> bool:
            stored = json.loads(client.get(redis_keys.config("media-in")))
            ours = stored["bucketwatch"]
            found = (ours["polling_interval"], ours["suffix"], stored["webhook_url"], ours["lanes"])
            assert found == (109, ".9", "https://hook.example.com/9", 1)
            assert all(client.exists(redis_keys.config(f"more-{number}")) for number in range(5))
            return True

        eventually(mirrored)
    waiting = "from buckets.models import Outbox; print(Outbox.objects.count())"
    eventually(lambda: product.call(waiting).strip() == "0")


def test_late_buckets_are_found_by_their_names(product, s3_server):
    name = s3_server.bucket()
    product.add(name, s3_server)
    shown = product.call(
        "from buckets.models import Bucket\n"
        f"late = [{name!r}, *(str(n) for n in range(100_000))]\n"
        "found = selectors.in_state(Bucket.objects.all(), selectors.State.LATE, late=late)\n"
        "print([bucket.name for bucket in found], selectors.state_counts(late=late)['late'])"
    )
    assert shown.strip() == f"['{name}'] 1"


def test_while_it_is_stopped_scanning_goes_on_and_the_status_catches_up(
    product, database, store, s3_server
):
    name = s3_server.bucket()
    product.add(name, s3_server)
    eventually(lambda: last_scan(product, name) != "None")
    before = last_scan(product, name)
    database.stop()
    try:
        s3_server.put(name, "meanwhile")
        with store.client() as client:
            eventually(lambda: announced(client, name) == ["meanwhile"])
        assert "database" in ready(product)["error"]
    finally:
        database.start()
    product.wait_until_ready()
    eventually(lambda: last_scan(product, name) > before)
    assert product.process.poll() is None
