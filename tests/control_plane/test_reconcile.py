"""`manage.py reconcile`, and what a crash between database, Redis and vault leaves behind."""

import json
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from buckets import services
from buckets.models import Bucket, Credential, Outbox, VaultRemoval
from buckets.sync import outbox, vault_removals
from scanning import wiring
from scanning.core.types import KeyPair
from scanning.core.vault_names import halves_of
from tests.support.infisical_server import configured

pytestmark = pytest.mark.django_db(transaction=True)

CONFIG = "linode:objstore:config:bucket:"
CLEAN = "0 to repair, 0 to do yourself, 0 unmanaged."


def add(name: str = "media-in", **values: Any) -> Bucket:
    keys = {} if "credential" in values else {"access_key": "A", "secret_key": "S"}
    return services.add_bucket(name=name, **{"region": "us-iad-1"} | keys | values)


def add_with_client(**values: Any) -> Bucket:
    return add(
        webhook_url="https://api.example.com/hook",
        webhook_client_id="me",
        webhook_client_secret="client-secret",
        webhook_token_url="https://auth.example.com/token",
        **values,
    )


def reconcile(*arguments: str, fails: bool = False) -> str:
    output = StringIO()
    if fails:
        with pytest.raises(CommandError) as failed:
            call_command("reconcile", *arguments, stdout=output)
        return output.getvalue() + str(failed.value)
    call_command("reconcile", *arguments, stdout=output)
    return output.getvalue()


def test_stores_that_agree_are_said_to(store):
    add_with_client()

    assert reconcile().strip() == CLEAN


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        pytest.param(lambda r: r.flushall(), "its configuration is missing", id="emptied"),
        pytest.param(lambda r: r.delete(CONFIG + "media-in"), "is missing", id="document"),
        pytest.param(lambda r: r.set(CONFIG + "media-in", "{"), "is no JSON", id="no-json"),
        pytest.param(lambda r: r.set(CONFIG + "media-in", "[" * 10**5), "is no JSON", id="deep"),
        pytest.param(lambda r: r.set(CONFIG + "media-in", "[]"), "no JSON object", id="list"),
        pytest.param(
            lambda r: r.set("linode:objstore:config:media-in:notifications_disabled", "true"),
            "other values of notifications",
            id="flag",
        ),
        pytest.param(
            lambda r: r.set(
                CONFIG + "media-in",
                r.get(CONFIG + "media-in").replace('"polling_interval": 30', '"other": 1'),
            ),
            "other values of bucketwatch.polling_interval",
            id="member",
        ),
    ],
)
def test_what_redis_lost_or_somebody_changed_there_is_written_again(store, spoil, says):
    bucket = add(polling_interval=30)
    spoil(store)
    spoilt = {key: store.dump(key) for key in store.scan_iter()}

    assert says in reconcile("--dry-run")
    assert {key: store.dump(key) for key in store.scan_iter()} == spoilt
    assert says in reconcile()
    assert reconcile().strip() == CLEAN
    seen = wiring.background().bucket_configs.load().buckets["media-in"]
    assert (seen.polling_interval_s, seen.generation) == (30, bucket.generation)


@pytest.mark.parametrize("left", [{}, {"client_secret": "older"}])
def test_a_webhook_secret_that_consumers_miss_in_redis_is_written_again(store, left):
    add_with_client(webhook_secret_in_redis=True)
    document = json.loads(store.get(CONFIG + "media-in"))
    del document["webhook_auth"]["client_secret"]
    document["webhook_auth"] |= left
    store.set(CONFIG + "media-in", json.dumps(document))

    output = reconcile()

    assert "media-in: other values of webhook_auth.client_secret" in output
    assert "client-secret" not in output
    written = json.loads(store.get(CONFIG + "media-in"))
    assert written["webhook_auth"]["client_secret"] == "client-secret"
    assert reconcile().strip() == CLEAN


def test_what_others_keep_in_redis_and_vault_is_listed_and_left_alone(store):
    add()
    store.set(CONFIG + "theirs", '{"name": "theirs", "endpoint": "e"}')
    wiring.vault().write_many({"THEIR_TOKEN": "t"})
    wiring.vault().write("THEIRS", KeyPair("a", "s"))

    output = reconcile()

    assert "unmanaged    Redis  theirs: a configuration that bucketwatch did not write" in output
    for name in ("THEIR_TOKEN", "THEIRS_ACCESS_KEY", "THEIRS_SECRET_KEY"):
        assert f"unmanaged    vault  {name}:" in output
    assert "0 to repair, 0 to do yourself, 4 unmanaged." in output
    assert store.exists(CONFIG + "theirs")
    assert "THEIRS" in wiring.vault().read_all()


def test_a_bucket_that_only_redis_knows_since_the_database_was_restored_is_left_alone(store):
    add()
    Bucket.objects.all()._raw_delete("default")

    assert "the database does not know it" in reconcile()
    assert "media-in" in wiring.background().bucket_configs.load().buckets


def test_keys_that_the_vault_lost_are_for_somebody_to_enter_again(store):
    add_with_client()
    wiring.vault().delete_many(halves_of("MEDIA_IN"))
    wiring.vault().delete_many(["MEDIA_IN_WEBHOOK_CLIENT_SECRET"])

    output = reconcile(fails=True)

    assert "credential media-in lacks it: enter its keys again" in output
    assert "bucket media-in lacks it: enter its webhook client secret again" in output
    assert "only you can repair" in output


