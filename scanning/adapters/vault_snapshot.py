"""All key pairs of the vault in memory, read in one call and shared by a process's scans."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Self

from scanning.core.errors import CredentialMissing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from scanning.core.types import KeyPair
    from scanning.ports import Vault

FRESH_S = 60.0
# A credential that is not in the snapshot may be newer than it; ask again, but not for each scan.
_LOOK_AGAIN_S = 2.0


class CredentialSnapshot:
    """Thread-safe; one thread reads the vault, the others wait for it."""

    def __init__(self, vault: Vault, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._vault = vault
        self._clock = clock
        self._lock = threading.Lock()
        self._pairs: Mapping[str, KeyPair] = {}
        self._read_at = float("-inf")

    def get(self, prefix: str) -> KeyPair:
        """The key pair under a vault prefix. Raises CredentialMissing, VaultUnavailable."""
        with self._lock:
            age_s = self._clock() - self._read_at
            if age_s > FRESH_S or (prefix not in self._pairs and age_s > _LOOK_AGAIN_S):
                self._read()
            pair = self._pairs.get(prefix)
        if pair is None:
            raise CredentialMissing(
                f"the vault holds no {prefix}_ACCESS_KEY and {prefix}_SECRET_KEY: "
                "enter the bucket's keys again"
            )
        return pair

    def reload(self) -> Self:
        """Read the vault now: S3 has just refused a key pair."""
        with self._lock:
            self._read()
        return self

    def _read(self) -> None:
        self._pairs = self._vault.read_all()
        self._read_at = self._clock()
