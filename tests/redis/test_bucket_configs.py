"""The mirror's counterpart in Redis: configurations that never go backwards and lose no member."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import pytest
import redis

from scanning import wiring
from scanning.adapters.redis.bucket_configs import BucketCache, BucketConfigStore, parse_bucket
from scanning.core import redis_keys
from scanning.core.endpoints import endpoint_url
from scanning.core.types import BucketConfig
from scanning.ports import Progress
from tests.support import engine_buckets
from tests.support.meddling import MeddlingConnection

T = TypeVar("T")
STATE = "linode:objstore:state:"


@pytest.fixture
def configuration(store) -> BucketConfigStore:
    return wiring.background().bucket_configs


def stored(store: redis.Redis, name: str = "bucket"):
    text = store.get(redis_keys.config(name))
    return json.loads(text) if text else None


def put(configuration: BucketConfigStore, revision: int, **given: Any) -> bool:
    notifications = given.pop("notifications", True)
    return configuration.put(
        "bucket",
        engine_buckets.document("bucket", **given),
        notifications=notifications,
        revision=revision,
    )


def test_what_is_put_can_be_loaded(configuration, store):
    assert put(configuration, 1, interval=30, webhook_url="https://x.example/hook")
    loaded = configuration.load()
    assert loaded.version == configuration.version() == 1
    assert loaded.buckets == {
        "bucket": BucketConfig(
            name="bucket",
            endpoint="s3.example.com",
            region=engine_buckets.REGION,
            credential="BUCKET",
            generation=1,
            polling_interval_s=30,
            fetch_metadata=False,
            webhook_url="https://x.example/hook",
            filter_fingerprint=store.hget(redis_keys.bucket("bucket"), "wants"),
        )
    }
    assert configuration.get("bucket") == loaded.buckets["bucket"]
    assert configuration.revisions() == {"bucket": 1}


def test_a_bucket_that_was_read_before_is_read_again_once_it_changed(configuration):
    cache = BucketCache(configuration)
    put(configuration, 1, interval=30)
    assert cache.get(["bucket", "unknown"]) == configuration.load().buckets
    put(configuration, 2, interval=40)
    assert cache.get(["bucket"])["bucket"].polling_interval_s == 40
    configuration.remove("bucket", revision=3)
    assert cache.get(["bucket"]) == {}


def test_a_bucket_that_changes_while_others_are_read_is_read_again_too(configuration):
    class ChangesMeanwhile(BucketConfigStore):
        def some(self, names: Sequence[str]) -> tuple[int, dict[str, BucketConfig]]:
            if "other" in names:
                put(configuration, 2, interval=40)
            return super().some(names)

    put(configuration, 1, interval=30)
    cache = BucketCache(ChangesMeanwhile(wiring.background().connection))
    assert cache.get(["bucket"])["bucket"].polling_interval_s == 30
    assert cache.get(["bucket", "other"])["bucket"].polling_interval_s == 40


def test_a_key_that_sql_never_knew_is_not_read_for_a_worker(configuration, store):
    store.set(redis_keys.config("stranger"), json.dumps(engine_buckets.document("stranger")))
    assert BucketCache(configuration).get(["stranger"]) == {}


def test_a_paused_and_a_silent_bucket_are_loaded_as_such(configuration, store):
    put(configuration, 1, status="paused", notifications=False)
    assert store.get(redis_keys.notifications_disabled("bucket")) == "true"
    bucket = configuration.load().buckets["bucket"]
    assert (bucket.active, bucket.notifications) == (False, False)
    put(configuration, 2)
    assert not store.exists(redis_keys.notifications_disabled("bucket"))
    bucket = configuration.load().buckets["bucket"]
    assert (bucket.active, bucket.notifications) == (True, True)


def test_every_change_moves_the_version(configuration):
    versions = [configuration.version()]
    for change in (lambda: put(configuration, 1), lambda: put(configuration, 2)):
        assert change()
        versions.append(configuration.version())
    configuration.remove("bucket", revision=3)
    versions.append(configuration.version())
    assert versions == [0, 1, 2, 3]


# --- never backwards


def test_an_older_put_changes_nothing(configuration, store):
    put(configuration, 5, webhook_url="new")
    before = engine_buckets.dump(store)
    assert not put(configuration, 4, webhook_url="old")
    assert engine_buckets.dump(store) == before


def test_the_same_revision_may_be_written_again(configuration, store):
    put(configuration, 5)
    assert put(configuration, 5)


def test_a_put_older_than_the_removal_does_not_bring_the_bucket_back(configuration, store):
    put(configuration, 5)
    configuration.remove("bucket", revision=7)
    assert not put(configuration, 6)
    assert stored(store) is None
    assert configuration.revisions() == {}


def test_a_removal_older_than_the_bucket_leaves_it(configuration, store):
    put(configuration, 5)
    before = engine_buckets.dump(store)
    assert not configuration.remove("bucket", revision=4)
    assert engine_buckets.dump(store) == before


def test_a_late_older_removal_does_not_open_the_door_for_an_older_put(configuration, store):
    put(configuration, 1)
    configuration.remove("bucket", revision=9)
    assert not configuration.remove("bucket", revision=7)
    assert not put(configuration, 8)
    assert stored(store) is None


def test_a_bucket_added_again_after_its_removal_is_there(configuration):
    put(configuration, 1, generation=1)
    configuration.remove("bucket", revision=2)
    assert put(configuration, 3, generation=2)
    assert configuration.load().buckets["bucket"].generation == 2


def test_a_bucket_that_is_another_one_now_is_due_and_was_never_scanned(configuration, store):
    put(configuration, 1, generation=1)
    store.set(redis_keys.last_scan("bucket"), "1000.0")
    store.sadd(redis_keys.REGIONS, engine_buckets.REGION)
    store.zadd(redis_keys.due(engine_buckets.REGION), {"bucket": 4e9})
    put(configuration, 2, generation=1, interval=30)
    assert store.zscore(redis_keys.due(engine_buckets.REGION), "bucket") == 4e9
    put(configuration, 3, generation=2)
    assert store.zscore(redis_keys.due(engine_buckets.REGION), "bucket") < 3e9
    assert not store.exists(redis_keys.last_scan("bucket"))


# --- what others wrote survives


def test_members_that_only_redis_has_survive(configuration, store):
    old = {"name": "bucket", "team": "video", "bucketwatch": {"lanes": 3, "region": "old"}}
    store.set(redis_keys.config("bucket"), json.dumps(old))
    put(configuration, 1)
    assert stored(store)["team"] == "video"
    assert stored(store)["bucketwatch"]["lanes"] == 3
    assert stored(store)["bucketwatch"]["region"] == engine_buckets.REGION


def test_a_member_of_another_program_survives_although_it_is_null(configuration, store):
    old = {"name": "bucket", "team": None, "webhook_auth": {"scope": None}}
    store.set(redis_keys.config("bucket"), json.dumps(old))
    put(configuration, 1, webhook_auth={"type": "oauth2", "client_secret": None})
    assert stored(store)["team"] is None
    assert stored(store)["webhook_auth"] == {"scope": None, "type": "oauth2"}


def test_a_webhook_secret_of_an_old_consumer_survives(configuration, store):
    auth = {"type": "oauth2", "client_id": "old", "client_secret": "s", "token_url": "https://t"}
    store.set(redis_keys.config("bucket"), json.dumps({"name": "bucket", "webhook_auth": auth}))
    ours = {"type": "oauth2", "client_id": "new", "token_url": "https://t2"}
    put(configuration, 1, webhook_auth=ours)
    assert stored(store)["webhook_auth"] == ours | {"client_secret": "s"}


def test_a_member_given_as_none_is_removed(configuration, store):
    put(configuration, 1, webhook_auth={"type": "oauth2", "client_id": "c", "token_url": "t"})
    put(configuration, 2, webhook_auth=None)
    assert "webhook_auth" not in stored(store)


@pytest.mark.parametrize(
    "broken",
    ["{", "[]", "null", '"text"', '{"bucketwatch": [], "webhook_auth": 1}', "\udcff", "[" * 10**5],
)
def test_a_broken_configuration_is_written_over(configuration, store, broken):
    store.set(redis_keys.config("bucket"), broken.encode(errors="surrogateescape"))
    assert put(configuration, 1, webhook_auth={"type": "oauth2"})
    assert configuration.load().buckets.keys() == {"bucket"}


def test_a_member_written_between_reading_and_writing_is_not_lost(store):
    """Somebody else's program changes the JSON while we are about to."""

    def meanwhile() -> None:
        store.set(redis_keys.config("bucket"), '{"team": "video"}')

    assert put(BucketConfigStore(MeddlingConnection(meanwhile)), 1)
    assert stored(store)["team"] == "video"


