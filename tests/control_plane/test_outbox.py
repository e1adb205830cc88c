"""What the database says reaches Redis: at once, or as soon as Redis is there; never backwards."""

import json
from threading import Event, Thread
from typing import Any

import pytest
from django.db import connection, transaction

from buckets import services
from buckets.models import Bucket, Credential, Outbox
from buckets.sync import outbox
from scanning import wiring

pytestmark = pytest.mark.django_db(transaction=True)

CONFIG = "linode:objstore:config:bucket:"


def add(name: str = "media-in", **values: Any) -> Bucket:
    return services.add_bucket(
        name=name, **{"region": "us-iad-1", "access_key": "A", "secret_key": "S"} | values
    )


def interval(name="media-in") -> int | None:
    return wiring.background().bucket_configs.load().buckets[name].polling_interval_s


@pytest.fixture
def redis(redis_server):
    with redis_server.client() as client:
        yield client


def document(redis, name="media-in"):
    return json.loads(redis.get(CONFIG + name))


def test_a_bucket_is_mirrored_with_the_documented_members(redis):
    bucket = add(
        webhook_url="https://api.example.com/hook",
        webhook_client_id="me",
        webhook_client_secret="client-secret",
        webhook_token_url="https://auth.example.com/token",
        polling_interval=30,
        polling_longest=600,
    )

    assert document(redis) == {
        "name": "media-in",
        "endpoint": "us-iad-1.linodeobjects.com",
        "webhook_url": "https://api.example.com/hook",
        "webhook_auth": {
            "type": "oauth2",
            "client_id": "me",
            "token_url": "https://auth.example.com/token",
        },
        "status": "active",
        "added_at": bucket.added_at.strftime("%Y-%m-%dT%H:%M:%S"),
        "updated_at": bucket.updated_at.strftime("%Y-%m-%dT%H:%M:%S"),
        "bucketwatch": {
            "region": "us-iad-1",
            "credential": "MEDIA_IN",
            "generation": bucket.generation,
            "polling_interval": 30,
            "polling_longest": 600,
            "probe_interval": None,
            "fetch_metadata": True,
            "trust_etags": False,
            "prefix": "",
            "suffix": "",
            "events": ["created", "updated", "detected"],
            "first_scan": "announce",
            "lanes": None,
            "requests_per_day": None,
            "most_objects": None,
            "taken_over": False,
        },
    }
    assert not Outbox.objects.exists()


def test_a_change_and_a_deletion_are_mirrored_too(redis):
    bucket = add(webhook_url="https://api.example.com/hook")
    flag = "linode:objstore:config:media-in:notifications_disabled"

    services.update_bucket(bucket=bucket, monitoring_enabled=False, notifications_enabled=False)
    assert document(redis)["status"] == "paused"
    assert redis.get(flag) == "true"

    services.set_notifications(bucket=bucket, enabled=True)
    assert redis.get(flag) is None

    services.delete_bucket(bucket=bucket)
    assert redis.get(CONFIG + "media-in") is None
    assert wiring.background().bucket_configs.load().buckets == {}


def test_a_webhook_client_that_was_removed_is_removed_from_redis(redis):
    bucket = add(
        webhook_url="https://api.example.com/hook",
        webhook_client_id="me",
        webhook_client_secret="client-secret",
        webhook_token_url="https://auth.example.com/token",
    )

    services.update_bucket(bucket=bucket, webhook_client_id="", webhook_token_url="")

    assert "webhook_auth" not in document(redis)


def test_whatever_saves_or_deletes_a_bucket_is_mirrored(redis):
    credential = services.add_credential(name="shared", access_key="A", secret_key="S")
    bucket = Bucket(name="by-hand", region="r", endpoint="e.example.com", credential=credential)
    bucket.save()
    assert document(redis, "by-hand")["endpoint"] == "e.example.com"

    bucket.name = "renamed"
    bucket.save()
    assert redis.get(CONFIG + "by-hand") is None
    assert document(redis, "renamed")["name"] == "renamed"

    credential.vault_prefix = "OTHER"
    credential.save()
    assert document(redis, "renamed")["bucketwatch"]["credential"] == "OTHER"

    Bucket.objects.filter(name="renamed").delete()
    assert redis.get(CONFIG + "renamed") is None


