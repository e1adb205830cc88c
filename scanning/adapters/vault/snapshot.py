"""All key pairs of the vault in memory, read in one call and shared by a process's scans.

One thread reads while the others go on with what is known, or wait if they know nothing yet. What
the vault does not answer, or no longer lists, is served from before for `STALE_S`: S3 itself
refuses keys that were withdrawn.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from scanning.core.errors import BucketwatchError, CredentialMissing, VaultUnavailable
from scanning.core.pacing import draw_jitter, equal_jitter
from scanning.core.vault_names import halves_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from scanning.core.types import KeyPair
    from scanning.ports import Vault

logger = logging.getLogger(__name__)

FRESH_S: Final = 60.0
STALE_S: Final = 24 * 3600.0
# A credential that is not in the snapshot may be newer than it; ask again, but not for each scan.
_LOOK_AGAIN_S: Final = 2.0
# Between two reads because S3 refused keys: this at first, twice as long after each that was in
# vain, up to FRESH_S. A bucket with wrong keys does not make every scan read the vault.
_RELOAD_S: Final = 5.0
_MOST_BACK_OFF_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Known:
    pair: KeyPair
    read_at: float


class CredentialSnapshot:
    """Thread-safe; for one process."""

    def __init__(
        self,
        vault: Vault,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = draw_jitter,
    ) -> None:
        self._vault = vault
        self._clock = clock
        self._jitter = jitter
        self._changed = threading.Condition()
        self._known: Mapping[str, _Known] = {}
        self._read_at = float("-inf")
        self._logged_as_lost: frozenset[str] = frozenset()
        # Who reads now, and when the next one may.
        self._reading = self._reloading = False
        self._problem: BucketwatchError | None = None
        self._failures = 0
        self._next_read_at = self._next_reload_at = float("-inf")
        self._reload_gap_s = _RELOAD_S

    def get(self, prefix: str) -> KeyPair:
        """Return the key pair under a vault prefix, read now if it is not fresh.

        Raises CredentialMissing, or VaultUnavailable, VaultRefused or ConfigurationError when the
        vault does not answer and never did within `STALE_S`.
        """
        with self._changed:
            may_read = self._is_due(prefix) and self._begin_read(has_pair=self._serves(prefix))
        if may_read:
            self._read()
        with self._changed:
            return self._pair(prefix)

    def reload(self) -> Self:
        """Read the vault again, if it was not just done: S3 has refused a key pair.

        All who ask at the same time share one read. While the vault is away nothing changes.
        """
        with self._changed:
            may_read = self._begin_reload()
        if may_read:
            self._read()
        return self

    def age_s(self) -> float | None:
        """Return the seconds since the vault last answered; None if it never did."""
        with self._changed:
            return self._clock() - self._read_at if self._is_read else None

    @property
    def _is_read(self) -> bool:
        return self._read_at > float("-inf")

    def _serves(self, prefix: str) -> bool:
        known = self._known.get(prefix)
        return known is not None and self._clock() - known.read_at <= STALE_S

    def _is_due(self, prefix: str) -> bool:
        age_s = self._clock() - self._read_at
        return age_s > FRESH_S or (not self._serves(prefix) and age_s > _LOOK_AGAIN_S)

    def _begin_read(self, *, has_pair: bool) -> bool:
        """Become the reader; without a pair to serve, wait for the thread that reads already."""
        if self._reading:
            if not has_pair:
                self._changed.wait_for(lambda: not self._reading)
            return False
        if self._clock() < self._next_read_at:
            return False
        self._reading = True
        return True

    def _begin_reload(self) -> bool:
        while self._reading:
            # One that began before S3 refused our keys may have read the old ones.
            is_ours = self._reloading
            self._changed.wait_for(lambda: not self._reading)
            if is_ours:
                return False
        if self._clock() < max(self._next_read_at, self._next_reload_at):
            return False
        self._reading = self._reloading = True
        return True

    def _read(self) -> None:
        """Ask the vault, without the lock; only for whoever began the read."""
        pairs: Mapping[str, KeyPair] | None = None
        problem: BucketwatchError = VaultUnavailable("the vault cannot be read, see the log")
        try:
            pairs = self._vault.read_all()
        except BucketwatchError as exc:
            problem = exc
        finally:
            with self._changed:
                if pairs is None:
                    self._note_failure(problem)
                else:
                    self._store_pairs(pairs)
                self._reading = self._reloading = False
                self._changed.notify_all()

    def _store_pairs(self, pairs: Mapping[str, KeyPair]) -> None:
        now = self._clock()
        if self._failures:
            logger.info("The vault answers again")
        before = {prefix: known.pair for prefix, known in self._known.items()}
        lost = {
            prefix: known
            for prefix, known in self._known.items()
            if prefix not in pairs and now - known.read_at <= STALE_S
        }
        self._known = lost | {prefix: _Known(pair, now) for prefix, pair in pairs.items()}
        self._logged_as_lost &= lost.keys()
        self._read_at, self._problem, self._failures = now, None, 0
        if self._reloading:
            news = any(before.get(prefix) != pair for prefix, pair in pairs.items())
            gap_s = _RELOAD_S if news else self._reload_gap_s
            self._next_reload_at = now + gap_s
            self._reload_gap_s = min(gap_s * 2, FRESH_S)

    def _note_failure(self, problem: BucketwatchError) -> None:
        now = self._clock()
        if self._is_read and type(problem) is not type(self._problem):
            logger.error(
                "The vault cannot be read; going on with the keys of %.0f s ago, for %.0f h at "
                "most: %s",
                now - self._read_at,
                STALE_S / 3600,
                problem,
            )
        self._problem = problem
        back_off_s = equal_jitter(min(2.0**self._failures, _MOST_BACK_OFF_S), self._jitter())
        self._failures += 1
        self._next_read_at = now + back_off_s

    def _pair(self, prefix: str) -> KeyPair:
        if not self._serves(prefix):
            raise self._missing_error(prefix)
        known = self._known[prefix]
        if self._is_lost(known) and prefix not in self._logged_as_lost:
            self._log_lost_pairs()
        return known.pair

    def _missing_error(self, prefix: str) -> BucketwatchError:
        if self._problem is not None:
            # A new one for each thread: they collect tracebacks.
            return type(self._problem)(str(self._problem))
        text = f"the vault holds no {' and '.join(halves_of(prefix))}"
        if not self._known:
            text += " (nor any other: is it the right vault?)"
        return CredentialMissing(f"{text}: enter the bucket's keys again")

    def _log_lost_pairs(self) -> None:
        lost = sorted(prefix for prefix, known in self._known.items() if self._is_lost(known))
        self._logged_as_lost = frozenset(lost)
        some = ", ".join(lost[:5]) + (", …" if len(lost) > 5 else "")
        logger.error(
            "The vault lists %d key pairs and no longer %d that were there (%s). Going on with "
            "those, for %.0f h at most: enter them again, or correct the vault's settings",
            len(self._known) - len(lost),
            len(lost),
            some,
            STALE_S / 3600,
        )

    def _is_lost(self, known: _Known) -> bool:
        return known.read_at < self._read_at
