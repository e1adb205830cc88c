"""What every vault promises: the embedded one, Infisical over HTTP, and the fake of the tests."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from scanning.adapters.vault.infisical import InfisicalVault
from scanning.adapters.vault.local import LocalVault
from scanning.core.errors import VaultUnavailable
from scanning.core.types import KeyPair
from scanning.core.vault_names import halves_of
from scanning.ports import Vault
from tests.support.fakes import FakeVault
from tests.support.infisical_server import site_of

PAIR = KeyPair("AKIAPLAINTOSEE", "wJalrPlainToSee")
OTHER = KeyPair("AKIAOTHERTOSEE", "otherPlainToSee")


@dataclass
class Place:
    """Somewhere to keep keys; ``open`` gives what another process would have."""

    open: Callable[[], Vault]
    entries: Callable[[], dict[str, str]]
    fall_ill: Callable[[], object]


@pytest.fixture
def embedded(tmp_path: Path) -> Place:
    path, key = tmp_path / "vault.enc", Fernet.generate_key().decode()
    return Place(
        lambda: LocalVault(path, key),
        lambda: dict(LocalVault(path, key)._entries()),
        lambda: path.write_bytes(b"nonsense"),
    )


@pytest.fixture
def infisical(infisical_server) -> Place:
    site = site_of(infisical_server)
    return Place(
        lambda: InfisicalVault(site), lambda: infisical_server.values, infisical_server.stop
    )


@pytest.fixture
def fake() -> Place:
    vault = FakeVault()

    def fall_ill() -> None:
        vault.before_read = raise_unavailable

    return Place(lambda: vault, lambda: vault.entries, fall_ill)


def raise_unavailable() -> None:
    raise VaultUnavailable("the vault is away")


@pytest.fixture(params=["embedded", "infisical", "fake"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(request.param)
    return found


def test_an_empty_vault_holds_no_pairs(place):
    assert place.open().read_all() == {}


def test_a_pair_can_be_read_back_replaced_and_forgotten(place):
    vault = place.open()
    vault.write("MEDIA_IN", PAIR)
    assert place.open().read_all() == {"MEDIA_IN": PAIR}
    vault.write("MEDIA_IN", OTHER)
    assert place.open().read_all() == vault.read_all() == {"MEDIA_IN": OTHER}
    for _ in range(2):
        vault.delete_many(halves_of("MEDIA_IN"))
    assert place.open().read_all() == {}


def test_the_names_are_those_of_existing_vaults(place):
    place.open().write("MEDIA_IN", PAIR)
    assert place.entries() == {
        "MEDIA_IN_ACCESS_KEY": PAIR.access_key,
        "MEDIA_IN_SECRET_KEY": PAIR.secret_key,
    }


def test_one_name_may_begin_like_another(place):
    vault = place.open()
    for prefix in ("A", "A_B", "A.B", "A_ACCESS_KEY"):
        vault.write(prefix, KeyPair(f"access {prefix}", f"secret {prefix}"))
    vault.delete_many(halves_of("A"))
    assert vault.read_all() == {
        prefix: KeyPair(f"access {prefix}", f"secret {prefix}")
        for prefix in ("A_B", "A.B", "A_ACCESS_KEY")
    }


def test_single_secrets_are_kept_beside_the_pairs_and_are_none(place):
    vault = place.open()
    vault.write("A", PAIR)
    vault.write_many({"A_WEBHOOK_CLIENT_SECRET": "s"})
    assert vault.read_all() == {"A": PAIR}
    vault.delete_many(halves_of("A"))
    assert place.entries() == {"A_WEBHOOK_CLIENT_SECRET": "s"}
    for _ in range(2):
        vault.delete_many(["A_WEBHOOK_CLIENT_SECRET"])
    assert place.entries() == {}


def test_many_entries_are_written_and_some_read_back(place):
    entries = {"A_ACCESS_KEY": "a", "A_SECRET_KEY": "s", "B_WEBHOOK_CLIENT_SECRET": "w"}
    place.open().write_many(entries)
    assert place.open().names() == entries.keys()
    wanted = ["B_WEBHOOK_CLIENT_SECRET", "A_ACCESS_KEY", "GONE"]
    found = {"B_WEBHOOK_CLIENT_SECRET": "w", "A_ACCESS_KEY": "a"}
    assert place.open().read_secrets(wanted) == found
    assert place.open().read_all() == {"A": KeyPair("a", "s")}


def test_many_entries_are_forgotten_and_no_others(place):
    place.open().write_many({"A": "a", "B": "b", "C": "c"})
    for _ in range(2):
        place.open().delete_many(["A", "C", "GONE"])
    assert place.entries() == {"B": "b"}


def test_half_a_pair_is_none(place):
    vault = place.open()
    vault.write_many({"A_ACCESS_KEY": "half"})
    vault.write_many({"B_SECRET_KEY": "half"})
    assert vault.read_all() == {}


@pytest.mark.parametrize(
    "value", ["+/=%&?#", 'quo"te\\n', "in\nside", "ключ 🗝", "${SECRET}", "x" * 4000]
)
def test_a_value_comes_back_as_it_was(place, value):
    vault = place.open()
    vault.write("A", KeyPair("access", value))
    assert vault.read_all()["A"].secret_key == value


def test_many_who_write_at_once_lose_nothing(place):
    vault = place.open()
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(vault.write, f"P{number}", PAIR) for number in range(8)]:
            done.result()
    assert set(vault.read_all()) == {f"P{number}" for number in range(8)}


def test_a_vault_that_is_ill_says_that_it_is_unavailable_and_shows_nothing(place):
    vault = place.open()
    vault.write("A", PAIR)
    place.fall_ill()
    with pytest.raises(VaultUnavailable) as error:
        vault.read_all()
    assert "ToSee" not in f"{error.value!r} {error.value.__cause__!r} {vault!r} {PAIR!r}"
