"""The vault is written before the rows, and outside their transaction; what fails is taken back."""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import connection, connections
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from buckets import services
from buckets.importing import plan
from buckets.importing.plan import Candidate, Keys
from buckets.models import Bucket, Credential, VaultRemoval
from buckets.sync import vault_removals, vault_writes
from buckets.sync.vault_writes import Writing
from scanning import wiring
from scanning.adapters.vault import files
from scanning.core.errors import VaultUnavailable
from scanning.core.types import KeyPair
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]

OLD, NEW = KeyPair("OLD", "OLDER"), KeyPair("NEW", "NEWER")


def add(name: str = "media-in", pair: KeyPair = OLD, **values: Any) -> Bucket:
    keys = {"access_key": pair.access_key, "secret_key": pair.secret_key}
    return services.add_bucket(name=name, **{"region": "us-iad-1"} | keys | values)


def rotate(credential: Credential) -> None:
    services.rotate_credential(credential=credential, access_key="NEW", secret_key="NEWER")


def pairs() -> Mapping[str, KeyPair]:
    return wiring.vault().read_all()


def import_one() -> None:
    keys = Keys("media-in", OLD.access_key, OLD.secret_key)
    candidate = Candidate("media-in", keys, {"region": "us-iad-1"})
    plan.carry_out(plan.plan([candidate]))


@contextmanager
def slow_vault(*works: Callable[[], Any]) -> Iterator[None]:
    """Begin works in threads beside a vault that answers, and lets them end, only afterwards."""

    def run(work: Callable[[], Any]) -> None:
        work()
        connection.close()

    threads = [threading.Thread(target=run, args=[work]) for work in works]
    wiring.vault().write("UNRELATED", OLD)  # there is a file to lock
    with files.locked(settings.DATA_DIR / "vault.enc"):
        for thread in threads:
            thread.start()
        yield
    for thread in threads:
        thread.join()


def killed_in(work: Callable[[], Any]) -> None:
    """Do it in a process that is killed as soon as the vault is written."""
    child = os.fork()
    if not child:
        connections.close_all()
        wiring.reset()
        vault = wiring.vault()
        write = vault.write_many

        def write_and_die(entries: Mapping[str, str]) -> None:
            write(entries)
            os._exit(9)

        vault.write_many = write_and_die  # type: ignore[method-assign]
        try:
            work()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 9


def let_claims_end() -> None:
    VaultRemoval.objects.update(created_at=timezone.now() - timedelta(seconds=1))


@pytest.mark.parametrize("work", [add, import_one], ids=["add", "import"])
def test_while_the_vault_takes_its_time_others_write(work):
    credential = add("other").credential
    with slow_vault(work):
        eventually(VaultRemoval.objects.exists)
        services.update_credential(credential=credential, endpoint="s3.example.com")
    assert Bucket.objects.filter(name="media-in").exists()
    assert pairs()["MEDIA_IN"] == OLD
    assert not VaultRemoval.objects.exists()


def test_while_a_form_is_saved_and_the_vault_takes_its_time_others_write(operator: Client):
    credential = add("other").credential
    form = {"name": "media-in", "region": "us-iad-1", "access_key": "OLD", "secret_key": "OLDER"}
    form |= {"first_scan": "announce"}
    page = reverse("admin:buckets_bucket_add")
    with slow_vault(lambda: operator.post(page, form)):
        eventually(VaultRemoval.objects.exists)
        services.update_credential(credential=credential, endpoint="s3.example.com")
    assert Bucket.objects.filter(name="media-in").exists()
    assert pairs()["MEDIA_IN"] == OLD


def test_while_the_vault_removes_entries_others_write():
    bucket = add()
    credential = add("other").credential
    with slow_vault(lambda: services.delete_bucket(bucket=bucket)):
        eventually(VaultRemoval.objects.filter(created_at__gt=timezone.now()).exists)
        services.update_credential(credential=credential, endpoint="s3.example.com")
    assert pairs().keys() == {"OTHER", "UNRELATED"}
    assert not VaultRemoval.objects.exists()


