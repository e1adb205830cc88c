"""A bucket's known state as a sorted run of segments, and what one listing changes in it.

A *segment* is a run of neighbouring keys with their states. Its *entry* in the bucket's manifest
says which keys it may hold (after the entry before it, up to ``last_key``), and the digest of the
bytes that the server sent for its rows the last time they were listed. When the listing has the
same bytes at the same place again, nothing in that range was created, changed or deleted.

A key that a listing does not show is first only *missing*: its row stays, and the entry says which
rows are missing. Only a complete listing makes deletions of them (`scan/deletion_phase.py`). So it
is with a key of which only the time *moved*: its row keeps the known time, the entry notes the new
one, and only a complete listing makes updates of them (`scan/moved_times_phase.py`).
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from scanning.core.changes import is_moved_time, is_update
from scanning.core.listing.body import Columns
from scanning.core.totals import Totals
from scanning.core.types import ObjectState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from scanning.core.changes import Version

NOTHING = Columns([], [], [], [])


@dataclass(frozen=True, slots=True)
class Marks:
    """The rows of a segment that are not just as they were listed, by number, in order.

    ``missing`` and ``absent`` are those of `Entry`. Rows ``moved`` were listed with the times
    ``moved_times`` (ms, in the same order), and are else as known.
    """

    missing: tuple[int, ...] = ()
    absent: tuple[int, ...] = ()
    moved: tuple[int, ...] = ()
    moved_times: tuple[int, ...] = ()

    def renumbered(self, number: Callable[[int], int | None]) -> Marks:
        """Give each row another number; drop those of which that is None."""
        if not self.missing and not self.moved:
            return self
        missing, absent = (
            tuple(new for row in rows if (new := number(row)) is not None)
            for rows in (self.missing, self.absent)
        )
        moved, moved_times = [], []
        for row, time in zip(self.moved, self.moved_times, strict=True):
            if (new := number(row)) is not None:
                moved.append(new)
                moved_times.append(time)
        return Marks(missing, absent, tuple(moved), tuple(moved_times))

    def part(self, start: int, end: int) -> Marks:
        """Take the marks of the rows from ``start`` to ``end`` (exclusive), which begin at 0."""
        return self.renumbered(lambda row: row - start if start <= row < end else None)

    def joined(self, others: Marks, *, after: int) -> Marks:
        """Add the marks of rows that follow the first ``after`` rows."""
        others = others.renumbered(lambda row: row + after)
        return Marks(
            self.missing + others.missing,
            self.absent + others.absent,
            self.moved + others.moved,
            self.moved_times + others.moved_times,
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """One segment in the manifest.

    ``digest`` and ``length`` are of the listed bytes of the rows that are not missing; an empty
    digest is like no other. ``raw_key`` is ``last_key`` as the server wrote it, to find the end
    of the segment in a listing without parsing. ``missing`` are row numbers. ``strings_at`` is
    when the rows' documented JSON strings were last written (epoch seconds; 0: there are none).
    ``absent`` are those missing rows that a complete pass lacked already, which began at
    ``absent_since``; kept only where the next listing is the witness of deletions. ``moved`` and
    ``moved_times`` are those of `Marks`: the digest is of the moved times, the rows have the known.
    ``changed_at`` is when a listing last showed that rows had changed (whole epoch seconds; 0: not
    known).
    """

    id: str
    last_key: str
    count: int
    digest: bytes = b""
    length: int = 0
    raw_key: bytes = b""
    missing: tuple[int, ...] = ()
    strings_at: float = 0.0
    absent: tuple[int, ...] = ()
    absent_since: float = 0.0
    moved: tuple[int, ...] = ()
    moved_times: tuple[int, ...] = ()
    changed_at: int = 0

    @property
    def marks(self) -> Marks:
        return Marks(self.missing, self.absent, self.moved, self.moved_times)

    def with_marks(self, marks: Marks) -> Entry:
        return replace(
            self,
            missing=marks.missing,
            absent=marks.absent,
            absent_since=self.absent_since if marks.absent else 0.0,
            moved=marks.moved,
            moved_times=marks.moved_times,
        )

    @property
    def ends_listed(self) -> bool:
        """Tell whether the last row was listed: only then do its bytes end the segment for sure."""
        return not self.missing or self.missing[-1] != self.count - 1

    @property
    def listed(self) -> int:
        """Count the segment's rows that were listed the last time."""
        return self.count - len(self.missing)

    def listed_rows(self, columns: Columns) -> list[int]:
        """Number the rows of ``columns`` that are not missing."""
        gone = set(self.missing)
        return [row for row in range(len(columns)) if row not in gone]


