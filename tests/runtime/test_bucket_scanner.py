"""`BucketScanner` as documented: a real S3 server, its states and events in real Redis."""

import json
import os
import queue
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from scanning import wiring
from scanning.adapters.s3.storage import S3ClientCache
from scanning.config.settings import DefaultsSection, EngineSettings
from scanning.core import redis_keys
from scanning.core.types import BucketConfig, EventType, ScanResult
from scanning.runtime.bucket_scanner import BucketScanner, bucket_of
from tests.support import engine_buckets
from tests.support.notifications import QUEUE, queued
from tests.support.processes import ROOT
from tests.support.servers import LOCAL


@pytest.fixture
def clients():
    cache = S3ClientCache(LOCAL)
    yield cache
    cache.clear_cache()


@pytest.fixture
def scan(redis_server, s3_server, clients):
    """Scan a bucket as the documentation shows; gives the result."""

    def run(
        name: str, clock: Callable[[], float] = time.time, **configuration: object
    ) -> ScanResult:
        document = {
            "name": name,
            "endpoint": s3_server.url,
            "access_key": s3_server.access_key,
            "secret_key": s3_server.secret_key,
            "region": "test-region",
        } | configuration
        results: queue.Queue[ScanResult] = queue.Queue()
        with redis_server.client() as client:
            BucketScanner(document, client, wiring.conf(), results, clients, clock=clock).run()
        return results.get_nowait()

    return run


def events(store: redis.Redis) -> list[dict[str, Any]]:
    return queued(store)


def test_a_segment_that_redis_lost_ends_the_scan_and_its_objects_are_not_announced_again(
    scan, s3_server, store
):
    name = s3_server.bucket()
    s3_server.put(name, "key")
    assert scan(name).ok
    [manifest] = [key for key in store.scan_iter() if key.endswith(f"{name}:0:manifest")]
    [segment] = store.hkeys(manifest)
    store.hdel(manifest, segment)
    store.delete(QUEUE)

    result = scan(name)

    assert not result.ok
    assert "a part of its state in Redis is missing or broken" in result.error
    assert events(store) == []


def test_a_new_object_is_announced_once_with_every_documented_member(scan, s3_server, store):
    name = s3_server.bucket()
    s3_server.put(name, "a/b c.mp4", b"film", ContentType="video/mp4", Metadata={"shot": "7"})
    before = time.time()

    assert scan(name).ok
    assert scan(name).counts.changes == 0

    [event] = events(store)
    listed = s3_server.client().list_objects_v2(Bucket=name)["Contents"][0]
    assert event | {"event_id": "", "sequencer": "", "detection_time": 0} == {
        "bucket": name,
        "key": "a/b c.mp4",
        "region": s3_server.url.removeprefix("http://"),
        "etag": listed["ETag"].strip('"'),
        "size": 4,
        "last_modified": listed["LastModified"].timestamp(),
        "event_type": "created",
        "content_type": "video/mp4",
        "metadata": {"shot": "7"},
        "detection_time": 0,
        "is_recent": True,
        "retry_count": 0,
        "event_id": "",
        "sequencer": "",
    }
    assert before <= event["detection_time"] <= time.time()
    stored = json.loads(store.get(f"linode:objstore:state:{name}:a/b c.mp4"))
    assert stored.keys() == {"etag", "last_modified", "size", "last_processed"}


def test_an_overwritten_object_is_updated_and_says_what_was_before(scan, s3_server, store):
    name = s3_server.bucket()
    s3_server.put(name, "key", b"one")
    scan(name)
    s3_server.put(name, "key", b"two!")
    assert scan(name).counts.updated == 1

    created, updated = events(store)
    assert updated["event_type"] == "updated"
    assert updated["previous"] == {k: created[k] for k in ("etag", "size", "last_modified")}
    assert created["event_id"] != updated["event_id"]
    assert created["sequencer"] < updated["sequencer"]


