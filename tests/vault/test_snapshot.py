"""The vault's key pairs in memory: one read for all, fresh enough, and through its bad days."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from scanning.adapters.vault.snapshot import FRESH_S, STALE_S, CredentialSnapshot
from scanning.core.errors import (
    BucketwatchError,
    ConfigurationError,
    CredentialMissing,
    VaultRefused,
    VaultUnavailable,
)
from scanning.core.types import KeyPair
from scanning.core.vault_names import halves_of
from tests.support.fakes import FakeVault

A = KeyPair("access-a", "secret-a")
B = KeyPair("access-b", "secret-b")
NEW = KeyPair("access-new", "secret-new")
AWAY = VaultUnavailable("the vault does not answer")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class SlowVault(FakeVault):
    """Each read waits until it is let through."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Semaphore(0)
        self.let_through = threading.Semaphore(0)

    def slow_down(self) -> None:
        self.before_read = self._wait

    def _wait(self) -> None:
        self.entered.release()
        assert self.let_through.acquire(timeout=20)


@pytest.fixture
def vault() -> SlowVault:
    vault = SlowVault()
    vault.write("A", A)
    return vault


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def snapshot(vault, clock) -> CredentialSnapshot:
    return CredentialSnapshot(vault, clock=clock, jitter=lambda: 1.0)


def fail(vault: FakeVault, problem: BucketwatchError | None) -> None:
    def ask() -> None:
        if problem is not None:
            raise problem

    vault.before_read = ask


def test_all_pairs_come_with_one_read(snapshot, vault):
    vault.write("B", B)
    assert (snapshot.get("A"), snapshot.get("B")) == (A, B)
    assert vault.reads == 1


def test_the_vault_is_read_again_when_the_snapshot_is_old(snapshot, vault, clock):
    snapshot.get("A")
    vault.write("A", NEW)
    clock.now += FRESH_S
    assert snapshot.get("A") == A
    clock.now += 0.1
    assert snapshot.get("A") == NEW
    assert vault.reads == 2


def test_a_pair_newer_than_the_snapshot_is_found_soon(snapshot, vault, clock):
    snapshot.get("A")
    vault.write("B", B)
    clock.now += 3
    assert snapshot.get("B") == B


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


def test_an_empty_vault_may_be_the_wrong_one(snapshot, vault):
    vault.delete_many(halves_of("A"))
    with pytest.raises(CredentialMissing, match="nor any other: is it the right vault"):
        snapshot.get("A")


def test_the_pairs_do_not_show_in_a_repr(snapshot):
    assert "secret-a" not in repr(snapshot.get("A")) + repr(snapshot) + repr(vars(snapshot))


# One read for many.


def test_many_threads_without_a_snapshot_wait_for_one_read(snapshot, vault):
    vault.slow_down()
    with ThreadPoolExecutor(10) as pool:
        asking = [pool.submit(snapshot.get, "A") for _ in range(10)]
        vault.entered.acquire(timeout=20)
        vault.let_through.release()
        assert [one.result(20) for one in asking] == [A] * 10
    assert vault.reads == 1


def test_while_one_thread_reads_the_others_go_on_with_the_old_pairs(snapshot, vault, clock):
    snapshot.get("A")
    clock.now += FRESH_S + 1
    vault.slow_down()
    vault.write("A", NEW)
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(snapshot.get, "A")
        vault.entered.acquire(timeout=20)
        assert [snapshot.get("A") for _ in range(5)] == [A] * 5
        vault.let_through.release()
        assert reader.result(20) == NEW
    assert vault.reads == 2


def test_an_error_of_the_reader_is_told_to_all_who_waited(snapshot, vault):
    def wait_and_fail() -> None:
        vault._wait()
        raise AWAY

    vault.before_read = wait_and_fail
    with ThreadPoolExecutor(5) as pool:
        asking = [pool.submit(snapshot.get, "A") for _ in range(5)]
        vault.entered.acquire(timeout=20)
        vault.let_through.release()
        assert {str(one.exception(20)) for one in asking} == {str(AWAY)}
    assert vault.reads == 1


