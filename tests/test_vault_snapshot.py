"""The vault's key pairs in memory: one read for all, fresh enough, and again when asked."""

import threading
from collections.abc import Collection, Mapping

import pytest

from scanning.adapters.vault_snapshot import FRESH_S, CredentialSnapshot
from scanning.core.errors import CredentialMissing, VaultUnavailable
from scanning.core.types import KeyPair


class CountingVault:
    """A vault that says how often it was read."""

    def __init__(self) -> None:
        self.pairs = {"A": KeyPair("access-a", "secret-a")}
        self.reads = 0
        self.problem: Exception | None = None
        self.pause: threading.Event | None = None

    def read_all(self) -> Mapping[str, KeyPair]:
        self.reads += 1
        if self.pause:
            self.pause.wait(10)
        if self.problem:
            raise self.problem
        return dict(self.pairs)

    def write(self, prefix: str, pair: KeyPair) -> None:
        self.pairs[prefix] = pair

    def delete(self, prefix: str) -> None:
        self.pairs.pop(prefix, None)

    def write_secret(self, name: str, value: str) -> None:
        raise NotImplementedError

    def delete_secret(self, name: str) -> None:
        raise NotImplementedError

    def names(self) -> frozenset[str]:
        raise NotImplementedError

    def read_secrets(self, names: Collection[str]) -> Mapping[str, str]:
        raise NotImplementedError

    def write_many(self, entries: Mapping[str, str]) -> None:
        raise NotImplementedError


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def vault() -> CountingVault:
    return CountingVault()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def snapshot(vault, clock) -> CredentialSnapshot:
    return CredentialSnapshot(vault, clock=clock)


def test_all_pairs_come_with_one_read(snapshot, vault):
    vault.write("B", KeyPair("access-b", "secret-b"))
    assert snapshot.get("A") == KeyPair("access-a", "secret-a")
    assert snapshot.get("B") == KeyPair("access-b", "secret-b")
    assert vault.reads == 1


def test_the_vault_is_read_again_when_the_snapshot_is_old(snapshot, vault, clock):
    snapshot.get("A")
    vault.write("A", KeyPair("new", "pair"))
    clock.now += FRESH_S
    assert snapshot.get("A").access_key == "access-a"
    clock.now += 0.1
    assert snapshot.get("A").access_key == "new"
    assert vault.reads == 2


def test_a_pair_newer_than_the_snapshot_is_found_soon(snapshot, vault, clock):
    snapshot.get("A")
    vault.write("B", KeyPair("access-b", "secret-b"))
    clock.now += 3
    assert snapshot.get("B") == KeyPair("access-b", "secret-b")


def test_a_missing_pair_does_not_read_the_vault_at_each_scan(snapshot, vault, clock):
    for _ in range(50):
        with pytest.raises(CredentialMissing):
            snapshot.get("NONE")
    assert vault.reads == 1
    clock.now += 3
    with pytest.raises(CredentialMissing):
        snapshot.get("NONE")
    assert vault.reads == 2


def test_a_missing_pair_is_named_and_nothing_else_is(snapshot):
    with pytest.raises(CredentialMissing) as error:
        snapshot.get("MEDIA_IN")
    assert str(error.value) == (
        "the vault holds no MEDIA_IN_ACCESS_KEY and MEDIA_IN_SECRET_KEY: "
        "enter the bucket's keys again"
    )


def test_refused_keys_are_read_again_at_once(snapshot, vault):
    snapshot.get("A")
    vault.write("A", KeyPair("rotated", "pair"))
    assert snapshot.reload().get("A").access_key == "rotated"


def test_a_vault_that_is_away_says_so_and_is_asked_again(snapshot, vault):
    vault.problem = VaultUnavailable("the vault does not answer")
    with pytest.raises(VaultUnavailable):
        snapshot.get("A")
    vault.problem = None
    assert snapshot.get("A").access_key == "access-a"


def test_while_the_vault_is_away_a_fresh_snapshot_serves(snapshot, vault, clock):
    snapshot.get("A")
    vault.problem = VaultUnavailable("the vault does not answer")
    clock.now += FRESH_S - 1
    assert snapshot.get("A").access_key == "access-a"


def test_many_threads_read_the_vault_once(snapshot, vault):
    vault.pause = threading.Event()
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(snapshot.get("A").access_key))
        for _ in range(10)
    ]
    for thread in threads:
        thread.start()
    vault.pause.set()
    for thread in threads:
        thread.join()
    assert found == ["access-a"] * 10
    assert vault.reads == 1


def test_the_pairs_do_not_show_in_a_repr(snapshot):
    assert "secret-a" not in repr(snapshot.get("A"))