def test_nothing_is_mirrored_before_the_commit_and_nothing_after_a_roll_back(redis):
    def add_and_fail() -> None:
        with transaction.atomic():
            add()
            assert redis.get(CONFIG + "media-in") is None
            raise RuntimeError

    with pytest.raises(RuntimeError):
        add_and_fail()

    assert redis.get(CONFIG + "media-in") is None
    assert outbox.catch_up()
    assert wiring.background().bucket_configs.revisions() == {}


def test_members_of_other_programs_survive(redis):
    bucket = add()
    theirs = document(redis) | {"note": "theirs"}
    theirs["bucketwatch"]["colour"] = "red"
    redis.set(CONFIG + "media-in", json.dumps(theirs))

    services.update_bucket(bucket=bucket, polling_interval=9)

    assert document(redis)["note"] == "theirs"
    assert document(redis)["bucketwatch"]["colour"] == "red"
    assert interval() == 9


def test_a_bucket_that_only_redis_knows_is_left_alone(redis):
    redis.set(CONFIG + "unmanaged", '{"name": "unmanaged", "endpoint": "e"}')
    services.delete_bucket(bucket=add())

    assert outbox.catch_up()

    assert redis.get(CONFIG + "unmanaged") == '{"name": "unmanaged", "endpoint": "e"}'
    assert "unmanaged" not in wiring.background().bucket_configs.load().buckets


def test_with_redis_down_a_save_succeeds_and_catching_up_writes_it_later(redis_server):
    kept, gone = add("kept"), add("gone")
    redis_server.stop()

    services.update_bucket(bucket=kept, polling_interval=9)
    services.delete_bucket(bucket=gone)
    add("new")
    assert Outbox.objects.count() == 3
    assert outbox.catch_up() is False
    assert outbox.flush() is False
    assert Outbox.objects.count() == 3

    redis_server.start()
    assert outbox.catch_up() is True
    assert not Outbox.objects.exists()
    # A server that was stopped may bring back what was there before it was emptied.
    names = set(wiring.background().bucket_configs.load().buckets)
    assert names >= {"kept", "new"}
    assert "gone" not in names
    assert interval("kept") == 9


def test_an_absent_redis_is_waited_for_once_and_not_at_every_save(redis_server, monkeypatch):
    redis_server.stop()
    tries = []
    flush = outbox.flush

    def counted() -> bool:
        tries.append(1)
        return flush()

    monkeypatch.setattr(outbox, "flush", counted)

    for number in range(5):
        add(f"bucket-{number}")

    assert len(tries) == 1
    assert Outbox.objects.count() == 5


def test_a_redis_that_was_emptied_is_filled_again(redis):
    add()
    add("other")
    redis.flushall()

    assert outbox.catch_up() is True

    assert set(wiring.background().bucket_configs.load().buckets) == {"media-in", "other"}
    assert not Outbox.objects.exists()


def test_catching_up_writes_nothing_when_there_is_nothing_to_write(redis):
    add()
    version = wiring.background().bucket_configs.version()

    assert outbox.catch_up() is True

    assert wiring.background().bucket_configs.version() == version


def test_a_database_that_was_replaced_still_reaches_redis(redis):
    add(polling_interval=5)
    Bucket.objects.all().delete()
    Credential.objects.all().delete()
    connection.cursor().execute("DELETE FROM buckets_revision")

    add(polling_interval=6)

    assert interval() == 6


def test_one_key_that_redis_refuses_does_not_hold_up_the_others(redis, caplog):
    redis.rpush(CONFIG + "spoilt", "not a string")
    add("spoilt")
    add("fine")

    assert outbox.flush() is False
    assert set(Outbox.objects.values_list("bucket", flat=True)) == {"spoilt"}
    assert outbox.flush() is False
    assert caplog.text.count("spoilt: its configuration is not in Redis yet") == 1
    assert "fine" in wiring.background().bucket_configs.load().buckets

    redis.delete(CONFIG + "spoilt")
    assert outbox.flush() is True
    assert "spoilt" in wiring.background().bucket_configs.load().buckets