def test_an_error_in_the_vaults_code_does_not_block_the_next_reader(snapshot, vault, clock):
    def broken() -> None:
        raise RuntimeError("a bug")

    vault.before_read = broken
    with pytest.raises(RuntimeError):
        snapshot.get("A")
    with pytest.raises(VaultUnavailable, match="see the log"):
        snapshot.get("A")
    fail(vault, None)
    clock.now += 2
    assert snapshot.get("A") == A


# The vault is away.


def test_without_a_snapshot_an_absent_vault_is_said_and_asked_again_soon(snapshot, vault, clock):
    fail(vault, AWAY)
    for _ in range(20):
        with pytest.raises(VaultUnavailable, match="the vault does not answer"):
            snapshot.get("A")
    assert vault.reads == 1
    fail(vault, None)
    clock.now += 1
    assert snapshot.get("A") == A


def test_while_the_vault_is_away_old_pairs_serve_up_to_the_stated_age(snapshot, vault, clock):
    snapshot.get("A")
    fail(vault, AWAY)
    clock.now += STALE_S
    assert snapshot.get("A") == A
    clock.now += 1
    with pytest.raises(VaultUnavailable):
        snapshot.get("A")


def test_an_absent_vault_is_asked_less_and_less_often(snapshot, vault, clock):
    snapshot.get("A")
    fail(vault, AWAY)
    clock.now += FRESH_S
    asked_at = []
    for _ in range(400):
        clock.now += 1
        before = vault.reads
        snapshot.get("A")
        if vault.reads > before:
            asked_at.append(clock.now)
    gaps = [later - earlier for earlier, later in pairwise(asked_at)]
    assert gaps == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]


def test_many_processes_do_not_ask_an_absent_vault_in_step(vault, clock):
    def asks_again_after(jitter: float) -> float:
        snapshot = CredentialSnapshot(vault, clock=clock, jitter=lambda: jitter)
        for _ in range(8):
            with pytest.raises(VaultUnavailable):
                snapshot.get("A")
            clock.now += 60
        wait_s: float = snapshot._next_read_at - clock.now
        return wait_s

    fail(vault, AWAY)
    assert asks_again_after(0.0) < asks_again_after(0.5) < asks_again_after(1.0)


def test_a_bad_day_of_the_vault_is_said_once_and_its_end_too(snapshot, vault, clock, caplog):
    caplog.set_level(logging.INFO)
    snapshot.get("A")
    fail(vault, AWAY)
    for _ in range(300):
        clock.now += 1
        snapshot.get("A")
    [said] = caplog.messages
    assert said == (
        "The vault cannot be read; going on with the keys of 61 s ago, for 24 h at most: "
        "the vault does not answer"
    )
    fail(vault, None)
    clock.now += 60
    snapshot.get("A")
    assert caplog.messages[1:] == ["The vault answers again"]


def test_another_kind_of_trouble_is_said_again(snapshot, vault, clock, caplog):
    snapshot.get("A")
    for problem in (AWAY, VaultRefused("wrong secret"), VaultRefused("wrong secret")):
        fail(vault, problem)
        clock.now += 120
        assert snapshot.get("A") == A
    assert [message.rpartition(": ")[2] for message in caplog.messages] == [
        "the vault does not answer",
        "wrong secret",
    ]


@pytest.mark.parametrize("problem", [VaultRefused("wrong secret"), ConfigurationError("wrong key")])
def test_without_a_snapshot_a_permanent_error_stays_what_it_is(snapshot, vault, problem):
    fail(vault, problem)
    for _ in range(2):
        with pytest.raises(type(problem), match=str(problem)):
            snapshot.get("A")


def test_a_pair_that_was_never_seen_may_be_in_the_absent_vault(snapshot, vault, clock):
    snapshot.get("A")
    fail(vault, AWAY)
    clock.now += 3
    with pytest.raises(VaultUnavailable):
        snapshot.get("B")
    assert snapshot.get("A") == A


# The vault answers, with less than it had.


@pytest.mark.parametrize("left", [{}, {"B": B}], ids=["nothing", "some"])
def test_names_that_the_vault_lost_are_served_from_before_and_said_once(
    snapshot, vault, clock, caplog, left
):
    vault.write("B", B)
    snapshot.get("A")
    vault.entries.clear()
    for prefix, pair in left.items():
        vault.write(prefix, pair)
    for _ in range(3):
        clock.now += FRESH_S + 1
        assert (snapshot.get("A"), snapshot.get("B")) == (A, B)
    [said] = caplog.messages
    lost = "A" if left else "A, B"
    assert said.startswith(f"The vault lists {len(left)} key pairs and no longer {2 - len(left)} ")
    assert f"({lost})" in said
    clock.now += STALE_S
    with pytest.raises(CredentialMissing):
        snapshot.get("A")