def add_up(columns: Columns, missing: Sequence[int]) -> Totals:
    """Add up the rows that are not missing."""
    gone = sum(columns.sizes[row] for row in missing)
    return Totals(len(columns) - len(missing), sum(columns.sizes) - gone)


@dataclass(frozen=True, slots=True)
class Merged:
    """What a range of keys holds after it was listed.

    ``columns`` are the listed rows and the missing ones, in order; ``missing`` numbers the latter.
    ``appeared`` and ``updated`` are row numbers too; ``before`` gives, for each updated row, its
    number among the known rows, and ``missing_before`` for each missing one. ``moved`` rows have
    the known times, and were listed with ``moved_times`` (ms). ``same`` says that the rows are just
    what was known.
    """

    columns: Columns
    missing: tuple[int, ...]
    appeared: tuple[int, ...]
    updated: tuple[int, ...]
    before: tuple[int, ...]
    same: bool
    missing_before: tuple[int, ...] = ()
    moved: tuple[int, ...] = ()
    moved_times: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """A segment to be written: its entry and, unless only the entry changed, its rows."""

    entry: Entry
    columns: Columns | None = field(repr=False)


def merge(known: Columns, listed: Columns, *, trust_etags: bool = False) -> Merged:
    """Compare what is known of a range of keys with what the listing shows there.

    ``trust_etags``: that a time moved is not noted where an ETag is the same.
    """
    appeared: list[int] = []
    place: dict[str, int] = {}
    if known.keys == listed.keys:
        changed = _changed_rows(known, listed)
        if not changed:
            return Merged(listed, (), (), (), (), same=True)
    elif not known.keys:
        return Merged(listed, (), tuple(range(len(listed))), (), (), same=False)
    else:
        place = {key: number for number, key in enumerate(known.keys)}
        changed = []
        for number, key in enumerate(listed.keys):
            old = place.pop(key, None)
            if old is None:
                appeared.append(number)
            elif is_update(_version(known, old), _version(listed, number)):
                changed.append((number, old))
    moved = {
        (number, old)
        for number, old in changed
        if known.etags[old] == listed.etags[number]  # rarely: only then is it worth a closer look
        and is_moved_time(_version(known, old), _version(listed, number))
    }
    updated, noted = changed, dict[int, int]()
    if moved:
        updated = [rows for rows in changed if rows not in moved]
        listed, noted = _with_known_times(known, listed, sorted(moved), trust_etags=trust_etags)
    columns, missing_before = listed, tuple(place.values())
    new_number: Sequence[int] = range(len(listed))
    missing: tuple[int, ...] = ()
    if missing_before:
        columns, new_number, missing = interleave(listed, known, missing_before)
    return Merged(
        columns=columns,
        missing=missing,
        appeared=tuple(new_number[number] for number in appeared),
        updated=tuple(new_number[number] for number, _ in updated),
        before=tuple(old for _, old in updated),
        same=not appeared and not updated,
        missing_before=missing_before,
        moved=tuple(new_number[number] for number in noted),
        moved_times=tuple(noted.values()),
    )


def _changed_rows(known: Columns, listed: Columns) -> list[tuple[int, int]]:
    """Number the rows that differ, in both, where both have the same keys."""
    if (known.etags, known.last_modified, known.sizes) == (
        listed.etags,
        listed.last_modified,
        listed.sizes,
    ):
        return []
    versions = zip(_versions(known), _versions(listed), strict=True)
    return [(number, number) for number, pair in enumerate(versions) if is_update(*pair)]


def _with_known_times(
    known: Columns, listed: Columns, moved: Sequence[tuple[int, int]], *, trust_etags: bool
) -> tuple[Columns, dict[int, int]]:
    """Give the rows of which only the time moved the known one.

    Returns all rows, and what is to be noted: the listed times by row number.
    """
    times, noted = list(listed.last_modified), {}
    for number, old in moved:
        if not (trust_etags and listed.etags[number]):
            noted[number] = times[number]
        times[number] = known.last_modified[old]
    return replace(listed, last_modified=times), noted