def test_a_bucket_leaves_a_region_that_came_while_it_was_being_removed(store):
    elsewhere = engine_buckets.put("bucket", region="elsewhere")
    configuration = BucketConfigStore(
        MeddlingConnection(lambda: engine_buckets.schedule(store, elsewhere))
    )
    assert configuration.remove("bucket", revision=10**6)
    assert not store.exists(redis_keys.due("elsewhere"))


# --- unmanaged keys


def test_a_key_that_sql_never_knew_is_neither_loaded_nor_deleted(configuration, store):
    text = json.dumps(engine_buckets.document("stranger"))
    store.set(redis_keys.config("stranger"), text)
    store.set(f"{STATE}stranger:key", "{}")
    put(configuration, 1)
    assert configuration.load().buckets.keys() == {"bucket"}
    configuration.remove("stranger", revision=2)
    assert store.get(redis_keys.config("stranger")) == text
    assert wiring.background().cleanup.run() == 0
    assert store.exists(f"{STATE}stranger:key")


def test_the_flag_of_a_bucket_called_bucket_is_no_configuration(configuration):
    put(configuration, 1, notifications=False)
    assert configuration.stored().keys() == {"bucket"}


# --- removal


def test_a_removed_bucket_leaves_no_key_but_its_states_until_they_are_cleared(configuration, store):
    bucket = engine_buckets.put("bucket")
    engine_buckets.schedule(store, bucket)
    leases = wiring.background().leases
    [claim] = leases.claim_due(bucket.region, limit=1, slots=1)
    leases.finish(claim, engine_buckets.result("bucket"), next_due=5.0)
    leases.claim_due(bucket.region, limit=1, slots=1)
    for number in range(3):
        store.set(f"{STATE}bucket:{number}", "{}")
    store.set(f"{STATE}bucket-2:key", "{}")

    engine_buckets.remove("bucket")

    assert sorted(key for key in store.scan_iter() if "bucket" in key) == [
        f"{STATE}bucket-2:key",
        *(f"{STATE}bucket:{number}" for number in range(3)),
    ]
    assert store.smembers(redis_keys.CLEARING) == {"bucket"}
    assert store.zcard(redis_keys.due(bucket.region)) == 0
    assert store.zcard(redis_keys.running(bucket.region)) == 0
    assert wiring.background().cleanup.run() == 3
    assert not store.exists(redis_keys.CLEARING)
    assert store.exists(f"{STATE}bucket-2:key")