def test_a_pair_that_was_deleted_and_that_nobody_asks_for_is_no_trouble(
    snapshot, vault, clock, caplog
):
    vault.write("B", B)
    snapshot.get("B")
    vault.delete_many(halves_of("B"))
    clock.now += FRESH_S + 1
    assert snapshot.get("A") == A
    assert caplog.messages == []


def test_names_that_came_back_and_went_again_are_said_again(snapshot, vault, clock, caplog):
    snapshot.get("A")
    for _ in range(2):
        vault.delete_many(halves_of("A"))
        clock.now += FRESH_S + 1
        snapshot.get("A")
        vault.write("A", A)
        clock.now += FRESH_S + 1
        snapshot.get("A")
    assert len(caplog.messages) == 2


# S3 refuses a pair.


def test_refused_keys_are_read_again_at_once(snapshot, vault):
    snapshot.get("A")
    vault.write("A", NEW)
    assert snapshot.reload().get("A") == NEW


def test_scans_that_are_refused_at_the_same_time_share_one_read(snapshot, vault):
    snapshot.get("A")
    vault.write("A", NEW)
    vault.slow_down()
    with ThreadPoolExecutor(10) as pool:
        asking = [pool.submit(lambda: snapshot.reload().get("A")) for _ in range(10)]
        vault.entered.acquire(timeout=20)
        vault.let_through.release()
        assert [one.result(20) for one in asking] == [NEW] * 10
    assert vault.reads == 2


def test_a_read_that_began_before_the_refusal_does_not_count(snapshot, vault, clock):
    snapshot.get("A")
    clock.now += FRESH_S + 1
    vault.slow_down()
    with ThreadPoolExecutor(2) as pool:
        routine = pool.submit(snapshot.get, "A")
        vault.entered.acquire(timeout=20)
        refused = pool.submit(lambda: snapshot.reload().get("A"))
        vault.let_through.release()
        routine.result(20)
        vault.entered.acquire(timeout=20)
        vault.write("A", NEW)
        vault.let_through.release()
        assert refused.result(20) == NEW


def test_keys_that_stay_wrong_do_not_have_the_vault_read_all_the_time(snapshot, vault, clock):
    snapshot.get("A")
    read_at = []
    for _ in range(200):
        before = vault.reads
        snapshot.reload()
        if vault.reads > before:
            read_at.append(clock.now - 1000)
        clock.now += 1
    assert read_at == [0, 5, 15, 35, 75, 135, 195]


def test_half_a_rotation_is_survived(snapshot, vault, clock):
    snapshot.get("A")
    vault.write_many({"A_ACCESS_KEY": NEW.access_key})
    half = snapshot.reload().get("A")
    assert half == KeyPair(NEW.access_key, A.secret_key)
    vault.write_many({"A_SECRET_KEY": NEW.secret_key})
    clock.now += 5
    assert snapshot.reload().get("A") == NEW


def test_a_refusal_while_the_vault_is_away_changes_nothing(snapshot, vault, clock):
    snapshot.get("A")
    fail(vault, AWAY)
    for _ in range(5):
        assert snapshot.reload().get("A") == A
    assert vault.reads == 2


# Its age.


def test_the_age_is_that_of_the_last_answer(snapshot, vault, clock):
    assert snapshot.age_s() is None
    fail(vault, AWAY)
    with pytest.raises(VaultUnavailable):
        snapshot.get("A")
    assert snapshot.age_s() is None
    fail(vault, None)
    clock.now += 2
    snapshot.get("A")
    fail(vault, AWAY)
    clock.now += 100
    snapshot.get("A")
    assert snapshot.age_s() == 100


def test_a_snapshot_of_nothing_has_an_age_too(snapshot, vault):
    vault.delete_many(halves_of("A"))
    with pytest.raises(CredentialMissing):
        snapshot.get("A")
    assert snapshot.age_s() == 0