def with_older_times(merged: Merged, older: Mapping[int, int], *, trust_etags: bool) -> Merged:
    """Give appeared rows the times (ms) that somebody else knew of them, as if they were known.

    The listed times are noted, as `merge` does.
    """
    columns = merged.columns
    times, noted = (
        list(columns.last_modified),
        dict(zip(merged.moved, merged.moved_times, strict=True)),
    )
    for row, time in older.items():
        if not (trust_etags and columns.etags[row]):
            noted[row] = times[row]
        times[row] = time
    moved = sorted(noted)
    return replace(
        merged,
        columns=replace(columns, last_modified=times),
        moved=tuple(moved),
        moved_times=tuple(noted[row] for row in moved),
    )


def with_moved_times(entry: Entry, columns: Columns) -> Piece:
    """Make a segment whose rows have the times that its entry notes as moved.

    The digest stays: it was always that of the listed times.
    """
    times = list(columns.last_modified)
    for row, time in zip(entry.moved, entry.moved_times, strict=True):
        times[row] = time
    taken = replace(entry, moved=(), moved_times=())
    return Piece(taken, replace(columns, last_modified=times))


def _version(columns: Columns, number: int) -> Version:
    return columns.etags[number], columns.last_modified[number], columns.sizes[number]


def _versions(columns: Columns) -> Iterable[Version]:
    return zip(columns.etags, columns.last_modified, columns.sizes, strict=True)


def interleave(
    listed: Columns, known: Columns, kept: Sequence[int]
) -> tuple[Columns, list[int], tuple[int, ...]]:
    """Put listed rows and the ``kept`` known ones in key order.

    Returns the rows, the new number of each listed row, and the numbers of the kept rows.
    """
    rows = [(key, True, number) for number, key in enumerate(listed.keys)]
    rows += [(known.keys[number], False, number) for number in kept]
    rows.sort()
    columns = Columns([], [], [], [])
    moved = [0] * len(listed)
    missing = []
    for place, (_, is_listed, number) in enumerate(rows):
        append_row(columns, listed if is_listed else known, number)
        if is_listed:
            moved[number] = place
        else:
            missing.append(place)
    return columns, moved, tuple(missing)


def append_row(columns: Columns, source: Columns, number: int) -> None:
    columns.keys.append(source.keys[number])
    columns.etags.append(source.etags[number])
    columns.last_modified.append(source.last_modified[number])
    columns.sizes.append(source.sizes[number])


def part(columns: Columns, start: int, end: int) -> Columns:
    """Take the rows from ``start`` to ``end`` (exclusive)."""
    if start == 0 and end >= len(columns):
        return columns
    return Columns(
        columns.keys[start:end],
        columns.etags[start:end],
        columns.last_modified[start:end],
        columns.sizes[start:end],
    )


def split_at(columns: Columns, key: str) -> tuple[Columns, Columns]:
    """Split into the rows up to and including ``key``, and the rows after that key."""
    at = bisect_right(columns.keys, key)
    return part(columns, 0, at), part(columns, at, len(columns))


def joined(first: Columns, second: Columns) -> Columns:
    return Columns(
        first.keys + second.keys,
        first.etags + second.etags,
        first.last_modified + second.last_modified,
        first.sizes + second.sizes,
    )


def states_of(columns: Columns, rows: Sequence[int], now: float) -> dict[str, ObjectState]:
    """Map the keys of some rows to their states, in the order of ``rows``."""
    keys, etags = columns.keys, columns.etags
    modified, sizes = columns.last_modified, columns.sizes
    return {keys[n]: ObjectState(etags[n], modified[n] / 1000, sizes[n], now) for n in rows}


def columns_of(states: Mapping[str, ObjectState]) -> Columns:
    """Make rows of states that are in key order."""
    return Columns(
        keys=list(states),
        etags=[state.etag for state in states.values()],
        last_modified=[round(state.last_modified * 1000) for state in states.values()],
        sizes=[state.size for state in states.values()],
    )


def strings_need_refresh(entry: Entry, now: float, ttl_s: float) -> bool:
    """Tell whether a segment's strings must be written again, so that they do not expire.

    Between half and three quarters of their life, by segment, so that what was written together
    is not all written again together.
    """
    share = 0.5 + zlib.crc32(entry.id.encode()) / 2**34
    return now - entry.strings_at >= ttl_s * share


def parts_of(rows: int, limit: int) -> int:
    """Count the parts of at most ``limit`` rows that ``rows`` rows are cut into."""
    return -(-rows // limit)


def even_cuts(count: int, *, limit: int) -> Iterator[tuple[int, int]]:
    """Cut ``count`` rows into the fewest parts of at most ``limit``, of nearly the same size."""
    parts = parts_of(count, limit)
    for number in range(parts):
        yield count * number // parts, count * (number + 1) // parts
