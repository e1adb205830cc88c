"""Buckets whose keys were refused, tried again as soon as the vault holds others.

Keys that are entered here make them due by themselves; these were changed in the vault, by hand or
by a rotation that knows nothing of bucketwatch.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from buckets.models import Bucket
from buckets.sync import outbox
from scanning import wiring
from scanning.core import errors
from scanning.core.errors import BucketwatchError

if TYPE_CHECKING:
    from scanning.core.types import KeyPair

logger = logging.getLogger(__name__)

CHECK_S = 60.0
_OF_KEYS = tuple(
    error.__name__
    for error in (
        errors.AccessDenied,
        errors.CredentialMissing,
        errors.CredentialsRejected,
        errors.VaultRefused,
    )
)


class RotatedKeyWatcher:
    """Remember what the vault held for failing buckets at the last check. For one thread."""

    def __init__(self) -> None:
        self._checked_at = float("-inf")
        self._held: dict[str, KeyPair | None] = {}

    def check(self) -> None:
        """Have buckets tried whose keys are others than a minute ago; reads nothing if none fail.

        Raises the database's errors.
        """
        if time.monotonic() - self._checked_at < CHECK_S:
            return
        self._checked_at = time.monotonic()
        failing = Bucket.objects.filter(monitoring_enabled=True, last_error_class__in=_OF_KEYS)
        prefixes = dict(failing.values_list("name", "credential__vault_prefix"))
        held = dict.fromkeys(prefixes.values())
        if prefixes:
            try:
                pairs = wiring.vault().read_all()
            except BucketwatchError as exc:
                logger.debug("new keys wait for the vault: %s", exc)
            else:
                held = {prefix: pairs.get(prefix) for prefix in held}
        # What the vault did not say is no news, but what it says after that is.
        known = self._held
        again = [n for n, p in prefixes.items() if held[p] and p in known and held[p] != known[p]]
        self._held = held
        if again:
            logger.info(
                "the vault holds other keys for %d failing buckets: trying them", len(again)
            )
            outbox.enqueue(again)


# What the monitor's housekeeping runs.
check = RotatedKeyWatcher().check