def test_all_pages_of_a_bucket_are_seen_whatever_the_batch_size(scan, s3_server, store, settings):
    name = s3_server.bucket()
    wanted = [f"key-{number:02d}" for number in range(25)]
    for key in wanted:
        s3_server.put(name, key)
    defaults = settings.SCANNING.defaults.model_copy(update={"max_objects_per_batch": 10})
    settings.SCANNING = settings.SCANNING.model_copy(update={"defaults": defaults})

    result = scan(name)

    assert (result.counts.objects, result.counts.pages) == (25, 3)
    assert [event["key"] for event in events(store)] == wanted


def test_the_older_monitors_expiry_on_the_queue_is_taken_away(scan, s3_server, store):
    name = s3_server.bucket()
    s3_server.put(name, "key")
    store.rpush(QUEUE, "{}")
    store.expire(QUEUE, 604800)
    scan(name)
    assert store.ttl(QUEUE) == -1


def test_a_state_written_by_the_older_monitor_counts(scan, s3_server, store):
    name = s3_server.bucket()
    s3_server.put(name, "key")
    listed = s3_server.client().list_objects_v2(Bucket=name)["Contents"][0]
    state = {
        "etag": listed["ETag"].strip('"'),
        "last_modified": listed["LastModified"].timestamp(),
        "size": 1,
        "last_processed": time.time() - 60,
        "last_seen": time.time() - 60,
    }
    store.set(f"linode:objstore:state:{name}:key", json.dumps(state))
    assert scan(name).counts.changes == 0
    assert events(store) == []


def test_an_unchanged_objects_state_is_written_again_before_it_expires(scan, s3_server, store):
    name = s3_server.bucket()
    s3_server.put(name, "key")
    scan(name)
    key = f"linode:objstore:state:{name}:key"
    store.expire(key, 100)

    assert scan(name, clock=lambda: time.time() + 0.8 * 2592000).counts.changes == 0

    assert store.ttl(key) > 2591000
    assert len(events(store)) == 1


def test_states_are_removed_when_they_are_switched_off_and_come_back(
    scan, s3_server, store, settings
):
    name = s3_server.bucket()
    s3_server.put(name, "key")
    scan(name)
    for wanted in (False, True):
        redis_conf = settings.SCANNING.redis.model_copy(update={"object_states": wanted})
        settings.SCANNING = settings.SCANNING.model_copy(update={"redis": redis_conf})
        assert scan(name).counts.changes == 0
        assert bool(store.exists(f"linode:objstore:state:{name}:key")) is wanted


def test_a_deleted_object_is_announced_to_those_who_ask(scan, s3_server, store):
    name = s3_server.bucket()
    s3_server.put(name, "gone", b"1")
    s3_server.put(name, "stays", b"2")
    wanted = {"bucketwatch": {"region": "r", "events": ["created", "deleted"], "taken_over": True}}
    scan(name, **wanted)
    s3_server.client().delete_object(Bucket=name, Key="gone")
    assert scan(name, **wanted).counts.deleted == 1

    created, _, deleted = events(store)
    same = ("etag", "size", "last_modified")
    assert {k: deleted[k] for k in same} == {k: created[k] for k in same} == deleted["previous"]
    assert (deleted["event_type"], deleted["content_type"]) == (
        "deleted",
        "application/octet-stream",
    )
    assert not store.exists(f"linode:objstore:state:{name}:gone")
    assert scan(name, **wanted).counts.changes == 0


def test_an_emptied_bucket_is_held_until_it_is_released(scan, s3_server, store, settings):
    deletions = settings.SCANNING.deletions.model_copy(update={"mass_minimum": 1})
    settings.SCANNING = settings.SCANNING.model_copy(update={"deletions": deletions})
    name = s3_server.bucket()
    s3_server.put(name, "key")
    wanted = {"bucketwatch": {"region": "r", "events": ["deleted"], "taken_over": True}}
    scan(name, **wanted)
    s3_server.client().delete_object(Bucket=name, Key="key")
    held = scan(name, **wanted)
    assert held.held is not None
    assert (held.held.missing, held.held.known) == (1, 1)
    assert scan(name, **wanted).held == held.held
    assert events(store) == []
    store.hset(redis_keys.bucket(name), "released", "1")
    assert scan(name, **wanted).held is None
    assert [event["event_type"] for event in events(store)] == ["deleted"]


