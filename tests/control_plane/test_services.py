"""Writes of the control plane: what they store where, what they refuse, and what a crash leaves."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import redis
from django.contrib.admin.models import LogEntry
from django.contrib.auth.hashers import check_password
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import connection
from pydantic import SecretStr

from buckets import audit, selectors, services
from buckets.models import ApiClient, Bucket, Credential, Outbox
from buckets.services import buckets as bucket_services
from buckets.sync import vault_removals
from scanning import wiring
from scanning.adapters.vault.local import LocalVault
from scanning.config.settings import EngineSettings
from scanning.core import redis_keys
from scanning.core.errors import RedisUnavailable, VaultUnavailable
from scanning.core.types import KeyPair
from scanning.core.vault_names import halves_of

pytestmark = pytest.mark.django_db(transaction=True)

ACCESS, SECRET = "AKIAPLAINTOSEE", "wJalrPlainToSee/K7MDENG"


def add(name: str = "media-in", **values: Any) -> Bucket:
    pair = {} if "credential" in values else {"access_key": ACCESS, "secret_key": SECRET}
    return services.add_bucket(name=name, **{"region": "us-iad-1"} | pair | values)


def add_with_client(**values: Any) -> Bucket:
    return add(
        webhook_url="https://api.example.com/hook",
        webhook_client_id="me",
        webhook_client_secret="client-secret",
        webhook_token_url="https://auth.example.com/token",
        **values,
    )


def pairs() -> dict[str, KeyPair]:
    return dict(wiring.vault().read_all())


def entries() -> Mapping[str, str]:
    vault = wiring.vault()
    assert isinstance(vault, LocalVault)
    return vault._entries()


def secrets_stored() -> set[str]:
    return entries().keys() - {
        prefix + half for prefix in pairs() for half in ("_ACCESS_KEY", "_SECRET_KEY")
    }


def refusal(function: Callable[..., object], **arguments: Any) -> dict[str, list[str]]:
    with pytest.raises(ValidationError) as refused:
        function(**arguments)
    return refused.value.message_dict


def test_a_bucket_and_its_keys_are_added_together():
    bucket = add(polling_interval=30, monitoring_enabled=False, fetch_metadata=False)

    bucket.refresh_from_db()
    assert bucket.endpoint == "us-iad-1.linodeobjects.com"
    assert (bucket.polling_interval, bucket.monitoring_enabled) == (30, False)
    assert bucket.credential.name == "media-in"
    assert pairs() == {"MEDIA_IN": KeyPair(ACCESS, SECRET)}


def test_what_surrounds_a_value_is_trimmed():
    bucket = add(" media-in ", region=" us-iad-1 ", access_key=f" {ACCESS}\n", secret_key=SECRET)

    assert (bucket.name, bucket.region) == ("media-in", "us-iad-1")
    assert pairs()["MEDIA_IN"].access_key == ACCESS


def test_all_that_is_wrong_is_said_at_once_and_nothing_is_stored():
    refused = refusal(
        services.add_bucket,
        name="Media In",
        access_key="two words",
        webhook_client_id="me",
        polling_interval=0,
    )

    assert set(refused) == {
        "name",
        "region",
        "endpoint",
        "access_key",
        "secret_key",
        "polling_interval",
        "webhook_url",
        "webhook_token_url",
        "webhook_client_secret",
    }
    assert "two words" not in str(refused)
    assert pairs() == {}
    assert not Outbox.objects.exists()


@pytest.mark.parametrize(
    ("values", "field"),
    [
        pytest.param({"access_key": "", "secret_key": ""}, "access_key", id="no-keys"),
        pytest.param({"access_key": " "}, "access_key", id="blank-access-key"),
        pytest.param({"secret_key": ""}, "secret_key", id="no-secret-key"),
        pytest.param({"secret_key": "tab\there"}, "secret_key", id="control-character"),
        pytest.param({"secret_key": "x" * 1025}, "secret_key", id="endless"),
        pytest.param({"webhook_client_secret": "s"}, "webhook_client_id", id="secret-of-nobody"),
        pytest.param(
            {"webhook_client_id": "me", "webhook_client_secret": "two words"},
            "webhook_client_secret",
            id="client-secret",
        ),
    ],
)
def test_keys_that_are_none_are_refused_at_their_field(values, field):
    assert field in refusal(add, **values)
    assert not Bucket.objects.exists()


def test_a_credential_and_a_key_pair_together_are_refused():
    shared = services.add_credential(name="shared", access_key="A", secret_key="S")

    refused = refusal(add, credential=shared, access_key=ACCESS, secret_key=SECRET)

    assert "not both" in refused["credential"][0]


def test_a_bucket_that_exists_is_said_so_and_keeps_its_keys():
    add()

    with pytest.raises(services.BucketExists, match="media-in is watched already"):
        add(access_key="OTHER", secret_key="OTHER")

    assert pairs()["MEDIA_IN"].access_key == ACCESS


def test_two_who_add_the_same_bucket_at_once_do_not_mix_their_keys(monkeypatch):
    """The second one looks before the first has committed: the look finds nothing."""
    add()
    monkeypatch.setattr(bucket_services, "_refuse_taken_names", _blind_once())

    with pytest.raises(services.BucketExists):
        add(access_key="OTHER", secret_key="OTHER")

    assert pairs()["MEDIA_IN"].access_key == ACCESS


def test_the_same_with_a_shared_credential(monkeypatch):
    shared = services.add_credential(name="shared", access_key="A", secret_key="S")
    add()
    monkeypatch.setattr(bucket_services, "_refuse_taken_names", _blind_once())

    with pytest.raises(services.BucketExists):
        add(credential=shared)


def _blind_once() -> Callable[..., None]:
    looks = iter([True])
    look = bucket_services._refuse_taken_names

    def blind_once(name: str, **arguments: bool) -> None:
        if not next(looks, False):
            look(name, **arguments)

    return blind_once


def test_a_collision_of_vault_names_says_whose_they_are():
    shared = services.add_credential(name="media_in", access_key="A", secret_key="S")
    add("other", credential=shared)

    [message] = refusal(add)["name"]

    assert "MEDIA_IN_ACCESS_KEY" in message
    assert "credential media_in, used by bucket other" in message
    assert pairs()["MEDIA_IN"] == KeyPair("A", "S")
    assert not Bucket.objects.filter(name="media-in").exists()


def test_credentials_collide_with_each_other_and_with_buckets_too():
    add()

    for name in ("MEDIA-IN", "media_in"):
        [message] = refusal(services.add_credential, name=name, access_key="A", secret_key="S")[
            "name"
        ]
        assert "credential media-in, used by bucket media-in" in message
    assert pairs()["MEDIA_IN"].access_key == ACCESS


class Crash(BaseException):
    """The process ends here."""


def test_what_breaks_off_between_vault_and_database_leaves_nothing_and_adding_again_works(
    monkeypatch,
):
    vault = wiring.vault()
    write = vault.write_many

    def write_and_break_off(entries: Mapping[str, str]) -> None:
        write(entries)
        raise Crash

    monkeypatch.setattr(vault, "write_many", write_and_break_off)
    with pytest.raises(Crash):
        add(access_key="FIRST", secret_key="FIRST")
    monkeypatch.undo()
    assert not Bucket.objects.exists()
    assert not Credential.objects.exists()
    assert not Outbox.objects.exists()
    vault_removals.flush_now()
    assert pairs() == {}

    add()
    assert pairs()["MEDIA_IN"].access_key == ACCESS


def test_a_vault_that_cannot_be_written_leaves_nothing_behind(settings):
    wiring.vault()
    (settings.DATA_DIR / "vault.enc").write_text("not a vault")

    with pytest.raises(VaultUnavailable):
        add()

    assert not Bucket.objects.exists()
    assert not Credential.objects.exists()


def test_only_what_is_given_changes():
    bucket = add(webhook_url="https://api.example.com/hook")
    Bucket.objects.update(polling_interval=5)  # somebody else, since we read it

    services.update_bucket(bucket=bucket, monitoring_enabled=False)

    bucket.refresh_from_db()
    assert bucket.monitoring_enabled is False
    assert bucket.polling_interval == 5
    assert bucket.webhook_url == "https://api.example.com/hook"


def test_what_cannot_be_changed_is_a_programming_error():
    with pytest.raises(TypeError, match="generation, name cannot be changed"):
        services.update_bucket(bucket=add(), name="other", generation=5)


def test_a_refused_change_changes_nothing():
    bucket = add()

    refused = refusal(services.update_bucket, bucket=bucket, polling_interval=0, access_key="A")

    assert set(refused) == {"polling_interval", "secret_key"}
    bucket.refresh_from_db()
    assert bucket.polling_interval is None
    assert pairs()["MEDIA_IN"].access_key == ACCESS


@pytest.mark.parametrize(
    ("first", "change", "stored"),
    [
        pytest.param(
            {"region": "us-iad-1"},
            {"region": "eu-1"},
            ("eu-1", "eu-1.linodeobjects.com"),
            id="derived-endpoint-follows",
        ),
        pytest.param(
            {"region": "dc1", "endpoint": "s3.example.com"},
            {"region": "dc2"},
            ("dc2", "s3.example.com"),
            id="named-endpoint-stays",
        ),
        pytest.param(
            {"region": "", "endpoint": "http://localhost:9000"},
            {"endpoint": "http://localhost:9001"},
            ("localhost:9001", "http://localhost:9001"),
            id="derived-region-follows",
        ),
        pytest.param(
            {"region": "dc1", "endpoint": "s3.example.com"},
            {"endpoint": "s4.example.com"},
            ("dc1", "s4.example.com"),
            id="named-region-stays",
        ),
        pytest.param(
            {"region": "dc1", "endpoint": "s3.example.com"},
            {"region": ""},
            ("s3.example.com", "s3.example.com"),
            id="region-cleared",
        ),
        pytest.param(
            {"region": "us-iad-1"},
            {"region": ""},
            ("us-iad-1.linodeobjects.com", "us-iad-1.linodeobjects.com"),
            id="derived-endpoint-stays-when-the-region-is-cleared",
        ),
        pytest.param(
            {"region": "dc1", "endpoint": "s3.example.com"},
            {"endpoint": ""},
            ("dc1", "dc1.linodeobjects.com"),
            id="endpoint-cleared",
        ),
    ],
)
def test_of_region_and_endpoint_the_derived_one_follows_the_other(first, change, stored):
    bucket = services.update_bucket(bucket=add(**first), **change)

    assert (bucket.region, bucket.endpoint) == stored
    assert bucket.generation > 0


def test_a_region_that_is_none_is_refused():
    assert "region" in refusal(add, region="two words")
    assert "region" in refusal(services.update_bucket, bucket=add(), region="a/b")


def test_keys_are_replaced_both_at_once():
    bucket = add()
    entered = bucket.credential.updated_at

    services.update_bucket(bucket=bucket, access_key="NEW", secret_key="NEWER")

    assert pairs() == {"MEDIA_IN": KeyPair("NEW", "NEWER")}
    assert Credential.objects.get().updated_at > entered


def test_keys_that_other_buckets_use_are_not_replaced_through_one_of_them():
    first = add()
    add("other", credential=first.credential)

    [message] = refusal(services.update_bucket, bucket=first, access_key="NEW", secret_key="NEWER")[
        "access_key"
    ]

    assert "used by bucket other too" in message
    assert pairs()["MEDIA_IN"].access_key == ACCESS
    services.rotate_credential(credential=first.credential, access_key="NEW", secret_key="NEWER")
    assert pairs()["MEDIA_IN"].access_key == "NEW"


def test_buckets_that_failed_are_due_when_the_keys_that_they_share_are_replaced(redis_server):
    first = add()
    add("other", credential=first.credential)
    with redis_server.client() as redis:
        redis.sadd(redis_keys.REGIONS, "us-iad-1")
        for name in ("media-in", "other"):
            redis.zadd(redis_keys.due("us-iad-1"), {name: 4e9})
        redis.hset(redis_keys.bucket("other"), "failures", 3)

        services.rotate_credential(credential=first.credential, access_key="N", secret_key="N")

        assert redis.zscore(redis_keys.due("us-iad-1"), "media-in") == 4e9
        assert redis.zscore(redis_keys.due("us-iad-1"), "other") < 3e9


def test_a_bucket_that_gets_another_credential_leaves_none_of_its_own_behind():
    bucket = add()
    shared = services.add_credential(name="shared", access_key="A", secret_key="S")

    refused = refusal(
        services.update_bucket, bucket=bucket, credential=shared, access_key="B", secret_key="B"
    )
    assert "not both" in refused["credential"][0]
    services.update_bucket(bucket=bucket, credential=shared)

    assert set(pairs()) == {"SHARED"}
    assert [credential.name for credential in Credential.objects.all()] == ["shared"]


def test_a_bucket_takes_its_credential_and_secrets_with_it():
    services.delete_bucket(bucket=add_with_client())

    assert pairs() == {}
    assert secrets_stored() == set()
    assert not Bucket.objects.exists()
    assert not Credential.objects.exists()


def test_a_credential_that_another_bucket_uses_stays_until_that_is_gone_too():
    first = add()
    second = add("other", credential=first.credential)

    services.delete_bucket(bucket=first)
    assert set(pairs()) == {"MEDIA_IN"}
    [message] = refusal(add)["name"]
    assert "used by bucket other: choose that credential" in message

    services.delete_bucket(bucket=second)
    assert pairs() == {}


def test_a_credential_of_its_own_outlives_its_buckets():
    shared = services.add_credential(name="shared", access_key="A", secret_key="S")
    services.delete_bucket(bucket=add(credential=shared))

    assert set(pairs()) == {"SHARED"}
    services.delete_credential(credential=shared)
    assert pairs() == {}


def test_a_credential_in_use_is_not_deleted():
    bucket = add()

    with pytest.raises(ValidationError, match="used by bucket media-in: give"):
        services.delete_credential(credential=bucket.credential)

    assert set(pairs()) == {"MEDIA_IN"}


def test_many_users_of_a_credential_are_not_all_listed():
    shared = services.add_credential(name="shared", access_key="A", secret_key="S")
    for number in range(7):
        add(f"bucket-{number}", credential=shared)

    with pytest.raises(ValidationError, match=r"buckets bucket-0, .* and 2 more: give"):
        services.delete_credential(credential=shared)


@pytest.mark.parametrize("name", ["", "-shared", "sha red", "x" * 64, "sha/red"])
def test_credential_names_that_make_no_vault_name_are_refused(name):
    assert "name" in refusal(services.add_credential, name=name, access_key="A", secret_key="S")


def test_the_webhook_client_is_stored_with_its_secret_in_the_vault():
    bucket = add_with_client()
    assert secrets_stored() == {"MEDIA_IN_WEBHOOK_CLIENT_SECRET"}

    services.update_bucket(bucket=bucket, webhook_client_id="you")
    assert secrets_stored() == {"MEDIA_IN_WEBHOOK_CLIENT_SECRET"}
    services.update_bucket(bucket=bucket, webhook_client_secret="newer")
    assert entries()["MEDIA_IN_WEBHOOK_CLIENT_SECRET"] == "newer"

    services.update_bucket(bucket=bucket, webhook_client_id="", webhook_token_url="")
    assert secrets_stored() == set()
    refused = refusal(
        services.update_bucket,
        bucket=bucket,
        webhook_client_id="me",
        webhook_token_url="https://auth.example.com/token",
    )
    assert "all three" in refused["webhook_client_secret"][0]


def test_buckets_that_share_keys_have_their_own_webhook_secrets():
    shared = services.add_credential(name="shared", access_key="A", secret_key="S")
    first = add_with_client(credential=shared)
    add_with_client(name="other", credential=shared)

    services.delete_bucket(bucket=first)

    assert secrets_stored() == {"OTHER_WEBHOOK_CLIENT_SECRET"}


def test_notifications_and_monitoring_are_switched():
    bucket = add()

    assert services.set_notifications(bucket=bucket, enabled=False).notifications_enabled is False
    assert services.set_monitoring(bucket=bucket, enabled=False).monitoring_enabled is False
    assert services.set_notifications(bucket=bucket, enabled=True).notifications_enabled is True


def test_a_bucket_that_was_deleted_meanwhile_does_not_come_back():
    bucket = add()
    services.delete_bucket(bucket=Bucket.objects.get())

    with pytest.raises(Bucket.DoesNotExist):
        services.set_notifications(bucket=bucket, enabled=False)

    assert not Bucket.objects.exists()


def test_the_secret_of_an_api_client_is_returned_once_and_stored_as_a_hash():
    client, secret = services.create_api_client(name="ingest", scope="read")

    stored = ApiClient.objects.get()
    assert stored == client
    assert len(secret) >= 40
    assert secret not in stored.secret_hash
    assert check_password(secret, stored.secret_hash)


def test_an_api_client_of_a_taken_name_or_an_unknown_scope_is_refused():
    services.create_api_client(name="ingest")

    assert set(refusal(services.create_api_client, name="ingest", scope="root")) == {
        "name",
        "scope",
    }


def test_the_configured_api_client_is_made_once_and_follows_its_secret(settings):
    services.ensure_bootstrap_client()
    assert not ApiClient.objects.exists()

    for secret in ("first", "first", "second"):
        settings.SITE = settings.SITE.model_copy(
            update={"api_client_id": "boot", "api_client_secret": SecretStr(secret)}
        )
        services.ensure_bootstrap_client()

    client = ApiClient.objects.get(client_id="boot")
    assert check_password("second", client.secret_hash)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param([], False, id="no-bucket"),
        pytest.param([{}], True, id="without"),
        pytest.param([{"monitoring_enabled": False}], False, id="none-monitored"),
        pytest.param([{}, {"webhook_url": "https://x.example/"}], False, id="one-with"),
        pytest.param(
            [{}, {"webhook_url": "https://x.example/", "monitoring_enabled": False}],
            True,
            id="only-a-paused-one-with",
        ),
    ],
)
def test_a_site_lacks_a_webhook_when_no_monitored_bucket_has_one(values, expected):
    for number, changes in enumerate(values):
        add(f"bucket-{number}", **changes)

    assert selectors.lacks_webhook() is expected


def test_a_connection_is_tested_with_the_buckets_keys(s3_server):
    name = s3_server.bucket()
    for key in ("a", "b"):
        s3_server.put(name, key)
    pair = {"access_key": s3_server.access_key, "secret_key": s3_server.secret_key}
    bucket = services.add_bucket(name=name, endpoint=s3_server.url, **pair)

    tested = services.check_connection(bucket=bucket)

    assert (tested.ok, tested.first_keys, tested.error, tested.fix) == (True, ("a", "b"), "", "")
    assert tested.latency_ms > 0
    credential = Credential.objects.get()
    assert credential.last_verified_at is not None
    assert credential.last_verified_error == ""
    services.update_bucket(bucket=bucket, **pair)
    assert Credential.objects.get().last_verified_at is None


def test_a_connection_is_tested_with_keys_that_have_just_been_rotated(s3_server, monkeypatch):
    pair = {"access_key": s3_server.access_key, "secret_key": s3_server.secret_key}
    bucket = services.add_bucket(name=s3_server.bucket(), endpoint=s3_server.url, **pair)
    assert services.check_connection(bucket=bucket).ok
    used = []

    def first_keys(_name: str, _document: Any, pair: KeyPair, **_: int) -> tuple[str, ...]:
        used.append(pair)
        return ()

    monkeypatch.setattr("scanning.engine.first_keys", first_keys)

    services.rotate_credential(credential=bucket.credential, access_key="NEW", secret_key="NEWER")
    services.check_connection(bucket=bucket)

    assert used == [KeyPair("NEW", "NEWER")]


def test_a_bucket_is_tested_before_it_is_stored(s3_server):
    name = s3_server.bucket()
    pair = {"access_key": s3_server.access_key, "secret_key": s3_server.secret_key}

    assert services.check_connection(bucket=Bucket(name=name, endpoint=s3_server.url), **pair).ok
    refused = refusal(services.check_connection, bucket=Bucket(name="No", endpoint=s3_server.url))

    assert refused.keys() == {"name", "access_key", "secret_key"}
    assert not Credential.objects.exists()


@pytest.mark.parametrize(
    ("changes", "error", "fix"),
    [
        pytest.param({"name": "no-such-bucket"}, "no such bucket", "its name", id="bucket"),
        pytest.param({"endpoint": "http://127.0.0.1:1"}, "cannot connect", "network", id="down"),
        pytest.param({"endpoint": "http://no-such-host.invalid"}, "bucket", "endpoint", id="host"),
    ],
)
def test_what_is_wrong_with_a_connection_is_said_with_the_fix(s3_server, changes, error, fix):
    pair = {"access_key": s3_server.access_key, "secret_key": s3_server.secret_key}
    values = {"name": s3_server.bucket(), "endpoint": s3_server.url}
    bucket = services.add_bucket(**values | changes | pair)

    tested = services.check_connection(bucket=bucket)

    assert not tested.ok
    assert error in tested.error
    assert fix in tested.fix
    assert tested.fix.rstrip(".").lower() not in tested.error.lower()
    assert s3_server.secret_key not in str(tested)
    assert Credential.objects.get().last_verified_at is None


def test_keys_that_are_gone_from_the_vault_are_noted_at_the_credential(s3_server):
    bucket = add(endpoint=s3_server.url)
    wiring.vault().delete_many(halves_of("MEDIA_IN"))

    tested = services.check_connection(bucket=bucket)

    assert tested.fix == "Enter the bucket's access key and secret key again."
    credential = Credential.objects.get()
    assert credential.last_verified_error == tested.error


def test_an_address_that_is_forbidden_is_not_tested(settings):
    bucket = add(endpoint="http://127.0.0.1:1")
    settings.SCANNING = EngineSettings()
    wiring.reset()

    tested = services.check_connection(bucket=bucket)

    assert "a loopback address" in tested.error
    assert "allow its network" in tested.fix


def test_a_scan_is_asked_for_at_once(redis_server):
    bucket = add()
    with redis_server.client() as redis:
        redis.zadd(redis_keys.due("us-iad-1"), {"media-in": 4e9})
        services.scan_now(bucket=bucket)
        assert redis.zscore(redis_keys.due("us-iad-1"), "media-in") < 3e9

    paused = services.set_monitoring(bucket=bucket, enabled=False)
    assert "resume" in refusal(services.scan_now, bucket=paused)["monitoring_enabled"][0]


def test_scans_of_many_are_asked_for_at_once_and_in_no_transaction(store, monkeypatch):
    """With SQLite all other writers would wait for Redis."""
    one = add()
    many = [one, *(add(f"bucket-{n}", credential=one.credential) for n in range(20))]
    store.zadd(redis_keys.due("us-iad-1"), {bucket.name: 4e9 for bucket in many})
    ask, inside = redis.Redis.execute_command, []

    def noted(client: redis.Redis, *args: Any, **options: Any) -> Any:
        inside.append(connection.in_atomic_block)
        return ask(client, *args, **options)

    services.scan_now(bucket=one)  # connects, and knows the scripts from here on
    entries = LogEntry.objects.count()
    monkeypatch.setattr(redis.Redis, "execute_command", noted)
    assert services.scan_all_now(buckets=many) == 21
    monkeypatch.undo()

    assert 1 <= len(inside) < 10
    assert not any(inside)
    assert (
        max(at for _, at in store.zrange(redis_keys.due("us-iad-1"), 0, -1, withscores=True)) < 3e9
    )
    assert LogEntry.objects.count() == entries + 21


def test_a_scan_that_cannot_be_asked_for_is_not_logged():
    bucket = add()
    entries = LogEntry.objects.count()

    with pytest.raises(RedisUnavailable):
        services.scan_now(bucket=bucket)

    assert LogEntry.objects.count() == entries


def history() -> list[tuple[str, str, str, str]]:
    return [
        (
            str(one.user),
            ContentType.objects.get_for_id(one.content_type_id or 0).model,
            one.object_repr,
            one.get_change_message(),
        )
        for one in LogEntry.objects.order_by("pk").select_related("user")
    ]


def test_the_log_says_what_was_done_as_the_history_does(caplog):
    caplog.set_level(logging.INFO)
    audit.performed(add_with_client(), "Announced 2 objects again, replay 2026T1", by=None)
    said = "the command line: announced 2 objects again, replay 2026T1: bucket media-in"
    assert said in caplog.text


def test_who_changed_what_is_logged_without_any_secret(caplog):
    caplog.set_level(logging.DEBUG)
    olga = User.objects.create(username="olga")
    client, secret = services.create_api_client(name="ingest", client_id="bw-1", by=olga)

    bucket = add_with_client(by=olga)
    services.update_bucket(
        bucket=bucket, access_key="NEWACCESS", secret_key="NEWER", lanes=2, by=client
    )
    services.update_bucket(bucket=bucket, lanes=2, by=client)
    services.rotate_credential(
        credential=bucket.credential, access_key="NEWACCESS", secret_key="NEWER", by=olga
    )
    services.update_api_client(client=client, name="ingest", scope="read", enabled=True, by=olga)
    services.delete_bucket(bucket=bucket)

    assert history() == [
        ("olga", "apiclient", "ingest", "Added."),
        ("olga", "bucket", "media-in", "Added."),
        ("olga", "credential", "media-in", "Added."),
        ("API client bw-1", "bucket", "media-in", "Changed S3 keys and lanes."),
        ("olga", "credential", "media-in", "Changed S3 keys."),
        ("olga", "apiclient", "ingest", "Changed scope."),
        ("command line", "bucket", "media-in", "Deleted bucket “media-in”."),
        ("command line", "credential", "media-in", "Deleted credential “media-in”."),
    ]
    assert "user olga: added bucket media-in" in caplog.text
    assert "API client ingest: changed bucket media-in" in caplog.text
    assert "the command line: deleted bucket media-in" in caplog.text
    for word in (ACCESS, SECRET, "NEWACCESS", "NEWER", "client-secret", secret):
        assert word not in caplog.text
        assert word not in str(history())
        assert word not in str(list(LogEntry.objects.values()))


def test_nobody_can_log_in_as_a_program_and_its_history_outlives_it():
    client, secret = services.create_api_client(name="ingest", client_id="bw-1")
    add(by=client)
    services.delete_api_client(client=client)

    stand_in = User.objects.get(username="API client bw-1")
    assert not stand_in.is_active
    assert not stand_in.has_usable_password()
    assert not stand_in.check_password(secret)
    assert LogEntry.objects.filter(user=stand_in).exists()


def test_no_secret_is_in_the_database_or_in_redis(redis_server, tmp_path: Path):
    bucket = add_with_client()
    services.update_bucket(bucket=bucket, access_key="NEWACCESS", secret_key="NEWERSECRET")
    _, secret = services.create_api_client(name="ingest")

    dump = tmp_path / "dump.json"
    call_command("dumpdata", "--all", output=str(dump))
    with redis_server.client() as redis:
        redis_content = "".join(str(redis.dump(key)) for key in redis.scan_iter())
        document = redis.get("linode:objstore:config:bucket:media-in")

    assert "media-in" in dump.read_text()
    assert "auth.example.com" in document
    for word in (ACCESS, SECRET, "NEWACCESS", "NEWERSECRET", "client-secret", secret):
        assert word not in dump.read_text()
        assert word not in redis_content
        assert word not in document


def test_blanks_in_prefix_and_suffix_are_kept():
    bucket = add()
    services.update_bucket(
        bucket=bucket, prefix=" a", suffix="b ", webhook_url=" https://a.example"
    )
    bucket.refresh_from_db()
    assert (bucket.prefix, bucket.suffix) == (" a", "b ")
    assert bucket.webhook_url == "https://a.example"


def test_a_new_baseline_forgets_what_is_known_and_announces_nothing_of_it(redis_server):
    bucket = services.add_bucket(name="media-in", region="r", access_key="A", secret_key="S")
    Bucket.objects.filter(pk=bucket.pk).update(taken_over=True)
    before = wiring.background().bucket_configs.get("media-in")

    services.rebaseline(bucket=bucket)

    after = wiring.background().bucket_configs.get("media-in")
    assert before is not None
    assert after is not None
    assert after.generation > before.generation
    assert after.first_scan == "baseline"
    assert not after.taken_over


def test_a_save_after_a_new_baseline_keeps_its_generation(redis_server):
    bucket = services.add_bucket(name="media-in", region="r", access_key="A", secret_key="S")
    renewed = services.rebaseline(bucket=bucket)
    generation = renewed.generation
    renewed.save()
    assert Bucket.objects.get().generation == generation


def test_many_buckets_are_switched_together_and_each_has_its_history(redis_server):
    one = services.add_bucket(name="one", region="r", access_key="A", secret_key="S")
    two = services.add_bucket(name="two", region="r", access_key="A", secret_key="S")
    services.set_notifications(bucket=two, enabled=False)
    before = LogEntry.objects.count()

    services.switch_buckets(buckets=[one, two], notifications_enabled=False)

    assert not Bucket.objects.filter(notifications_enabled=True).exists()
    assert not any(
        seen.notifications for seen in wiring.background().bucket_configs.load().buckets.values()
    )
    assert LogEntry.objects.count() == before + 1  # the other one was off already
    with pytest.raises(TypeError):
        services.switch_buckets(buckets=[one], name=True)


def test_what_is_done_to_many_leaves_out_those_that_are_gone(redis_server):
    one = services.add_bucket(name="one", region="r", access_key="A", secret_key="S")
    two = services.add_bucket(name="two", region="r", access_key="A", secret_key="S")
    services.delete_bucket(bucket=Bucket.objects.get(name="two"))

    services.switch_buckets(buckets=[one, two], monitoring_enabled=False)
    services.rebaseline_all(buckets=[one, two])
    services.delete_buckets(buckets=[one, two])

    assert not Bucket.objects.exists()
    assert wiring.background().bucket_configs.load().buckets == {}
    assert pairs() == {}
