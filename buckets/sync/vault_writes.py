"""Keys and secrets on their way into the vault, which is written before the rows that use them.

A vault may take many seconds, and with SQLite nobody else writes while a transaction does: so
none is open meanwhile. Three steps, of which the last can fail:

1.  The entries' names are *claimed*, and that is committed: whoever else wants to write or to
    remove one of them waits, so that two never mix their keys. A claim is a ``VaultRemoval`` that
    is due only later: if we crash, it removes what we wrote, unless somebody uses that.
2.  The vault is written.
3.  The rows are committed, and with them the claims go. If the database refuses them, what the
    vault held before is put back, and what it did not hold becomes a removal.
"""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from django.db import Error as DatabaseError
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone

from buckets.models import VaultRemoval
from buckets.sync import vault_removals
from scanning import wiring
from scanning.core.errors import BucketwatchError, VaultUnavailable
from scanning.core.vault_names import entries_of, halves_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from scanning.core.types import KeyPair

logger = logging.getLogger(__name__)

# Longer than the vault may take: twice ten seconds, and of many entries a second each.
_CLAIMED_S = 30
_PATIENCE_S = 15.0
_RETRY_S = 0.1
_BUSY = "Somebody else is writing the same keys at this moment: try again in a minute."
_TOO_SLOW = "The vault took too long to store the keys: try again."


@dataclass(frozen=True, slots=True)
class Writing:
    """What is to be written: ``pairs`` by vault prefix, ``secrets`` by the entry's name.

    A pair that is None is one that the vault holds already, and is to keep.
    """

    pairs: Mapping[str, KeyPair | None] = field(default_factory=dict, repr=False)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def entries(self) -> dict[str, str]:
        found = dict(self.secrets)
        for prefix, pair in self.pairs.items():
            found |= entries_of(prefix, pair) if pair else {}
        return found

    @property
    def claims(self) -> list[tuple[VaultRemoval.Kind, str]]:
        pairs = [(vault_removals.Kind.PAIR, prefix) for prefix in self.pairs]
        return [*pairs, *((vault_removals.Kind.SECRET, name) for name in self.secrets)]


@dataclass(frozen=True, slots=True)
class _Claim:
    """Our rows; ``foreign`` are entries that nobody here used, and that were not to be removed."""

    rows: list[VaultRemoval]
    foreign: frozenset[str]


@contextmanager
def stored(writing: Writing) -> Iterator[None]:
    """Write the vault; what is done within is one transaction, and taken back together with it.

    Raises the vault's errors, and VaultUnavailable if somebody else is writing the same entries.
    """
    if not writing.claims:
        with transaction.atomic():
            yield
        return
    claim = _claim(writing)
    before: Mapping[str, str] = {}
    has_written = False
    try:
        if entries := writing.entries:
            before = wiring.vault().read_secrets(entries)
            has_written = True
            wiring.vault().write_many(entries)
        with transaction.atomic():
            yield
            _release(claim)
    except BaseException:
        _roll_back(claim, before, has_written=has_written)
        raise


def _claim(writing: Writing) -> _Claim:
    give_up_at = time.monotonic() + _PATIENCE_S
    while (claim := _try_to_claim(writing)) is None:
        if time.monotonic() > give_up_at:
            raise VaultUnavailable(_BUSY)
        time.sleep(_RETRY_S)
    return claim


def _try_to_claim(writing: Writing) -> _Claim | None:
    """Take the place of removals that wait; None while somebody else has a claim."""
    now = timezone.now()
    until = now + timedelta(seconds=_CLAIMED_S + len(writing.entries))
    wanted = Q(kind=vault_removals.Kind.PAIR, name__in=writing.pairs.keys())
    wanted |= Q(kind=vault_removals.Kind.SECRET, name__in=writing.secrets.keys())
    try:
        with transaction.atomic():
            found = list(VaultRemoval.objects.select_for_update().filter(wanted))
            if any(row.created_at > now for row in found):
                return None
            VaultRemoval.objects.filter(pk__in=[row.pk for row in found]).delete()
            rows = [VaultRemoval(kind=k, name=n, created_at=until) for k, n in writing.claims]
            VaultRemoval.objects.bulk_create(rows)
    except IntegrityError:  # somebody was faster than our look
        return None
    to_be_removed = {name for row in found for name in _entries_of(row)}
    return _Claim(rows, frozenset(vault_removals.unused_entries(rows) - to_be_removed))


def _release(claim: _Claim) -> None:
    """Keep what was written. Raises VaultUnavailable if it may have been removed meanwhile."""
    ours = [row.pk for row in claim.rows]
    number, _ = VaultRemoval.objects.filter(pk__in=ours, created_at__gt=timezone.now()).delete()
    if number != len(ours):
        raise VaultUnavailable(_TOO_SLOW)


def _roll_back(claim: _Claim, before: Mapping[str, str], *, has_written: bool) -> None:
    """Put back what the vault held; have the rest removed, unless somebody uses it."""
    if has_written and before:
        try:
            wiring.vault().write_many(before)
        except BucketwatchError as exc:
            names = ", ".join(sorted(before))
            logger.warning("A change failed, and the vault may hold new %s: %s", names, exc)
    kept = claim.foreign & before.keys() if has_written else claim.foreign
    due = [row.pk for row in claim.rows if not kept.issuperset(_entries_of(row))]
    try:
        with transaction.atomic():
            VaultRemoval.objects.filter(pk__in=due).update(created_at=timezone.now())
            rest = {row.pk for row in claim.rows} - set(due)
            VaultRemoval.objects.filter(pk__in=rest).delete()
    except DatabaseError as exc:
        logger.warning("What was written to the vault is removed a little later: %s", exc)


def _entries_of(row: VaultRemoval) -> tuple[str, ...]:
    return halves_of(row.name) if row.kind == vault_removals.Kind.PAIR else (row.name,)