def test_a_first_scan_as_baseline_announces_nothing_but_knows_everything(scan, s3_server, store):
    name = s3_server.bucket()
    s3_server.put(name, "before")
    wanted = {"bucketwatch": {"region": "r", "first_scan": "baseline"}}
    scan(name, **wanted)
    s3_server.put(name, "after")
    scan(name, **wanted)
    assert [event["key"] for event in events(store)] == ["after"]


def test_a_full_queue_pauses_scanning_and_loses_nothing(scan, s3_server, store, settings):
    name = s3_server.bucket()
    s3_server.put(name, "key")
    queue_conf = settings.SCANNING.queue.model_copy(update={"high_water": 1})
    settings.SCANNING = settings.SCANNING.model_copy(update={"queue": queue_conf})
    store.rpush(QUEUE, "{}")
    assert "high-water mark" in scan(name).error
    store.delete(QUEUE)
    assert scan(name).counts.created == 1


def test_a_queue_of_the_wrong_type_loses_nothing(scan, s3_server, store):
    name = s3_server.bucket()
    s3_server.put(name, "key")
    store.set(QUEUE, "somebody else's")

    result = scan(name)

    assert not result.ok
    assert QUEUE in result.error
    assert "another type" in result.error
    assert not store.exists(f"linode:objstore:state:{name}:key")
    store.delete(QUEUE)
    assert scan(name).counts.created == 1


def test_wrong_keys_are_an_error_in_words_and_write_nothing(scan, s3_server, store):
    name = s3_server.bucket()
    s3_server.put(name, "key")
    result = scan(name, secret_key="wrong")
    assert result.permanent
    assert result.error_class == "CredentialsRejected"
    assert "wrong" not in result.error
    assert events(store) == []


def test_a_document_without_an_endpoint_is_at_the_configured_one():
    conf = EngineSettings(defaults=DefaultsSection(endpoint="s3.example.com"))
    bucket = bucket_of({"name": "media-in"}, conf)
    assert (bucket.endpoint, bucket.region) == ("s3.example.com", "s3.example.com")


@pytest.mark.parametrize("managed", [True, False])
def test_a_document_whose_notifications_redis_has_switched_off_announces_nothing(
    scan, s3_server, store, managed
):
    name = s3_server.bucket()
    s3_server.put(name, "before")
    if managed:
        engine_buckets.put(name, region="test-region", notifications=False)
    else:
        store.set(redis_keys.notifications_disabled(name), "true")

    assert scan(name).counts.created == 1
    assert events(store) == []

    if managed:
        engine_buckets.put(name, region="test-region")
    else:
        store.delete(redis_keys.notifications_disabled(name))
    s3_server.put(name, "after")
    assert scan(name).counts.created == 1
    assert [event["key"] for event in events(store)] == ["after"]


def test_a_document_switched_off_while_it_is_scanned_is_not_announced(s3_server, store, clients):
    name = s3_server.bucket()
    s3_server.put(name, "key")
    document = engine_buckets.document(name, endpoint=s3_server.url, region="test-region")
    pair = {"access_key": s3_server.access_key, "secret_key": s3_server.secret_key}
    engine_buckets.put(name, endpoint=s3_server.url, region="test-region")

    def switch_off() -> None:
        engine_buckets.put(name, endpoint=s3_server.url, region="test-region", notifications=False)

    client = wiring.background().connection.client
    scanner = BucketScanner(
        document | pair, client, wiring.conf(), None, clients, keep_going=switch_off
    )
    scanner.run()

    assert scanner.result is not None
    assert scanner.result.error_class == "ConfigurationChanged"
    assert events(store) == []


@pytest.mark.parametrize("kind", ["clients", "settings", "URLs"])
def test_the_older_monitors_two_redis_clients_are_taken(
    s3_server, store, redis_server, clients, kind
):
    name = s3_server.bucket()
    s3_server.put(name, "key")
    pair = {"access_key": s3_server.access_key, "secret_key": s3_server.secret_key}
    document = {"name": name, "endpoint": s3_server.url} | pair
    kinds: dict[str, Any] = {
        "clients": store,
        "settings": {"host": "127.0.0.1", "port": redis_server.port},
        "URLs": redis_server.url,
    }
    both = {"master": kinds[kind], "slave": None}
    scanner = BucketScanner(document, both, {}, None, clients)
    scanner.run()

    assert scanner.result is not None
    assert scanner.result.error == ""
    assert [event["key"] for event in events(store)] == ["key"]


