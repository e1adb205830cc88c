"""The embedded vault: one encrypted file beside the database.

    vault.enc       line 1: ``bucketwatch-vault 1 <key id>``; line 2: Fernet token of a JSON object,
                    entry name (`core/vault_names.py`) -> value.  Replaced as a whole, mode 0600.
    vault.key       the Fernet key, if VAULT_KEY is not set; made once, mode 0600.
    vault.key.next  the new key while `rotate_key` works, and afterwards if VAULT_KEY is set.
    vault.lock      held (flock) while the file is read, changed and replaced.

A file that cannot be opened is never written over.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.fernet import Fernet, InvalidToken

from scanning.adapters.vault.files import locked, move, reason, write_atomically
from scanning.core.errors import ConfigurationError, VaultUnavailable
from scanning.core.vault_names import entries_of, pairs_in

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from scanning.core.types import KeyPair

logger = logging.getLogger(__name__)

_MAGIC = "bucketwatch-vault 1"
_NEXT_KEY = "vault.key.next"
_NEW_KEY = (
    'python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"'
)


@dataclass(frozen=True, slots=True)
class _Read:
    """What the file held when it had this identity."""

    identity: tuple[int, int, int] | None
    entries: Mapping[str, str]


class LocalVault:
    """Implements `ports.Vault`; any number of threads and processes may use the same file."""

    def __init__(self, path: Path, key: str, *, key_source: str = "VAULT_KEY") -> None:
        """Take a Fernet key; ``key_source`` says in messages where it came from."""
        try:
            self._fernet = Fernet(key)
        except ValueError:
            raise ConfigurationError(
                f"{key_source} is not a vault key (32 bytes in URL-safe base64). "
                f"Make one with: {_NEW_KEY}"
            ) from None
        self._path = path
        self._key_source = key_source
        self._key_id = _id_of(key)
        self._last = _Read(None, {})
        self._thread_lock = threading.RLock()

    def __repr__(self) -> str:
        return f"LocalVault({str(self._path)!r})"

    def read_all(self) -> Mapping[str, KeyPair]:
        """Read every complete key pair, by vault prefix.

        Raises VaultUnavailable for a file that cannot be read, ConfigurationError for a wrong key.
        """
        return pairs_in(self._entries())

    def write(self, prefix: str, pair: KeyPair) -> None:
        """Create or replace one key pair; both halves change at once."""
        self._put(entries_of(prefix, pair))

    def delete_many(self, names: Collection[str]) -> None:
        """Forget these entries, all at once; those that are not there are as good."""
        self._drop(set(names))

    def names(self) -> frozenset[str]:
        return frozenset(self._entries())

    def read_secrets(self, names: Collection[str]) -> Mapping[str, str]:
        entries = self._entries()
        return {name: entries[name] for name in names if name in entries}

    def write_many(self, entries: Mapping[str, str]) -> None:
        """Create or replace entries by name, all at once."""
        self._put(entries)

    def _put(self, new: Mapping[str, str]) -> None:
        with locked(self._path):
            self._replace({**self._entries(), **new})
            stored = self._entries()
            if any(stored.get(name) != value for name, value in new.items()):
                raise VaultUnavailable(f"{self._path} does not hold what was just written to it")

    def _drop(self, names: set[str]) -> None:
        with locked(self._path):
            entries = self._entries()
            if names & entries.keys():
                self._replace({n: v for n, v in entries.items() if n not in names})

    def _entries(self) -> Mapping[str, str]:
        """Return what the file holds, read again only when it is another one than last time."""
        with self._thread_lock:
            try:
                if self._last.identity is None or self._last.identity != _identity(self._path):
                    self._last = self._read()
            except FileNotFoundError:
                return {}
            except (OSError, UnicodeDecodeError) as exc:
                raise VaultUnavailable(
                    f"Cannot read the vault {self._path}: {reason(exc)}"
                ) from exc
            return self._last.entries

    def _read(self) -> _Read:
        with self._path.open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read().decode("ascii")
        head, _, token = content.partition("\n")
        magic, _, key_id = head.rpartition(" ")
        if magic != _MAGIC:
            raise VaultUnavailable(self._damaged("it does not begin as a vault does"))
        if key_id != self._key_id:
            raise ConfigurationError(self._wrong_key(key_id))
        try:
            entries = json.loads(self._fernet.decrypt(token.strip()))
        except (InvalidToken, ValueError):
            raise VaultUnavailable(self._damaged("its content was cut off or changed")) from None
        return _Read((status.st_ino, status.st_mtime_ns, status.st_size), entries)

    def _wrong_key(self, right_id: str) -> str:
        next_key = self._path.with_name(_NEXT_KEY)
        if _id_in(next_key) == right_id:
            return (
                f"The vault {self._path} was given a new key: set VAULT_KEY to what is in "
                f"{next_key}, and restart"
            )
        return (
            f"{self._key_source} does not open the vault {self._path}: set VAULT_KEY to the key "
            "that it was written with, or move the file away and enter the S3 keys again"
        )

    def _damaged(self, how: str) -> str:
        return (
            f"The vault {self._path} is damaged ({how}): restore it from a backup, "
            "or move it away and enter the S3 keys again"
        )

    def _replace(self, entries: Mapping[str, str]) -> None:
        token = self._fernet.encrypt(json.dumps(entries).encode()).decode()
        try:
            write_atomically(self._path, f"{_MAGIC} {self._key_id}\n{token}\n")
        except OSError as exc:
            raise VaultUnavailable(f"Cannot write the vault {self._path}: {reason(exc)}") from exc


def open_local_vault(data_dir: Path, vault_key: str | None) -> LocalVault:
    """Open the vault in ``data_dir``, under ``vault_key`` or a key made at the first call.

    Raises ConfigurationError when there is a vault and no key, or a key that is none.
    """
    path = data_dir / "vault.enc"
    if vault_key:
        return LocalVault(path, vault_key)
    key_path = data_dir / "vault.key"
    key = _key_beside(path, key_path)
    return LocalVault(path, key, key_source=f"VAULT_KEY is not set, and the key in {key_path}")


def rotate_key(data_dir: Path, vault_key: str | None) -> Path:
    """Encrypt the vault with a new key; returns the file that holds that key.

    The new key is on disk before anything is encrypted with it, so a crash at any moment leaves a
    vault that one of the keys on disk or VAULT_KEY opens; the next start says or finds out which.
    Raises ConfigurationError when there is no vault, or the present key does not open it.
    """
    path = data_dir / "vault.enc"
    with locked(path):
        if not path.exists():
            raise ConfigurationError(f"There is no vault {path} yet, so it needs no other key")
    present = open_local_vault(data_dir, vault_key)
    next_path, key_path = data_dir / _NEXT_KEY, data_dir / "vault.key"
    with locked(path):
        entries = present._entries()  # noqa: SLF001 - one module
        key = Fernet.generate_key().decode()
        try:
            write_atomically(next_path, key + "\n")
            LocalVault(path, key)._replace(entries)
            if vault_key:
                return next_path
            move(next_path, key_path)
        except OSError as exc:
            raise VaultUnavailable(f"Cannot write to {data_dir}: {reason(exc)}") from exc
    return key_path


def _key_beside(path: Path, key_path: Path) -> str:
    with locked(path):
        next_path = path.with_name(_NEXT_KEY)
        if (next_id := _id_in(next_path)) and next_id == _id_that_opens(path):
            move(next_path, key_path)  # a rotation was interrupted just before this
        try:
            return key_path.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            pass
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigurationError(
                f"VAULT_KEY is not set, and {key_path} cannot be read: {reason(exc)}"
            ) from exc
        if path.exists():
            raise ConfigurationError(
                f"VAULT_KEY is not set and {key_path} is gone: set VAULT_KEY to the key that "
                f"{path} was written with, or restore {key_path} from a backup"
            )
        key = Fernet.generate_key().decode()
        try:
            write_atomically(key_path, key + "\n")
        except OSError as exc:
            raise ConfigurationError(
                f"Cannot write a vault key to {key_path}: {reason(exc)}; set VAULT_KEY or DATA_DIR"
            ) from exc
    logger.warning(
        "Made a vault key: back up %s, and not together with %s. Without it the S3 keys stored "
        "there are lost. In production set VAULT_KEY instead.",
        key_path,
        path,
    )
    return key


def _id_of(key: str) -> str:
    return hashlib.sha256(b"bucketwatch vault key id " + key.encode()).hexdigest()[:16]


def _id_in(key_path: Path) -> str | None:
    try:
        return _id_of(key_path.read_text(encoding="ascii").strip())
    except (OSError, UnicodeDecodeError):
        return None


def _id_that_opens(path: Path) -> str | None:
    """Read the id from the head of the vault's file."""
    try:
        head = path.read_text(encoding="ascii").partition("\n")[0]
    except (OSError, UnicodeDecodeError):
        return None
    return head.rpartition(" ")[2]


def _identity(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return (status.st_ino, status.st_mtime_ns, status.st_size)
