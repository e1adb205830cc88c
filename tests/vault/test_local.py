"""The embedded vault: one encrypted file that processes share, and that is never written over."""

import logging
import os
import stat
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest
from cryptography.fernet import Fernet

from scanning.adapters.vault.local import LocalVault, open_local_vault
from scanning.core.errors import ConfigurationError, VaultUnavailable
from scanning.core.types import KeyPair
from scanning.core.vault_names import halves_of

PAIR = KeyPair("AKIAPLAINTOSEE", "wJalrPlainToSee")
OTHER = KeyPair("AKIAOTHER", "other")


@pytest.fixture
def key() -> str:
    return Fernet.generate_key().decode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vault.enc"


def test_a_key_pair_can_be_read_back_replaced_and_forgotten(path, key):
    vault = LocalVault(path, key)
    assert vault.read_all() == {}

    vault.write("MEDIA_IN", PAIR)
    assert LocalVault(path, key).read_all() == {"MEDIA_IN": PAIR}

    vault.write("MEDIA_IN", OTHER)
    assert vault.read_all() == {"MEDIA_IN": OTHER}

    vault.delete_many(halves_of("MEDIA_IN"))
    vault.delete_many(halves_of("MEDIA_IN"))
    assert LocalVault(path, key).read_all() == {}


def test_single_secrets_live_beside_the_pairs_and_do_not_look_like_one(path, key):
    vault = LocalVault(path, key)
    vault.write("MEDIA_IN", PAIR)
    vault.write_many({"MEDIA_IN_WEBHOOK_CLIENT_SECRET": "s"})
    vault.write_many({"HALF_ACCESS_KEY": "half"})

    assert vault.read_all() == {"MEDIA_IN": PAIR}

    vault.delete_many(halves_of("MEDIA_IN"))
    vault.delete_many(["HALF_ACCESS_KEY"])
    vault.delete_many(["HALF_ACCESS_KEY"])
    assert vault._entries() == {"MEDIA_IN_WEBHOOK_CLIENT_SECRET": "s"}


def test_many_entries_are_written_at_once_and_some_are_read_back(path, key):
    vault = LocalVault(path, key)
    entries = {"A_ACCESS_KEY": "a", "A_SECRET_KEY": "s", "B_WEBHOOK_CLIENT_SECRET": "w"}

    vault.write_many(entries)

    assert vault.names() == entries.keys()
    assert vault.read_all() == {"A": KeyPair("a", "s")}
    wanted = ["B_WEBHOOK_CLIENT_SECRET", "GONE"]
    assert LocalVault(path, key).read_secrets(wanted) == {"B_WEBHOOK_CLIENT_SECRET": "w"}


def test_the_pairs_have_the_names_that_older_vaults_use(path, key):
    vault = LocalVault(path, key)
    vault.write("MEDIA_IN", PAIR)

    assert set(vault._entries()) == {"MEDIA_IN_ACCESS_KEY", "MEDIA_IN_SECRET_KEY"}


def test_nothing_readable_is_on_disk_and_only_the_owner_may_read(tmp_path):
    before = os.umask(0)
    try:
        open_local_vault(tmp_path, None).write("MEDIA_IN", PAIR)
    finally:
        os.umask(before)

    files = list(tmp_path.iterdir())
    assert {file.name for file in files} == {"vault.enc", "vault.key", "vault.lock"}
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert b"PlainToSee" not in file.read_bytes()
        assert b"MEDIA" not in file.read_bytes()


def test_a_change_by_another_process_is_seen_at_the_next_read(path, key):
    ours, theirs = LocalVault(path, key), LocalVault(path, key)
    theirs.write("A", PAIR)
    assert ours.read_all() == {"A": PAIR}

    theirs.write("A", OTHER)
    assert ours.read_all() == {"A": OTHER}
    path.unlink()
    assert ours.read_all() == {}


def test_the_file_is_decrypted_once_as_long_as_it_stays_the_same(path, key):
    vault = LocalVault(path, key)
    vault.write("A", PAIR)

    assert vault._entries() is vault._entries()