def refused() -> Any:
    raise ValidationError("The database says no.")


def test_keys_of_rows_that_the_database_refuses_are_removed():
    with pytest.raises(ValidationError), vault_writes.stored(Writing(pairs={"MEDIA_IN": NEW})):
        refused()
    assert vault_removals.flush_now()
    assert pairs() == {}
    assert not VaultRemoval.objects.exists()


def test_keys_that_are_in_use_are_put_back_when_the_database_refuses_others():
    add()
    with pytest.raises(ValidationError), vault_writes.stored(Writing(pairs={"MEDIA_IN": NEW})):
        refused()
    assert vault_removals.flush_now()
    assert pairs() == {"MEDIA_IN": OLD}
    assert not VaultRemoval.objects.exists()


def test_keys_that_somebody_else_put_into_the_vault_are_put_back_too():
    wiring.vault().write("MEDIA_IN", OLD)
    with pytest.raises(ValidationError), vault_writes.stored(Writing(pairs={"MEDIA_IN": NEW})):
        refused()
    assert vault_removals.flush_now()
    assert pairs() == {"MEDIA_IN": OLD}


def test_a_credential_that_is_deleted_while_it_is_rotated_leaves_nothing():
    bucket = add()
    credential = bucket.credential
    deleted: list[Exception] = []

    def rotate_it() -> None:
        try:
            rotate(credential)
        except Credential.DoesNotExist as exc:
            deleted.append(exc)

    with slow_vault(rotate_it):
        eventually(VaultRemoval.objects.exists)
        services.delete_bucket(bucket=bucket)
    assert deleted
    assert vault_removals.flush_now()
    assert pairs().keys() == {"UNRELATED"}
    assert not VaultRemoval.objects.exists()


def test_killed_with_keys_in_the_vault_and_no_rows_leaves_them_until_they_are_removed():
    killed_in(add)
    assert pairs() == {"MEDIA_IN": OLD}
    assert vault_removals.flush_now()
    assert pairs() == {"MEDIA_IN": OLD}  # somebody may be at it still

    let_claims_end()
    assert vault_removals.flush_now()
    assert pairs() == {}


def test_killed_with_keys_in_the_vault_and_no_rows_does_not_stand_against_trying_again():
    killed_in(add)
    let_claims_end()
    add(pair=NEW)
    assert vault_removals.flush_now()
    assert pairs() == {"MEDIA_IN": NEW}


def test_killed_in_a_rotation_keeps_the_new_keys():
    credential = add().credential
    killed_in(lambda: rotate(credential))
    let_claims_end()
    assert vault_removals.flush_now()
    assert pairs() == {"MEDIA_IN": NEW}


def test_two_who_add_the_same_bucket_do_not_mix_their_keys():
    outcomes: list[str] = []

    def try_to_add(pair: KeyPair) -> None:
        try:
            add(pair=pair)
        except services.BucketExists:
            outcomes.append("refused")
        else:
            outcomes.append(pair.access_key)

    with slow_vault(lambda: try_to_add(OLD), lambda: try_to_add(NEW)):
        eventually(VaultRemoval.objects.exists)
    [winner] = [outcome for outcome in outcomes if outcome != "refused"]
    assert len(outcomes) == 2
    assert pairs()["MEDIA_IN"].access_key == winner


def test_who_finds_the_keys_claimed_for_long_is_told_so(monkeypatch):
    monkeypatch.setattr(vault_writes, "_PATIENCE_S", 0.0)
    later = timezone.now() + timedelta(minutes=1)
    VaultRemoval.objects.create(kind="pair", name="MEDIA_IN", created_at=later)
    with pytest.raises(VaultUnavailable, match="Somebody else is writing the same keys"):
        add()
    assert pairs() == {}


def test_a_writer_whose_claim_has_ended_does_not_commit():
    writing = Writing(pairs={"MEDIA_IN": NEW})
    with pytest.raises(VaultUnavailable, match="took too long"), vault_writes.stored(writing):
        let_claims_end()
    assert vault_removals.flush_now()
    assert pairs() == {}
