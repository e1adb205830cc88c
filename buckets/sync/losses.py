"""What Redis has forgotten of the buckets, by what the database remembers.

Redis may be emptied, restored from an old backup, or come back without its data. What is known of
objects is nowhere else: the next scan would announce everything that Redis forgot. So a bucket of
which commits of more than the failover window are lost is not scanned until an operator has said
how to go on (``services.resume_after_loss``; `docs/adr/0009-what-redis-forgot-waits.md`).
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from buckets import selectors
from buckets.formatting import join_some
from buckets.models import Bucket, Outbox
from buckets.sync import outbox, reconcile
from buckets.sync.cooldown import Cooldown
from scanning import wiring
from scanning.core.errors import StateLost
from scanning.core.remedies import REMEDIES
from scanning.core.types import CommitExpectation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scanning.core.types import Compared, SetBack

logger = logging.getLogger(__name__)

# Single buckets may be lost as well: evicted, or deleted by hand.
_CHECK_AGAIN_S = 60.0
_NAMED = 5
_ANYTHING = 2**53

_cooldown = Cooldown(_CHECK_AGAIN_S)


def check() -> None:
    """Take what Redis forgot off the schedule; at once where nobody vouches for Redis yet.

    Raises RedisUnavailable, and the database's errors: then the next call checks again.
    """
    losses = wiring.background().continuity
    if losses.must_verify():
        # A Redis that is emptied or replaced during the check does not hold this any more.
        token = losses.begin()
        _apply_comparison(losses.compare([*_expected(), *_unknown()]))
        _write_configurations()
        losses.mark_verified(token)
    elif _cooldown.is_active():
        return
    else:
        _apply_comparison(losses.compare(list(_expected())))
        _restore_configurations()
    _cooldown.start()


def _write_configurations() -> None:
    """Bring the configurations of a Redis that may be an older one in step with the database."""
    waiting = set(Outbox.objects.values_list("bucket", flat=True))
    buckets = {bucket.name: bucket for bucket in selectors.all_buckets()}
    stored = wiring.background().bucket_configs.stored_of(buckets)
    secrets = outbox.client_secrets(buckets.values())
    Outbox.add(
        name
        for name, bucket in buckets.items()
        if name not in waiting and reconcile.drift(bucket, stored[name], secrets)
    )
    outbox.flush()


def _restore_configurations() -> None:
    """Write those again that the scanner cannot read: nobody would notice that it does not scan."""
    # In this order: a bucket that is saved meanwhile is not mistaken for a lost one.
    names = set(Bucket.objects.values_list("name", flat=True))
    waiting = set(Outbox.objects.values_list("bucket", flat=True))
    readable = wiring.background().bucket_configs.load().buckets
    if lost := sorted(names - waiting - readable.keys()):
        Outbox.add(lost)
        outbox.flush()


def _expected() -> Iterator[CommitExpectation]:
    for bucket in Bucket.objects.only(*Bucket.EXPECTATION, "name").iterator():
        yield outbox.expected(bucket)


def _unknown() -> Iterator[CommitExpectation]:
    """Find buckets that only Redis knows: removed since its backup, or newer than the database.

    Nobody can tell which, so they are not scanned; `importbuckets` brings them back.
    """
    revisions = wiring.background().bucket_configs.revisions()
    known = set(Bucket.objects.values_list("name", flat=True))
    for name in revisions.keys() - known:
        yield CommitExpectation(name, _ANYTHING, commit=_ANYTHING, commit_at=float(_ANYTHING))


def _apply_comparison(compared: Compared) -> None:
    _log_lost(compared.lost)
    _accept(compared.set_back)


def _accept(set_back: list[SetBack]) -> None:
    """Expect no more of Redis than it still knows after a failover: it goes on from there."""
    for found in set_back:
        Bucket.objects.filter(
            name=found.bucket,
            last_commit_generation=found.generation,
            last_commit_number=found.expected,
        ).update(
            last_commit_number=found.commit,
            last_commit_at=datetime.fromtimestamp(found.commit_at, UTC),
        )
    if set_back:
        logger.warning(
            "Redis forgot the last moments of %d buckets (%s), as a failover may: what was "
            "announced then comes again, with the same ids",
            len(set_back),
            join_some([found.bucket for found in set_back], limit=_NAMED),
        )


def _log_lost(lost: list[str]) -> None:
    if lost:
        logger.error(
            "Redis forgot what was known of %d buckets (%s): it was emptied, or restored from an "
            "old backup. They are not scanned meanwhile; %s",
            len(lost),
            join_some(lost, limit=_NAMED),
            REMEDIES[StateLost].clause,
        )
