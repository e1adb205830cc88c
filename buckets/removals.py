"""Vault entries that nobody needs any more: remembered with the deletion, removed after it.

A row is written in the transaction that deletes the last user of a vault entry, and deleted when
the vault has forgotten the entry. The removal itself happens under the row's lock, and only if
nobody uses the name again: whoever stores something new under it deletes the row first
(``cancel``), and so waits until a removal that is under way is over.
"""

from __future__ import annotations

import logging

from django.db import transaction

from buckets import selectors
from buckets.models import Credential, VaultRemoval
from buckets.outages import Outage
from scanning import wiring
from scanning.core.errors import BucketwatchError

logger = logging.getLogger(__name__)

Kind = VaultRemoval.Kind

# After a failure the vault is left alone for so long: each try may cost a time-out.
_LEAVE_IT_S = 60.0


_outage = Outage(_LEAVE_IT_S)


def add(kind: VaultRemoval.Kind, name: str) -> None:
    """Have a vault entry removed; inside the transaction that deletes its last user."""
    VaultRemoval.objects.get_or_create(kind=kind, name=name)
    transaction.on_commit(flush, robust=True)


def cancel(kind: VaultRemoval.Kind, *names: str) -> None:
    """Keep what is about to be stored under these names; inside the transaction that stores it."""
    VaultRemoval.objects.filter(kind=kind, name__in=names).delete()


def flush() -> bool:
    """Remove what waits, unless the vault failed a moment ago; False if something has to wait on.

    The monitor calls it every few seconds.
    """
    if not VaultRemoval.objects.exists():
        return True
    return not _outage.goes_on() and flush_now()


def flush_now() -> bool:
    """Remove what waits; False if something has to wait on. Raises only the database's errors."""
    for pk in VaultRemoval.objects.values_list("pk", flat=True):
        try:
            _remove(pk)
        except BucketwatchError as exc:
            _outage.note()
            logger.warning("A vault entry that nobody uses is not removed yet: %s", exc)
            return False
    return True


def _remove(pk: int) -> None:
    with transaction.atomic():
        row = VaultRemoval.objects.select_for_update().filter(pk=pk).first()
        if row is None:
            return
        if row.kind == Kind.SECRET and not selectors.is_webhook_secret(row.name):
            wiring.vault().delete_secret(row.name)
        if row.kind == Kind.PAIR and not Credential.objects.filter(vault_prefix=row.name).exists():
            wiring.vault().delete(row.name)
        row.delete()
