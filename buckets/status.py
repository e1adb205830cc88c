"""How scans ended, from Redis into the status columns that the admin shows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from buckets.models import Bucket
from scanning import wiring

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scanning.core.types import BucketStatus

_CHUNK = 500
_SCAN = ["last_scan_at", "last_scan_duration_s", "last_lag_s", "object_count", "last_changes"]
_ERROR = ["last_error", "last_error_class", "last_error_at"]
_HELD = ["held_since", "held_missing"]


def flush() -> int:
    """Store every status that changed since the last flush; say how many there were.

    Raises RedisUnavailable. What the database does not take is given back for the next flush.
    """
    store = wiring.statuses()
    total = 0
    while statuses := store.drain(_CHUNK):
        try:
            _store(statuses)
        except BaseException:
            store.give_back([status.bucket for status in statuses])
            raise
        total += len(statuses)
    return total


def _store(statuses: Sequence[BucketStatus]) -> None:
    """Write the status columns and no others, in one statement; this mirrors nothing."""
    rows = Bucket.objects.in_bulk([status.bucket for status in statuses], field_name="name")
    for status in statuses:
        if status.bucket in rows:
            _apply(rows[status.bucket], status)
    Bucket.objects.bulk_update(rows.values(), [*_SCAN, *_ERROR, *_HELD])


def _apply(row: Bucket, status: BucketStatus) -> None:
    row.last_error = status.error
    row.last_error_class = status.error_class
    row.last_error_at = _moment(status.error_at)
    row.held_since = _moment(status.held_since)
    row.held_missing = status.held_missing
    # Without it Redis knows of no complete scan (it may have been emptied): keep what was known.
    if status.last_scan_at is not None:
        row.last_scan_at = _moment(status.last_scan_at)
        row.last_scan_duration_s = status.duration_s
        row.last_lag_s = status.lag_s
        row.object_count = status.objects
        row.last_changes = status.changes


def _moment(epoch_s: float | None) -> datetime | None:
    return None if epoch_s is None else datetime.fromtimestamp(epoch_s, UTC)
