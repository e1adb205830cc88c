"""Vault entries that nobody needs any more: remembered with the deletion, removed after it.

A row is written in the transaction that deletes the last user of a vault entry, and deleted when
the vault has forgotten the entry. The removal itself happens only if nobody uses the name again,
and outside any transaction; meanwhile the row is a claim, as `vault_writes.py` describes it, so
that whoever stores something new under the name waits until the removal is over.
"""

from __future__ import annotations

import logging
import math
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from django.db import transaction
from django.utils import timezone

from buckets import selectors
from buckets.batching import in_batches
from buckets.models import Credential, VaultRemoval
from buckets.sync.cooldown import Cooldown
from scanning import wiring
from scanning.core.errors import BucketwatchError
from scanning.core.vault_names import halves_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

logger = logging.getLogger(__name__)

Kind = VaultRemoval.Kind

# After a failure the vault is left alone for so long: each try may cost a time-out.
_COOLDOWN_S = 60.0
_BATCH = 25
_CLAIMED = timedelta(minutes=1)
_FLUSH_AT_MOST_S = 2.0

_outage = Cooldown(_COOLDOWN_S)


def add(kind: VaultRemoval.Kind, *names: str) -> None:
    """Have vault entries removed; inside the transaction that deletes their last user."""
    if not names:
        return
    rows = [VaultRemoval(kind=kind, name=name) for name in names]
    VaultRemoval.objects.bulk_create(rows, ignore_conflicts=True)
    transaction.on_commit(flush, robust=True)


def flush() -> bool:
    """Remove what waits, unless the vault failed a moment ago; False if something has to wait on.

    Thousands take a while, and somebody waits for a page: it stops after some seconds. The monitor
    calls it again every few seconds.
    """
    if not selectors.vault_removals_wait():
        return True
    return not _outage.is_active() and _remove_all(until=time.monotonic() + _FLUSH_AT_MOST_S)


def flush_now() -> bool:
    """Remove what waits; False if something has to wait on. Raises only the database's errors."""
    return _remove_all(until=math.inf)


def _remove_all(*, until: float) -> bool:
    waiting = selectors.due_removals().values_list("pk", flat=True)
    for part in in_batches(waiting, size=_BATCH):
        if time.monotonic() > until:
            return False
        try:
            _remove(part)
        except BucketwatchError as exc:
            _outage.start()
            logger.warning("Vault entries that nobody uses are not removed yet: %s", exc)
            return False
    return True


def _remove(pks: list[int]) -> None:
    until = timezone.now() + _CLAIMED
    with transaction.atomic():
        rows = list(selectors.due_removals().select_for_update().filter(pk__in=pks))
        unused = unused_entries(rows)
        claimed = VaultRemoval.objects.filter(pk__in=[row.pk for row in rows])
        claimed.update(created_at=until)
    try:
        if unused:
            wiring.vault().delete_many(unused)
    except BaseException:
        with transaction.atomic():
            for row in rows:
                claimed.filter(pk=row.pk).update(created_at=row.created_at)
        raise
    claimed.delete()


def unused_entries(rows: Sequence[VaultRemoval]) -> set[str]:
    """Name the rows' vault entries that nobody uses."""
    return {*_unused_pairs(rows), *_unused_secrets(rows)}


def _unused_pairs(rows: Iterable[VaultRemoval]) -> Iterator[str]:
    prefixes = {row.name for row in rows if row.kind == Kind.PAIR}
    users = Credential.objects.filter(vault_prefix__in=prefixes)
    for prefix in prefixes - set(users.values_list("vault_prefix", flat=True)):
        yield from halves_of(prefix)


def _unused_secrets(rows: Iterable[VaultRemoval]) -> set[str]:
    names = {row.name for row in rows if row.kind == Kind.SECRET}
    return names - selectors.webhook_secrets() if names else names