@pytest.fixture
def with_infisical(settings, infisical_server):
    settings.SITE = configured(infisical_server)
    wiring.reset()
    return infisical_server


def test_where_infisical_holds_nothing_of_ours_its_environment_is_asked_for_first(
    store, settings, with_infisical
):
    add_with_client()
    add("media-out")
    with_infisical.put(THEIR_TOKEN="t")
    settings.SITE = settings.SITE.model_copy(update={"infisical_env": "production"})
    wiring.reset()

    first, *others = reconcile("--dry-run", fails=True).splitlines()

    assert first.startswith("do yourself  vault  INFISICAL_ENV: is 'production' the right env")
    assert first.endswith("enter the keys and secrets again, 3 in all")
    assert "lacks it" not in "".join(others)


def test_one_credential_that_infisical_lacks_is_named_as_ever(store, with_infisical):
    add()
    add("media-out")
    wiring.vault().delete_many(halves_of("MEDIA_OUT"))

    output = reconcile(fails=True)

    assert "credential media-out lacks it: enter its keys again" in output
    assert "INFISICAL_ENV" not in output


def test_with_redis_away_it_says_so(redis_server, store):
    add()
    redis_server.stop()

    assert "Redis" in reconcile(fails=True)


class Crash(BaseException):
    """The process ends here."""


def crash(*_: Any, **__: Any) -> Any:
    raise Crash


def delete_all(bucket: Bucket) -> None:
    services.delete_bucket(bucket=bucket)


def change(bucket: Bucket) -> None:
    services.update_bucket(bucket=bucket, polling_interval=9)


@pytest.mark.parametrize(
    "repair", [outbox.catch_up, reconcile], ids=["by-the-monitor", "by-reconcile"]
)
@pytest.mark.parametrize("write", [change, delete_all])
def test_killed_between_database_and_redis_a_change_arrives_later(
    store, monkeypatch, write: Callable[[Bucket], None], repair: Callable[[], Any]
):
    bucket = add()
    before = store.get(CONFIG + "media-in")
    monkeypatch.setattr(wiring, "interactive", crash)
    with pytest.raises(Crash):
        write(bucket)
    monkeypatch.undo()
    assert store.get(CONFIG + "media-in") == before
    assert Outbox.objects.count() == 1

    repair()

    there = store.get(CONFIG + "media-in")
    if Bucket.objects.exists():
        assert json.loads(there)["bucketwatch"]["polling_interval"] == 9
    else:
        assert there is None
    vault_removals.flush_now()
    assert reconcile().strip() == CLEAN


@pytest.mark.parametrize(
    "repair", [vault_removals.flush, reconcile], ids=["by-the-monitor", "by-reconcile"]
)
def test_killed_between_database_and_vault_a_deletion_is_finished_later(
    store, monkeypatch, repair: Callable[[], Any]
):
    bucket = add_with_client()
    monkeypatch.setattr(wiring.vault(), "delete_many", crash)
    with pytest.raises(Crash):
        services.delete_bucket(bucket=bucket)
    monkeypatch.undo()
    assert len(wiring.vault().names()) == 3
    assert VaultRemoval.objects.count() == 2

    repair()

    assert wiring.vault().names() == frozenset()
    assert reconcile().strip() == CLEAN


def test_a_bucket_added_again_before_its_entries_were_removed_keeps_its_new_keys(
    store, monkeypatch
):
    monkeypatch.setattr(vault_removals, "flush", lambda: True)
    services.delete_bucket(bucket=add_with_client())
    assert VaultRemoval.objects.count() == 2

    add_with_client()

    assert not VaultRemoval.objects.exists()
    assert len(wiring.vault().names()) == 3


def test_entries_that_somebody_uses_again_are_not_removed(store):
    add_with_client()
    VaultRemoval.objects.create(kind="pair", name="MEDIA_IN")
    VaultRemoval.objects.create(kind="secret", name="MEDIA_IN_WEBHOOK_CLIENT_SECRET")

    assert vault_removals.flush()

    assert len(wiring.vault().names()) == 3
    assert not VaultRemoval.objects.exists()


def test_a_vault_that_is_away_is_left_alone_for_a_while(store, settings):
    bucket = add()
    vault_file = settings.DATA_DIR / "vault.enc"
    kept = vault_file.read_bytes()
    vault_file.write_text("not a vault")
    services.delete_bucket(bucket=bucket)
    vault_file.write_bytes(kept)

    assert vault_removals.flush() is False
    assert vault_removals.flush_now() is True
    assert not Credential.objects.exists()
    assert vault_removals.flush() is True


def test_a_webhook_secret_for_redis_waits_for_the_vault(store, settings):
    bucket = add_with_client(webhook_secret_in_redis=True)
    assert json.loads(store.get(CONFIG + "media-in"))["webhook_auth"]["client_secret"]
    vault_file = settings.DATA_DIR / "vault.enc"
    kept = vault_file.read_bytes()
    store.flushall()
    vault_file.write_text("not a vault")

    services.update_bucket(bucket=bucket, polling_interval=9)
    assert Outbox.objects.count() == 1
    there = json.loads(store.get(CONFIG + "media-in"))
    assert there["bucketwatch"]["polling_interval"] == 9
    assert "client_secret" not in there["webhook_auth"]

    vault_file.write_bytes(kept)
    wiring.reset()
    assert outbox.flush()
    there = json.loads(store.get(CONFIG + "media-in"))
    assert there["webhook_auth"]["client_secret"] == "client-secret"