def test_a_bucket_added_again_is_scanned_only_after_the_old_states_are_gone(store):
    bucket = engine_buckets.put("bucket")
    engine_buckets.schedule(store, bucket)
    store.set(f"{STATE}bucket:key", "{}")
    engine_buckets.remove("bucket")
    again = engine_buckets.put("bucket", generation=2)
    engine_buckets.schedule(store, again)
    leases = wiring.background().leases
    assert leases.claim_due(again.region, limit=1, slots=15) == []
    assert wiring.background().cleanup.run() == 1
    [claim] = leases.claim_due(again.region, limit=1, slots=15)
    assert (claim.generation, claim.commit) == (2, 0)


def test_a_bucket_that_became_another_one_is_listed_from_its_beginning(store):
    bucket = engine_buckets.put("bucket")
    hashed = redis_keys.bucket("bucket")
    store.hset(hashed, mapping={"progress": json.dumps(asdict(Progress(began=5.0, after="half")))})
    engine_buckets.put("bucket")
    assert wiring.background().states.open(bucket).progress == Progress(began=5.0, after="half")
    again = engine_buckets.put("bucket", generation=2)
    assert wiring.background().states.open(again).progress is None


# --- what cannot be read


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(None, id="deleted by hand"),
        pytest.param("", id="empty"),
        pytest.param("{", id="no JSON"),
        pytest.param("[1]", id="a list"),
        pytest.param("[" * 100_000, id="too deep"),
        pytest.param('{"name": "bucket"}', id="no endpoint"),
        pytest.param('{"endpoint": "e", "bucketwatch": [1]}', id="no object"),
        pytest.param('{"endpoint": "e", "bucketwatch": {"generation": "x"}}', id="no number"),
        pytest.param(
            '{"endpoint": "e", "bucketwatch": {"polling_interval": 1e999}}', id="infinity"
        ),
        pytest.param('{"endpoint": "e", "bucketwatch": {"polling_interval": -5}}', id="negative"),
    ],
)
def test_an_unreadable_configuration_is_left_out_and_named(configuration, store, text, caplog):
    engine_buckets.put("good")
    engine_buckets.put("bucket")
    if text is None:
        store.delete(redis_keys.config("bucket"))
    else:
        store.set(redis_keys.config("bucket"), text)
    assert configuration.load().buckets.keys() == {"good"}
    assert "bucket: its configuration in Redis cannot be read" in caplog.text


def test_a_configuration_of_another_type_does_not_hide_the_others(configuration, store):
    engine_buckets.put("good")
    engine_buckets.put("bucket")
    store.delete(redis_keys.config("bucket"))
    store.rpush(redis_keys.config("bucket"), "x")
    assert configuration.load().buckets.keys() == {"good"}


@pytest.mark.parametrize(
    ("document", "region", "url"),
    [
        ({"endpoint": "us-iad-1.linodeobjects.com"}, None, "https://us-iad-1.linodeobjects.com"),
        ({"endpoint": "http://localhost:9000"}, "localhost:9000", "http://localhost:9000"),
        ({"endpoint": "https://e.com/"}, "e.com", None),
        ({"endpoint": "e.com", "region": "r"}, "r", "https://e.com"),
        ({"endpoint": "e.com", "region": "r", "bucketwatch": {"region": "q"}}, "q", None),
    ],
)
def test_the_region_is_the_endpoints_host_unless_one_is_named(document, region, url):
    bucket = parse_bucket("media-in", json.dumps(document), notifications=True)
    assert bucket is not None
    assert bucket.region == (region or document["endpoint"])
    assert bucket.credential == "MEDIA_IN"
    assert url in {None, endpoint_url(bucket.endpoint)}
