"""The objects that are held in a bucket, for whoever decides about them. Changes nothing."""

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

    from scanning.core.listing.body import Columns
    from scanning.core.segments.model import Entry
    from scanning.core.types import BucketConfig, ObjectState
    from scanning.ports import KnownState, StateStore


@dataclass(frozen=True, slots=True)
class HeldObject:
    """What was last known of a key that is missing, or of which only the time moved.

    ``moved_to`` is the time that it moved to; None of a missing key.
    """

    key: str
    state: ObjectState
    moved_to: float | None = None


@dataclass(frozen=True, slots=True)
class HeldObjects:
    """What is held of a bucket's ``known`` objects: deletions, moved times, or both.

    ``missing`` objects are held ``missing_since``, None where no deletion is; ``moved`` ones
    ``moved_since``. ``objects`` are all of them by key, read while they are taken, one segment at
    a time. They raise CommitOutOfStep if a hold ends meanwhile, StateDamaged, and RedisUnavailable.
    """

    title: str
    known: int
    missing: int
    missing_since: float | None
    moved: int
    moved_since: float | None
    objects: Iterator[HeldObject]

    @property
    def count(self) -> int:
        return self.missing + self.moved

    @property
    def is_any(self) -> bool:
        return self.missing_since is not None or self.moved_since is not None


def find_held_objects(states: StateStore, bucket: BucketConfig) -> HeldObjects:
    """Count what is held now, and prepare to read it. Raises what `open_whole` raises."""
    known = open_whole(states, bucket)
    holds = _Holds.of(known)
    return HeldObjects(
        watch_and_bucket(bucket.name, bucket.s3_name),
        known=sum(entry.count for entry in known.entries),
        missing=sum(len(holds.missing(entry)) for entry in known.entries),
        missing_since=known.held_since if holds.deletions else None,
        moved=sum(len(holds.moved(entry)) for entry in known.entries),
        moved_since=known.held_moved_since if holds.moved_times else None,
        objects=_read(states, bucket, known, holds),
    )


def csv_lines(objects: Iterable[HeldObject]) -> Iterator[str]:
    """Write objects as CSV (RFC 4180), a line at a time, with a header.

    Every cell is quoted, so that a spreadsheet takes none for two.
    """
    line = io.StringIO()
    writer = csv.writer(line, quoting=csv.QUOTE_ALL)
    writer.writerow(["key", "size", "last_modified", "etag", "new_last_modified"])
    for held in objects:
        yield line.getvalue()
        line.seek(0)
        line.truncate()
        state = held.state
        writer.writerow(
            [
                spreadsheet_text(held.key),
                state.size,
                _stamp(state.last_modified),
                spreadsheet_text(state.etag),
                "" if held.moved_to is None else _stamp(held.moved_to),
            ]
        )
    yield line.getvalue()


def _stamp(at: float) -> str:
    modified = datetime.fromtimestamp(at, UTC)
    return modified.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class _Holds:
    """Which kinds of changes are held, and nobody has released."""

    deletions: bool
    moved_times: bool

    @classmethod
    def of(cls, known: KnownState) -> _Holds:
        is_released = known.takes_times or known.released_moved > 0
        return cls(
            known.held_since is not None and not known.released,
            known.held_moved_since is not None and not is_released,
        )

    def missing(self, entry: Entry) -> tuple[int, ...]:
        return entry.missing if self.deletions else ()

    def moved(self, entry: Entry) -> tuple[int, ...]:
        return entry.moved if self.moved_times else ()

    def objects(self, entry: Entry, columns: Columns) -> Iterator[HeldObject]:
        """Take what is held of a segment's rows, in key order."""
        rows = sorted({*self.missing(entry), *self.moved(entry)})
        moved_to = dict(zip(entry.moved, entry.moved_times, strict=True))
        for row, (key, state) in zip(rows, states_of(columns, rows, 0.0).items(), strict=True):
            yield HeldObject(key, state, moved_to[row] / 1000 if row in moved_to else None)

    def ended(self, now: _Holds) -> bool:
        """Tell whether one of these holds is none ``now``."""
        return self.deletions > now.deletions or self.moved_times > now.moved_times


def _read(
    states: StateStore, bucket: BucketConfig, known: KnownState, holds: _Holds
) -> Iterator[HeldObject]:
    def with_held_rows(known: KnownState, after: str) -> Iterable[Entry]:
        if holds.ended(_Holds.of(known)):
            raise CommitOutOfStep(
                f"{bucket.name}: the hold ended while its objects were read; these are not all"
            )
        entries = known.entries[entries_after(known.entries, after) :]
        return (entry for entry in entries if holds.missing(entry) or holds.moved(entry))

    after = ""
    for entry, columns in read_beside_scans(states, bucket, known, with_held_rows):
        yield from (held for held in holds.objects(entry, columns) if held.key > after)
        after = entry.last_key
