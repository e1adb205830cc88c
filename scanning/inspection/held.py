"""The objects that a held mass deletion concerns, for whoever decides about it. Changes nothing."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from scanning.core.errors import CommitOutOfStep
from scanning.core.segments.model import states_of
from scanning.core.segments.writer import entries_after
from scanning.core.texts import spreadsheet_text, watch_and_bucket
from scanning.inspection.stored_segments import open_whole, read_beside_scans

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from scanning.core.segments.model import Entry
    from scanning.core.types import BucketConfig, ObjectState
    from scanning.ports import KnownState, StateStore


@dataclass(frozen=True, slots=True)
class HeldObjects:
    """What is missing while a deletion is held; ``since`` is None where none is held.

    ``objects`` are keys in order with what was last known of them, read while they are taken, one
    segment at a time. They raise CommitOutOfStep if the hold ends meanwhile, StateDamaged, and
    RedisUnavailable.
    """

    title: str
    since: float | None
    count: int
    objects: Iterator[tuple[str, ObjectState]]


def find_held_objects(states: StateStore, bucket: BucketConfig) -> HeldObjects:
    """Count what is held now, and prepare to read it. Raises what `open_whole` raises."""
    known, title = open_whole(states, bucket), watch_and_bucket(bucket.name, bucket.s3_name)
    if not _is_held(known):
        return HeldObjects(title, None, 0, iter(()))
    count = sum(len(entry.missing) for entry in known.entries)
    return HeldObjects(title, known.held_since, count, _missing(states, bucket, known))


def csv_lines(objects: Iterable[tuple[str, ObjectState]]) -> Iterator[str]:
    """Write objects as CSV (RFC 4180), a line at a time, with a header.

    Every cell is quoted, so that a spreadsheet takes none for two.
    """
    line = io.StringIO()
    writer = csv.writer(line, quoting=csv.QUOTE_ALL)
    writer.writerow(["key", "size", "last_modified", "etag"])
    for key, state in objects:
        yield line.getvalue()
        line.seek(0)
        line.truncate()
        modified = datetime.fromtimestamp(state.last_modified, UTC)
        stamp = modified.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        writer.writerow([spreadsheet_text(key), state.size, stamp, spreadsheet_text(state.etag)])
    yield line.getvalue()


def _is_held(known: KnownState) -> bool:
    return known.held_since is not None and not known.released


def _missing(
    states: StateStore, bucket: BucketConfig, known: KnownState
) -> Iterator[tuple[str, ObjectState]]:
    def with_missing_rows(known: KnownState, after: str) -> Iterable[Entry]:
        if not _is_held(known):
            raise CommitOutOfStep(
                f"{bucket.name}: the hold ended while its objects were read; these are not all"
            )
        entries = known.entries[entries_after(known.entries, after) :]
        return (entry for entry in entries if entry.missing)

    after = ""
    for entry, columns in read_beside_scans(states, bucket, known, with_missing_rows):
        for key, state in states_of(columns, entry.missing, 0.0).items():
            if key > after:
                yield key, state
        after = entry.last_key