_PROGRAM = """
import json, queue, sys, redis
from scanning.adapters.s3 import S3ClientCache
from scanning.scanner import BucketScanner
results, clients = queue.Queue(), S3ClientCache()
bucket = {"name": "media-in", "endpoint": "127.0.0.1:1", "access_key": "A", "secret_key": "S"}
client, configuration = redis.Redis.from_url(sys.argv[1]), json.loads(sys.argv[2])
BucketScanner(bucket, client, configuration, results, clients).run()
print(results.get().error_class, clients.get_stats()["total_clients"])
"""
ALLOWED = {"security": {"allow_private_endpoints": True}}
REFUSED = {"security": {"allow_private_endpoints": False}}


@pytest.mark.parametrize(
    ("environment", "configuration", "error"),
    [
        pytest.param("", {}, "AddressRefused", id="nobody allows it"),
        pytest.param("true", {}, "StorageUnavailable", id="the environment"),
        pytest.param("", ALLOWED, "StorageUnavailable", id="global_config"),
        pytest.param("true", {"storage": {}}, "StorageUnavailable", id="another section"),
        pytest.param("true", REFUSED, "AddressRefused", id="global_config has the last word"),
    ],
)
def test_a_program_that_knows_nothing_of_django_scans_by_the_settings_in_force(
    redis_server, environment, configuration, error
):
    environ = {name: value for name, value in os.environ.items() if not name.startswith("DJANGO_")}
    environ["SECURITY_ALLOW_PRIVATE_ENDPOINTS"] = environment
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, redis_server.url, json.dumps(configuration)],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, f"{error} 1\n"), done.stderr


def test_a_missing_bucket_is_not_an_empty_one(scan, s3_server, store):
    result = scan("never-created")
    assert result.error_class == "BucketNotFound"
    assert store.get(redis_keys.last_scan("never-created")) is None


def test_a_bucket_that_is_being_scanned_is_left_alone(scan, s3_server, store):
    name = s3_server.bucket()
    s3_server.put(name, "key")
    store.zadd(redis_keys.running("test-region"), {name: time.time() + 60})
    result = scan(name)
    assert result.error_class == "LeaseLost"
    assert events(store) == []


def test_a_complete_scan_records_when_it_began(scan, s3_server, store):
    name = s3_server.bucket()
    result = scan(name)
    assert float(store.get(redis_keys.last_scan(name))) == result.began
    assert store.zcard(redis_keys.running("test-region")) == 0


def test_a_bucket_changed_since_its_configuration_was_read_is_not_scanned(scan, s3_server, store):
    name = s3_server.bucket()
    s3_server.put(name, "key")
    engine_buckets.put(name, region="test-region", generation=2)
    before = {"bucketwatch": {"region": "test-region", "generation": 1}}
    result = scan(name, **before)
    assert (result.error_class, result.error) == (
        "ConfigurationChanged",
        f"{name}: changed since it was read",
    )
    assert events(store) == []
    assert store.zcard(redis_keys.running("test-region")) == 0
    assert scan(name, bucketwatch={"region": "test-region", "generation": 2}).counts.created == 1


BOTH = {"events": ["created", "updated"]}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param({"notifications": False}, {"notifications": True}, id="notifications"),
        pytest.param({"events": ["updated"]}, BOTH, id="event types"),
        pytest.param(BOTH | {"suffix": ".jpg"}, BOTH | {"suffix": ""}, id="suffix"),
    ],
)
def test_what_is_switched_on_counts_for_a_scan_that_is_running_too(
    s3_server, store, clients, before, after
):
    """An object that comes after it was switched on, and is listed by a scan from before."""
    name = s3_server.bucket()

    def put(*, notifications: bool = True, **members: object) -> BucketConfig:
        described = engine_buckets.document(name, endpoint=s3_server.url)["bucketwatch"] | members
        return engine_buckets.put_real(
            s3_server, name, notifications=notifications, bucketwatch=described
        )

    def scan(bucket: BucketConfig, keep_going: Callable[[], None] = lambda: None) -> str:
        client = wiring.background().connection.client
        scanner = BucketScanner(bucket, client, wiring.conf(), None, clients, keep_going=keep_going)
        scanner.run()
        assert scanner.result is not None
        return scanner.result.error_class

    def switch_on() -> None:
        put(**after)

    bucket = put(**before)
    s3_server.put(name, "key")
    assert scan(bucket, switch_on) == "ConfigurationChanged"
    assert scan(put(**after)) == ""
    assert [event["key"] for event in events(store)] == ["key"]