def test_the_key_is_made_once_with_a_warning_that_says_what_to_back_up(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        open_local_vault(tmp_path, None).write("A", PAIR)
        assert open_local_vault(tmp_path, None).read_all() == {"A": PAIR}

    [warning] = caplog.messages
    assert "back up" in warning
    assert str(tmp_path / "vault.key") in warning
    assert (tmp_path / "vault.key").read_text().strip() not in warning


def test_a_given_key_is_used_and_none_is_made(tmp_path, key, caplog):
    open_local_vault(tmp_path, key).write("A", PAIR)

    assert not (tmp_path / "vault.key").exists()
    assert not caplog.messages


def test_a_given_key_that_is_none_says_how_to_make_one(tmp_path):
    with pytest.raises(
        ConfigurationError, match=r"^VAULT_KEY is not a vault key .*generate_key"
    ) as e:
        open_local_vault(tmp_path, "tooshorttobeakey")
    assert "tooshort" not in str(e.value)


def test_a_wrong_key_names_vault_key_and_leaves_the_file_alone(tmp_path, key):
    open_local_vault(tmp_path, key).write("A", PAIR)
    content = (tmp_path / "vault.enc").read_bytes()
    wrong = open_local_vault(tmp_path, Fernet.generate_key().decode())

    for attempt in (
        wrong.read_all,
        lambda: wrong.write("B", PAIR),
        lambda: wrong.delete_many(["A_ACCESS_KEY"]),
        lambda: wrong.write_many({"B": "b"}),
    ):
        with pytest.raises(ConfigurationError, match="VAULT_KEY does not open the vault"):
            attempt()
    assert (tmp_path / "vault.enc").read_bytes() == content


def test_a_vault_whose_key_file_is_gone_is_never_given_a_new_key(tmp_path):
    open_local_vault(tmp_path, None).write("A", PAIR)
    (tmp_path / "vault.key").unlink()

    with pytest.raises(ConfigurationError, match=r"VAULT_KEY is not set and .*vault\.key is gone"):
        open_local_vault(tmp_path, None)
    assert not (tmp_path / "vault.key").exists()


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: content[:-40], id="cut-off"),
        pytest.param(lambda content: b"\xff\xfe" + content, id="not-text"),
        pytest.param(lambda content: content.replace(b"vault", b"fault"), id="another-head"),
        pytest.param(lambda content: content[:60] + b"AAAA" + content[64:], id="changed"),
    ],
)
def test_a_damaged_file_is_said_so_and_never_written_over(path, key, damage):
    LocalVault(path, key).write("A", PAIR)
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    vault = LocalVault(path, key)

    for attempt in (
        vault.read_all,
        lambda: vault.write("B", PAIR),
        lambda: vault.delete_many(halves_of("A")),
    ):
        with pytest.raises(VaultUnavailable, match=r"vault\.enc"):
            attempt()
    assert path.read_bytes() == damaged


def test_what_a_crash_left_half_written_is_no_obstacle(path, key):
    vault = LocalVault(path, key)
    vault.write("A", PAIR)
    path.with_name("vault.enc.new").write_text("half a vau")

    vault.write("B", OTHER)

    assert LocalVault(path, key).read_all() == {"A": PAIR, "B": OTHER}


def test_a_directory_that_cannot_be_written_is_named(tmp_path, key):
    vault = LocalVault(tmp_path / "gone" / "vault.enc", key)

    assert vault.read_all() == {}
    with pytest.raises(VaultUnavailable, match=r"Cannot lock the vault .*DATA_DIR"):
        vault.write("A", PAIR)


def test_a_full_disk_loses_nothing(path, key, monkeypatch):
    vault = LocalVault(path, key)
    vault.write("A", PAIR)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(VaultUnavailable, match="No space left on device"):
        vault.write("B", OTHER)
    monkeypatch.undo()

    assert LocalVault(path, key).read_all() == {"A": PAIR}


def test_threads_and_processes_that_write_at_once_lose_nothing(path, key):
    program = (
        "import sys; from pathlib import Path\n"
        "from scanning.adapters.vault.local import LocalVault\n"
        "from scanning.core.types import KeyPair\n"
        "vault = LocalVault(Path(sys.argv[1]), sys.stdin.read())\n"
        "for n in range(10): vault.write(f'{sys.argv[2]}{n}', KeyPair(sys.argv[2], str(n)))\n"
    )
    arguments = [sys.executable, "-c", program, str(path)]
    processes = [
        subprocess.Popen([*arguments, name], stdin=subprocess.PIPE, text=True)
        for name in ("P", "Q")
    ]
    vault = LocalVault(path, key)

    def write_ten(name: str) -> None:
        for number in range(10):
            vault.write(f"{name}{number}", PAIR)

    threads = [Thread(target=write_ten, args=[name]) for name in ("T", "U")]
    for thread in threads:
        thread.start()
    for process in processes:
        process.communicate(key)
    for thread in threads:
        thread.join()

    assert [process.returncode for process in processes] == [0, 0]
    assert len(vault.read_all()) == 40


def test_two_processes_that_start_at_once_agree_on_the_key(tmp_path):
    program = (
        "import sys; from pathlib import Path\n"
        "from scanning.adapters.vault.local import open_local_vault\n"
        "from scanning.core.types import KeyPair\n"
        "open_local_vault(Path(sys.argv[1]), None).write(sys.argv[2], KeyPair('a', 's'))\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path), name], stderr=-3)
        for name in ("P", "Q", "R")
    ]

    assert [process.wait() for process in processes] == [0, 0, 0]
    assert set(open_local_vault(tmp_path, None).read_all()) == {"P", "Q", "R"}


def test_its_representation_shows_no_key(path, key):
    assert key not in repr(LocalVault(path, key))


def test_a_key_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "vault.key").mkdir()

    with pytest.raises(ConfigurationError, match=r"VAULT_KEY is not set, and .*vault\.key cannot"):
        open_local_vault(tmp_path, None)


def test_a_key_that_cannot_be_stored_is_not_used(tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigurationError, match=r"No space left on device; set VAULT_KEY"):
        open_local_vault(tmp_path, None)

    assert not (tmp_path / "vault.key").exists()
