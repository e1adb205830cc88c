"""A new key for the embedded vault: whatever moment it is interrupted at, nothing is lost."""

import os
import re
import stat
from collections.abc import Callable
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core.management import CommandError, call_command
from pydantic import SecretStr

from scanning import wiring
from scanning.adapters.vault.local import open_local_vault, rotate_key
from scanning.core.errors import ConfigurationError, VaultUnavailable
from scanning.core.types import KeyPair

PAIR = KeyPair("AKIAPLAINTOSEE", "wJalrPlainToSee")


class PulledPlugError(BaseException):
    """The power is gone: no code of ours runs afterwards."""


@pytest.fixture(params=["VAULT_KEY", "vault.key"])
def vault_key(request: pytest.FixtureRequest) -> str | None:
    return Fernet.generate_key().decode() if request.param == "VAULT_KEY" else None


@pytest.fixture
def entries(tmp_path: Path, vault_key: str | None) -> dict[str, KeyPair]:
    open_local_vault(tmp_path, vault_key).write("A", PAIR)
    return {"A": PAIR}


def test_the_old_key_opens_nothing_and_the_new_one_everything(tmp_path, vault_key, entries):
    before = (tmp_path / "vault.key").read_text() if vault_key is None else vault_key
    key_file = rotate_key(tmp_path, vault_key)
    new = key_file.read_text().strip()
    assert new != before.strip()
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert open_local_vault(tmp_path, new).read_all() == entries
    with pytest.raises(ConfigurationError, match="VAULT_KEY"):
        open_local_vault(tmp_path, before.strip()).read_all()


def test_a_key_beside_the_vault_is_replaced_and_found_by_the_next_start(tmp_path):
    open_local_vault(tmp_path, None).write("A", PAIR)
    assert rotate_key(tmp_path, None) == tmp_path / "vault.key"
    assert open_local_vault(tmp_path, None).read_all() == {"A": PAIR}
    assert not (tmp_path / "vault.key.next").exists()


def test_whoever_starts_with_the_old_setting_reads_where_the_new_key_is(tmp_path):
    old = Fernet.generate_key().decode()
    open_local_vault(tmp_path, old).write("A", PAIR)
    rotate_key(tmp_path, old)
    for attempt in (open_local_vault(tmp_path, old).read_all, lambda: rotate_key(tmp_path, old)):
        with pytest.raises(ConfigurationError, match=r"set VAULT_KEY to what is in .*key\.next"):
            attempt()
    new = (tmp_path / "vault.key.next").read_text().strip()
    assert open_local_vault(tmp_path, new).read_all() == {"A": PAIR}


def test_a_process_with_the_old_key_cannot_write_over_the_vault(tmp_path, vault_key, entries):
    running = open_local_vault(tmp_path, vault_key)
    running.read_all()
    key_file = rotate_key(tmp_path, vault_key)
    with pytest.raises(ConfigurationError):
        running.write("B", PAIR)
    assert open_local_vault(tmp_path, key_file.read_text().strip()).read_all() == entries


@pytest.mark.parametrize("moment", range(12))
def test_it_may_be_interrupted_at_any_moment(tmp_path, vault_key, entries, moment, monkeypatch):
    with monkeypatch.context() as patch:
        pull_the_plug(patch, after=moment)
        try:
            rotate_key(tmp_path, vault_key)
        except PulledPlugError:
            pass
        else:
            assert moment >= 8  # it has been interrupted everywhere

    key = key_that_a_start_finds(tmp_path, vault_key)
    assert open_local_vault(tmp_path, key).read_all() == entries
    rotated = rotate_key(tmp_path, key).read_text().strip()
    assert open_local_vault(tmp_path, rotated).read_all() == entries


def pull_the_plug(patch: pytest.MonkeyPatch, *, after: int) -> None:
    """Let so many of the calls that change files happen, and no more."""
    calls = count()

    def until_then(do: Callable[..., Any]) -> Callable[..., Any]:
        def done(*arguments: Any, **named: Any) -> Any:
            if next(calls) >= after:
                raise PulledPlugError
            return do(*arguments, **named)

        return done

    for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "unlink")):
        patch.setattr(owner, name, until_then(getattr(owner, name)))


def key_that_a_start_finds(directory: Path, vault_key: str | None) -> str | None:
    """The setting, or what the error at the start says to set."""
    try:
        open_local_vault(directory, vault_key).read_all()
    except ConfigurationError as exc:
        said = re.search(r"set VAULT_KEY to what is in (\S+), and restart", str(exc))
        if said is None or vault_key is None:
            raise
        return Path(said[1]).read_text().strip()
    return vault_key


def test_a_full_disk_changes_nothing(tmp_path, vault_key, entries, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(VaultUnavailable, match="No space left on device"):
            rotate_key(tmp_path, vault_key)
    assert open_local_vault(tmp_path, vault_key).read_all() == entries


def test_without_a_vault_there_is_nothing_to_do_and_no_key_is_made(tmp_path, vault_key):
    with pytest.raises(ConfigurationError, match=r"There is no vault .*vault\.enc yet"):
        rotate_key(tmp_path, vault_key)
    assert {file.name for file in tmp_path.iterdir()} <= {"vault.lock"}


def test_a_key_that_does_not_open_the_vault_changes_nothing(tmp_path):
    open_local_vault(tmp_path, Fernet.generate_key().decode()).write("A", PAIR)
    content = (tmp_path / "vault.enc").read_bytes()
    with pytest.raises(ConfigurationError, match="does not open the vault"):
        rotate_key(tmp_path, Fernet.generate_key().decode())
    assert (tmp_path / "vault.enc").read_bytes() == content
    assert not (tmp_path / "vault.key.next").exists()


def test_a_next_key_that_fits_nothing_is_left_alone(tmp_path):
    open_local_vault(tmp_path, None).write("A", PAIR)
    (tmp_path / "vault.key.next").write_text(Fernet.generate_key().decode())
    assert open_local_vault(tmp_path, None).read_all() == {"A": PAIR}


def test_the_command_says_what_to_do_and_never_the_key(settings):
    old = Fernet.generate_key().decode()
    settings.SITE = settings.SITE.model_copy(update={"vault_key": SecretStr(old)})
    wiring.reset()
    wiring.vault().write("A", PAIR)
    said = run()
    new = (settings.DATA_DIR / "vault.key.next").read_text().strip()
    assert "Set VAULT_KEY to what is in that file" in said
    assert str(settings.DATA_DIR / "vault.key.next") in said
    assert new not in said
    assert old not in said


def test_the_command_has_less_to_say_where_the_key_is_a_file(settings):
    wiring.vault().write("A", PAIR)
    said = run()
    assert "VAULT_KEY" not in said
    assert f"which is in {settings.DATA_DIR / 'vault.key'}." in said
    wiring.reset()
    assert wiring.vault().read_all() == {"A": PAIR}


def test_the_command_leaves_a_site_with_infisical_alone(settings):
    settings.SITE = settings.SITE.model_copy(update={"infisical_project_id": "p"})
    wiring.reset()
    with pytest.raises(CommandError, match="The keys are in Infisical"):
        run()


def run() -> str:
    out = StringIO()
    call_command("rotatevaultkey", stdout=out)
    return out.getvalue()
