"""How scans ended, from Redis into the status columns that the admin shows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from django.db import connection, transaction

from buckets.models import Bucket
from scanning import wiring
from scanning.core import scan_warnings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from scanning.core.types import BucketStatus

_CHUNK = 500
_SCAN = ["last_scan_at", "last_scan_duration_s", "last_lag_s", "object_count", "last_changes"]
_NEXT = ["next_scan_at"]
_ERROR = ["last_error", "last_error_class", "last_error_at"]
_HELD = ["held_since", "held_missing", "held_moved_since", "held_moved"]
_WARNINGS = ["scan_warnings"]
_COMMIT = ["last_commit_at", "last_commit_generation", "last_commit_number", "lost_since"]
# What decides, beside those, whether a commit counts.
_CHOSEN = ["generation", "resumed_at"]


def flush() -> int:
    """Store every status that changed since the last flush; say how many there were.

    Raises RedisUnavailable. What the database does not take is left for the next flush.
    """
    store = wiring.background().bucket_status
    total = 0
    while changed := store.changed(_CHUNK):
        _store(store.read(list(changed)))
        store.forget(changed)
        total += len(changed)
        if len(changed) < _CHUNK:
            break  # what changed meanwhile is for the next flush
    return total


def _store(statuses: Sequence[BucketStatus]) -> None:
    """Write the status columns and no others; this mirrors nothing."""
    columns = [*_SCAN, *_ERROR, *_HELD, *_WARNINGS, *_NEXT, *_COMMIT]
    names = [status.bucket for status in statuses]
    known = Bucket.objects.only("name", *_CHOSEN, *columns).filter(name__in=names).order_by("pk")
    with transaction.atomic():
        # Locked: an operator may give up what Redis forgot in this moment.
        rows = {row.name: row for row in known.select_for_update()}
        for status in statuses:
            if status.bucket in rows:
                _apply(rows[status.bucket], status)
        _update(rows.values(), columns)


def _update(rows: Iterable[Bucket], columns: Sequence[str]) -> None:
    """Write some columns: many times a minute, and bulk_update() takes a millisecond for each."""
    meta, quoted = Bucket._meta, connection.ops.quote_name  # noqa: SLF001 - documented
    fields = [field for field in meta.concrete_fields if field.name in columns]
    values = ", ".join(f"{quoted(str(field.column))} = %s" for field in fields)
    sql = f"UPDATE {quoted(meta.db_table)} SET {values} WHERE id = %s"  # noqa: S608 - our names
    with connection.cursor() as cursor:
        cursor.executemany(
            sql,
            [
                [*(f.get_db_prep_save(getattr(row, f.attname), connection) for f in fields), row.pk]
                for row in rows
            ],
        )


def _apply(row: Bucket, status: BucketStatus) -> None:
    row.last_error = status.error
    row.last_error_class = status.error_class
    row.last_error_at = _moment(status.error_at)
    row.held_since = _moment(status.held_since)
    row.held_missing = status.held_missing
    row.held_moved_since = _moment(status.held_moved_since)
    row.held_moved = status.held_moved
    row.scan_warnings = scan_warnings.as_rows(status.warnings) or None
    row.next_scan_at = _moment(status.next_scan_at)
    row.lost_since = _moment(status.lost_since)
    if (at := _moment(status.commit_at)) is not None:
        row.remember_commit(generation=status.generation, number=status.commit, at=at)
    # Without it Redis knows of no complete scan (it may have been emptied): keep what was known.
    if status.last_scan_at is not None:
        row.last_scan_at = _moment(status.last_scan_at)
        row.last_scan_duration_s = status.duration_s
        row.last_lag_s = status.lag_s
        row.object_count = status.objects
        row.last_changes = status.changes


def _moment(epoch_s: float | None) -> datetime | None:
    return None if epoch_s is None else datetime.fromtimestamp(epoch_s, UTC)