class Interrupted:
    """A store before whose first write something else happens."""

    def __init__(self, happens) -> None:
        self._store = wiring.background().bucket_configs
        self._happens = happens

    def __getattr__(self, name: str) -> Any:
        happens, self._happens = self._happens, None
        if happens:
            happens()
        return getattr(self._store, name)


def test_a_flush_that_was_overtaken_does_not_put_back_what_it_read(redis, monkeypatch):
    bucket = add(polling_interval=1)

    def overtake() -> None:
        services.update_bucket(bucket=bucket, polling_interval=3)

    store = Interrupted(overtake)
    monkeypatch.setattr(wiring.interactive(), "bucket_configs", store)
    services.update_bucket(bucket=bucket, polling_interval=2)

    assert interval() == 3
    assert not Outbox.objects.exists()


def test_a_flush_that_a_deletion_overtook_does_not_bring_the_bucket_back(redis, monkeypatch):
    bucket = add()
    store = Interrupted(lambda: services.delete_bucket(bucket=bucket))
    monkeypatch.setattr(wiring.interactive(), "bucket_configs", store)

    services.update_bucket(bucket=bucket, polling_interval=2)

    assert wiring.background().bucket_configs.load().buckets == {}


def test_the_newest_of_late_writes_wins_in_any_order(redis):
    """Deleted, added and deleted again, and the writes arrive in the wrong order."""
    bucket = add()
    stored, name = outbox.document(bucket), bucket.name
    [revision] = wiring.background().bucket_configs.revisions().values()
    store = wiring.background().bucket_configs

    assert store.remove(name, revision=revision + 3)
    store.remove(name, revision=revision + 1)
    assert store.put(name, stored, notifications=True, revision=revision + 2) is False

    assert store.load().buckets == {}


def test_a_change_while_a_flush_reads_is_not_lost(redis, monkeypatch):
    """The revision is read before the row: what is written may be newer than it, never older."""
    bucket = add(polling_interval=1)
    monkeypatch.setattr(outbox, "flush_after_commit", lambda: None)
    services.update_bucket(bucket=bucket, polling_interval=2)
    changed: list[str] = []

    def change_before_the_row_is_read(execute, sql: str, *arguments: Any) -> Any:
        reads_rows = sql.startswith("SELECT") and 'FROM "buckets_bucket"' in sql
        if reads_rows and not changed:
            changed.append(sql)
            services.update_bucket(bucket=bucket, polling_interval=3)
        return execute(sql, *arguments)

    with connection.execute_wrapper(change_before_the_row_is_read):
        outbox.flush()
    assert changed
    assert Outbox.objects.count() == 1
    outbox.flush()

    assert interval() == 3
    assert not Outbox.objects.exists()


def test_flushes_from_many_threads_end_with_what_the_database_says(redis):
    buckets = [add(f"bucket-{number}") for number in range(3)]
    stop = Event()
    seen: list[dict[str, int]] = []
    failures: list[Exception] = []

    def change(bucket: Bucket) -> None:
        try:
            for seconds in range(1, 16):
                services.update_bucket(bucket=bucket, polling_interval=seconds)
                outbox.flush()
        except Exception as exc:  # noqa: BLE001 - told to the test
            failures.append(exc)
        finally:
            connection.close()

    def watch() -> None:
        while not stop.is_set():
            seen.append(wiring.background().bucket_configs.revisions())

    threads = [Thread(target=change, args=[bucket]) for bucket in buckets for _ in range(2)]
    watcher = Thread(target=watch)
    for thread in [*threads, watcher]:
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    watcher.join()

    assert failures == []
    for bucket in buckets:
        stored = Bucket.objects.get(pk=bucket.pk)
        assert interval(bucket.name) == stored.polling_interval
        revisions = [view[bucket.name] for view in seen]
        assert revisions == sorted(revisions)
    assert not Outbox.objects.exists()