def test_a_document_without_a_generation_is_scanned_as_the_one_that_there_is(
    scan, s3_server, store
):
    name = s3_server.bucket()
    s3_server.put(name, "key")
    engine_buckets.put(name, region="test-region", generation=7)
    assert scan(name).counts.created == 1
    assert store.exists(redis_keys.manifest(name, 7))
    assert scan(name).counts.changes == 0


@pytest.mark.parametrize(("first_scan", "announced"), [("announce", ["in/b"]), ("baseline", [])])
def test_a_changed_prefix_announces_no_deletion_and_begins_as_a_first_scan_does(
    scan, s3_server, store, first_scan, announced
):
    name = s3_server.bucket()
    for key in ("in/b", "out/a"):
        s3_server.put(name, key)

    def incarnation(generation: int, prefix: str) -> dict[str, Any]:
        engine_buckets.put(name, region="test-region", generation=generation)
        ours = {"region": "test-region", "generation": generation, "prefix": prefix}
        return {"bucketwatch": ours | {"first_scan": first_scan, "events": list(EventType)}}

    scan(name, **incarnation(1, ""))
    store.delete(QUEUE)
    assert scan(name, **incarnation(2, "in/")).counts.objects == 1
    assert [(e["event_type"], e["key"]) for e in events(store)] == [
        ("created", key) for key in announced
    ]
    assert scan(name, **incarnation(2, "in/")).counts.changes == 0


def test_a_bucket_with_more_objects_than_it_may_have_says_so_and_is_scanned_on_time(
    s3_server, store, clients
):
    name = s3_server.bucket()
    for key in ("a", "b", "c", "d", "e"):
        s3_server.put(name, key)

    def scan_with(most_objects: int) -> ScanResult:
        members = {"region": "r", "generation": 1, "polling_interval": 60}
        limited = members | {"most_objects": most_objects, "fetch_metadata": False}
        bucket = engine_buckets.put_real(s3_server, name, bucketwatch=limited)
        engine_buckets.schedule(store, bucket)
        client = wiring.background().connection.client
        scanner = BucketScanner(bucket, client, wiring.conf(), None, clients)
        scanner.run()
        assert scanner.result is not None
        return scanner.result

    def hash_of(*fields: str) -> list[Any]:
        return list(store.hmget(redis_keys.bucket(name), fields))

    result = scan_with(3)
    assert result.error_class == "TooManyObjects"
    assert "has more than 3 objects" in result.error
    assert "or its own limit): 2 or more" in result.error
    assert [event["key"] for event in events(store)] == ["a", "b", "c"]
    due = store.zscore(redis_keys.due("r"), name)
    assert due is not None
    assert due < time.time() + 61  # as every bucket, not as one that fails
    assert hash_of("complete", "objects", "error_class") == [None, "3", "TooManyObjects"]

    assert scan_with(5).ok
    assert [event["key"] for event in events(store)] == ["a", "b", "c", "d", "e"]
    assert hash_of("complete", "objects", "error_class", "progress") == ["1", "5", None, None]

    s3_server.put(name, "f")
    assert scan_with(5).error_class == "TooManyObjects"
    assert hash_of("complete", "progress") == ["1", None]
    assert hash_of("warnings") == ['[["left_out", 1, "f"]]']
    s3_server.delete(name, "a", "b")
    assert scan_with(5).error_class == "TooManyObjects"
    assert scan_with(5).ok
    assert hash_of("objects", "error_class", "warnings") == ["4", None, None]
    assert [event["key"] for event in events(store)] == ["a", "b", "c", "d", "e", "f"]
