"""A bucket's known state as a sorted run of segments, and what one listing changes in it.

A *segment* is a run of neighbouring keys with their states. Its *entry* in the bucket's manifest
says which keys it may hold (after the entry before it, up to ``last_key``), and the digest of the
bytes that the server sent for its rows the last time they were listed. When the listing has the
same bytes at the same place again, nothing in that range was created, changed or deleted.

A key that a listing does not show is first only *missing*: its row stays, and the entry says which
rows are missing. Only a complete listing makes deletions of them (`scan/deletion_phase.py`).
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from scanning.core.changes import is_update
from scanning.core.listing.body import Columns
from scanning.core.totals import Totals
from scanning.core.types import ObjectState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from scanning.core.changes import Version

NOTHING = Columns([], [], [], [])


@dataclass(frozen=True, slots=True)
class Entry:
    """One segment in the manifest.

    ``digest`` and ``length`` are of the listed bytes of the rows that are not missing; an empty
    digest is like no other. ``raw_key`` is ``last_key`` as the server wrote it, to find the end
    of the segment in a listing without parsing. ``missing`` are row numbers. ``strings_at`` is
    when the rows' documented JSON strings were last written (epoch seconds; 0: there are none).
    ``absent`` are those missing rows that a complete pass lacked already, which began at
    ``absent_since``; kept only where the next listing is the witness of deletions.
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
    changed_at: int = 0

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
    number among the known rows, and ``missing_before`` for each missing one. ``same`` says that the
    rows are just what was known.
    """

    columns: Columns
    missing: tuple[int, ...]
    appeared: tuple[int, ...]
    updated: tuple[int, ...]
    before: tuple[int, ...]
    same: bool
    missing_before: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """A segment to be written: its entry and, unless only the entry changed, its rows."""

    entry: Entry
    columns: Columns | None = field(repr=False)


def merge(known: Columns, listed: Columns, *, trust_etags: bool = False) -> Merged:
    """Compare what is known of a range of keys with what the listing shows there.

    ``trust_etags``: a row keeps its known time if an ETag and the size are the same.
    """
    if trust_etags:
        listed = _with_known_times(known, listed)
    if known.keys == listed.keys:
        updated_rows = _updated_rows(known, listed)
        return Merged(listed, (), (), updated_rows, updated_rows, same=not updated_rows)
    if not known.keys:
        return Merged(listed, (), tuple(range(len(listed))), (), (), same=False)
    place = {key: number for number, key in enumerate(known.keys)}
    appeared, updated, before = [], [], []
    for number, key in enumerate(listed.keys):
        old = place.pop(key, None)
        if old is None:
            appeared.append(number)
        elif is_update(_version(known, old), _version(listed, number)):
            updated.append(number)
            before.append(old)
    if not place:
        return Merged(listed, (), tuple(appeared), tuple(updated), tuple(before), same=False)
    missing_before = tuple(place.values())
    columns, moved, missing = interleave(listed, known, missing_before)
    return Merged(
        columns=columns,
        missing=missing,
        appeared=tuple(moved[number] for number in appeared),
        updated=tuple(moved[number] for number in updated),
        before=tuple(before),
        same=not appeared and not updated,
        missing_before=missing_before,
    )


def _with_known_times(known: Columns, listed: Columns) -> Columns:
    """Replace the times of listed rows whose size and ETag, which is not empty, are known."""
    rows = zip(known.etags, known.sizes, known.last_modified, strict=True)
    before = dict(zip(known.keys, rows, strict=True))
    times = []
    for key, *version, time in zip(
        listed.keys, listed.etags, listed.sizes, listed.last_modified, strict=True
    ):
        *known_version, known_time = before.get(key, ("", 0, 0))
        times.append(known_time if version[0] and version == known_version else time)
    return replace(listed, last_modified=times)


def _updated_rows(known: Columns, listed: Columns) -> tuple[int, ...]:
    """Number the rows that were updated, where both have the same keys."""
    if (known.etags, known.last_modified, known.sizes) == (
        listed.etags,
        listed.last_modified,
        listed.sizes,
    ):
        return ()
    versions = zip(_versions(known), _versions(listed), strict=True)
    return tuple(number for number, pair in enumerate(versions) if is_update(*pair))


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
