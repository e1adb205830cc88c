"""How scans ended, from Redis into the status columns that the admin shows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from django.db import connection, transaction

from buckets.models import Bucket
from scanning import wiring

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from scanning.core.types import BucketStatus

_CHUNK = 500
_SCAN = ["last_scan_at", "last_scan_duration_s", "last_lag_s", "object_count", "last_changes"]
_NEXT = ["next_scan_at"]
_ERROR = ["last_error", "last_error_class", "last_error_at"]
_HELD = ["held_since", "held_missing"]
_COMMIT = ["last_commit_at", "last_commit_generation", "lost_since"]


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
    """Write the status columns and no others; this mirrors nothing."""
    columns = [*_SCAN, *_ERROR, *_HELD, *_NEXT, *_COMMIT]
    known = Bucket.objects.only("name", *columns)
    rows = known.in_bulk([status.bucket for status in statuses], field_name="name")
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
    with transaction.atomic(), connection.cursor() as cursor:
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
    row.next_scan_at = _moment(status.next_scan_at)
    row.lost_since = _moment(status.lost_since)
    _remember_commit(row, status)
    # Without it Redis knows of no complete scan (it may have been emptied): keep what was known.
    if status.last_scan_at is not None:
        row.last_scan_at = _moment(status.last_scan_at)
        row.last_scan_duration_s = status.duration_s
        row.last_lag_s = status.lag_s
        row.object_count = status.objects
        row.last_changes = status.changes


def _remember_commit(row: Bucket, status: BucketStatus) -> None:
    """Never an older one: Redis may have been restored from a backup a moment ago."""
    at, known = _moment(status.commit_at), (row.last_commit_generation or 0, row.last_commit_at)
    if at is None or status.generation < known[0]:
        return
    if status.generation > known[0] or known[1] is None or at > known[1]:
        row.last_commit_at, row.last_commit_generation = at, status.generation


def _moment(epoch_s: float | None) -> datetime | None:
    return None if epoch_s is None else datetime.fromtimestamp(epoch_s, UTC)
