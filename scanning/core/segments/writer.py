"""Write what a listing changed into a run of segments, and nothing that is the same."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from scanning.core.listing.body import render_entries
from scanning.core.segments.matcher import digest, end_of_rows, raw_last_key
from scanning.core.segments.model import (
    NOTHING,
    Entry,
    Marks,
    Merged,
    Piece,
    add_up,
    even_cuts,
    joined,
    merge,
    part,
    split_at,
    with_older_times,
)
from scanning.core.totals import NO_CHANGE, Totals

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from scanning.core.listing.body import Columns
    from scanning.core.segments.matcher import Listed, Unchanged

# A segment that shrank below this share of the largest size joins its neighbour, if both together
# stay below the other share: between the two nothing is moved back and forth.
SMALL, ROOMY = 1 / 4, 3 / 4


@dataclass(frozen=True, slots=True)
class Rewriting:
    """What a range of keys holds now, ``merged`` from its ``known`` rows and what was listed.

    ``pieces`` are the segments to write, none if nothing differs; ``removed`` are the ids of
    segments that are no more. ``gained`` is by how much the rows that are not missing are more.
    """

    merged: Merged
    known: Columns
    pieces: Sequence[Piece] = ()
    removed: Sequence[str] = ()
    gained: Totals = NO_CHANGE

    @property
    def listed(self) -> int:
        """Count the objects that the listing showed."""
        return len(self.merged.columns) - len(self.merged.missing)


# Of a segment of which nothing was listed before either: while a deletion of millions is held, no
# pass reads their rows again. And of rows for none of which there is room.
NOTHING_NEW = Rewriting(merge(NOTHING, NOTHING), NOTHING)


@dataclass(slots=True)
class Room:
    """How many objects more may become known of a bucket; all lanes of a scan share it."""

    left: float = math.inf


class SegmentWriter:
    """Takes what is matched of a lane in key order; makes segments of at most ``limit`` rows.

    ``entries`` are the segments as they will stand. The last of them is open: rows that follow may
    join it. ``load`` reads the rows of a stored segment, ``new_id`` names a new one.
    ``strings_at``: when the documented strings of new rows are written; 0 if none are wanted.
    ``now``: when rows that changed are noted to have done so; 0 takes their own times, where
    nothing is known yet.
    ``older_times`` finds the times (ms) that were known of appeared rows elsewhere, by row number,
    where only those differ. ``left_out`` are the keys for which there was no ``room`` in the range
    written last.
    """

    def __init__(
        self,
        *,
        load: Callable[[str], Columns],
        new_id: Callable[[], str],
        limit: int,
        strings_at: float = 0.0,
        now: float = 0.0,
        trust_etags: bool = False,
        older_times: Callable[[Merged], Mapping[int, int]] | None = None,
        room: Room | None = None,
    ) -> None:
        self.entries: list[Entry] = []
        self.left_out: Sequence[str] = ()
        self.limit = limit
        self._room = room or Room()
        self._load = load
        self._new_id = new_id
        self._strings_at = strings_at
        self._now = now
        self._trust_etags = trust_etags
        self._older_times = older_times
        # The listed bytes of the open segment, if they are at hand.
        self._open_raw: bytes | None = None
        # The segment that is listed in parts, and its rows that are still to come.
        self._rest: tuple[Entry, Columns] | None = None

    def keep(self, unchanged: Unchanged) -> None:
        """Let a segment stand as it is."""
        self._add([unchanged.entry], unchanged.raw)

    def write(self, listed: Listed) -> Rewriting:
        """Bring the segments in step with the rows of a range."""
        self.left_out = ()
        entry = listed.entry
        if entry is None:
            rewriting = self._append(listed)
        elif listed.up_to is not None:
            rewriting = self._write_part(entry, listed, listed.up_to)
        elif not entry.listed and not len(listed.columns) and not listed.odd:
            self._add([entry], listed.raw)
            return NOTHING_NEW
        else:
            rewriting = self._write_range(entry, listed)
        return (
            replace(rewriting, gained=_gained(entry, rewriting)) if rewriting.pieces else rewriting
        )

    def rest_of(self, entry: Entry) -> Entry:
        """Describe what is still to be listed of a segment after one of its parts was written."""
        return self._rest[0] if self._rest and self._rest[0].id == entry.id else entry

    def _append(self, listed: Listed) -> Rewriting:
        """Write rows beyond all that is known."""
        listed = self._fitting(listed, NOTHING)
        if not len(listed.columns):
            return NOTHING_NEW
        merged = self._merge(NOTHING, listed)
        fresh = Entry(self._new_id(), "", 0, strings_at=self._strings_at)
        pieces = self._cut(self._note_changes(fresh, NOTHING, merged), merged, listed.raw)
        entry = pieces[0].entry
        if len(pieces) == 1 and self._fits_open(entry, self.limit):
            return self._join(pieces[0], NOTHING, merged, listed.raw)
        return self._replace(pieces, NOTHING, merged, listed.raw)

    def _write_range(self, entry: Entry, listed: Listed) -> Rewriting:
        """Write all rows of a segment's range, or all that were still to be listed of it."""
        known = self._known_rows(entry)
        listed = self._fitting(listed.with_odd_rows(known), known)
        raw = listed.raw
        merged = self._merge(known, listed)
        entry = self._note_changes(entry, known, merged)
        if merged.same:
            described = _described(entry, merged.columns, _marks(entry, merged), raw)
            pieces = [] if described == listed.entry else [Piece(described, None)]
            self._add([described], raw)
            return Rewriting(merged, known, pieces)
        pieces = self._cut(entry, merged, raw)
        entry = pieces[0].entry
        is_small = entry.count < self.limit * SMALL
        if len(pieces) == 1 and is_small and self._fits_open(entry, self.limit * ROOMY):
            return self._join(pieces[0], known, merged, raw)
        return self._replace(pieces, known, merged, raw)

    def _write_part(self, entry: Entry, listed: Listed, up_to: str) -> Rewriting:
        """Write the rows of a segment's range up to a key, as segments of their own."""
        known, rest = split_at(self._known_rows(entry), up_to)
        listed = self._fitting(listed.with_odd_rows(known), known)
        merged = self._merge(known, listed)
        entry = self._note_changes(entry, known, merged)
        pieces = self._cut(replace(entry, id=self._new_id()), merged, listed.raw)
        rewriting = self._replace(pieces, known, merged, listed.raw)
        if not len(known):
            return rewriting
        left = replace(entry, count=len(rest), digest=b"", length=0)
        left = left.with_marks(entry.marks.part(len(known), entry.count))
        self._rest = left, rest
        return replace(rewriting, pieces=[*pieces, Piece(left, rest)])

    def _fitting(self, listed: Listed, known: Columns) -> Listed:
        """Leave new rows out that are more than there is room for.

        As with odd rows, the range is compared in each pass then.
        """
        left = self._room.left
        if left >= len(listed.columns):  # nearly always
            return listed
        known_keys = set(known.keys)
        rows = listed.columns.keys
        new = [row for row, key in enumerate(rows) if key not in known_keys]
        left_out = new[max(0, int(left)) :]
        if not left_out:
            return listed
        self.left_out = [rows[row] for row in left_out]
        dropped = set(left_out)
        columns = _some_of(listed.columns, [n for n in range(len(rows)) if n not in dropped])
        return replace(listed, columns=columns, raw=render_entries(columns))

    def _merge(self, known: Columns, listed: Listed) -> Merged:
        merged = merge(known, listed.columns, trust_etags=self._trust_etags)
        self._room.left -= len(merged.appeared)
        if self._older_times is None or not (older := self._older_times(merged)):
            return merged
        return with_older_times(merged, older, trust_etags=self._trust_etags)

    def _note_changes(self, entry: Entry, known: Columns, merged: Merged) -> Entry:
        """Note when the rows of a range changed, if they did."""
        before = entry.marks.part(0, len(known))
        is_changed = (
            merged.appeared
            or merged.updated
            or merged.missing_before != before.missing
            or len(merged.moved) != len(before.moved)
        )
        if not is_changed:
            return entry
        at = self._now or max(merged.columns.last_modified) / 1000
        return replace(entry, changed_at=int(at))

    def _known_rows(self, entry: Entry) -> Columns:
        if self._rest and self._rest[0].id == entry.id:
            return self._rest[1]
        return self._load(entry.id)

    def _replace(
        self, pieces: Sequence[Piece], known: Columns, merged: Merged, raw: bytes
    ) -> Rewriting:
        """Let segments stand by themselves in the place of the ``known`` rows."""
        self._add([piece.entry for piece in pieces], raw if len(pieces) == 1 else None)
        return Rewriting(merged, known, pieces)

    def _fits_open(self, entry: Entry, limit: float) -> bool:
        """Tell whether the open segment and another one have ``limit`` rows at most."""
        if not self.entries or self.entries[-1].missing or entry.missing:
            return False
        return self.entries[-1].count + entry.count <= limit

    def _join(self, piece: Piece, known: Columns, merged: Merged, raw: bytes) -> Rewriting:
        """Write a segment as a part of the open one."""
        assert piece.columns is not None  # noqa: S101 - it was cut just now
        columns = joined(self._load(self.entries[-1].id), piece.columns)
        before = self.entries.pop()
        marks = before.marks.joined(piece.entry.marks, after=before.count)
        entry = replace(
            before,
            last_key=piece.entry.last_key,
            count=len(columns),
            strings_at=self._strings_of(before, piece.entry),
            changed_at=max(before.changed_at, piece.entry.changed_at),
        )
        if self._open_raw is None:
            entry = replace(entry, digest=b"", length=0, raw_key=piece.entry.raw_key)
            entry = entry.with_marks(marks)
            self._add([entry], None)
        else:
            raw = self._open_raw + raw
            entry = _described(entry, columns, marks, raw)
            self._add([entry], raw)
        removed = [piece.entry.id] if len(known) else []
        return Rewriting(merged, known, [Piece(entry, columns)], removed)

    def _add(self, entries: Sequence[Entry], raw: bytes | None) -> None:
        self.entries += entries
        self._open_raw = raw

    def _strings_of(self, *entries: Entry) -> float:
        """Find when joined strings count as written: the oldest must live, or all must go."""
        times = [entry.strings_at for entry in entries]
        return min(times) if self._strings_at else max(times)

    def _cut(self, entry: Entry, merged: Merged, raw: bytes) -> list[Piece]:
        """Cut rows into segments; the first keeps the id of ``entry``."""
        pieces: list[Piece] = []
        columns, at = merged.columns, 0
        all_marks = _marks(entry, merged)
        for start, end in even_cuts(len(columns), limit=self.limit):
            marks = all_marks.part(start, end)
            last = end == len(columns)
            raw_end = len(raw) if last else end_of_rows(raw, at, end - start - len(marks.missing))
            rows = part(columns, start, end)
            named = replace(entry, id=self._new_id()) if pieces else entry
            described = _described(named, rows, marks, raw[at:raw_end])
            pieces.append(Piece(described, rows))
            at = raw_end
        return pieces


def _gained(entry: Entry | None, rewriting: Rewriting) -> Totals:
    known, merged = rewriting.known, rewriting.merged
    missing = entry.marks.part(0, len(known)).missing if entry else ()
    return add_up(merged.columns, merged.missing) - add_up(known, missing)


def _marks(entry: Entry, merged: Merged) -> Marks:
    """Mark merged rows; missing ones are absent if they were noted so before."""
    noted = set(entry.absent)
    rows = zip(merged.missing, merged.missing_before, strict=True) if noted else ()
    absent = tuple(row for row, before in rows if before in noted)
    return Marks(merged.missing, absent, merged.moved, merged.moved_times)


def _described(entry: Entry, columns: Columns, marks: Marks, raw: bytes) -> Entry:
    """Describe rows in their entry: all but the missing ones were listed as ``raw``."""
    last_key = columns.keys[-1]
    count, missing = len(columns), marks.missing
    ends_listed = not missing or missing[-1] != count - 1
    raw_key = raw_last_key(raw) if ends_listed else b""
    described = replace(
        entry,
        last_key=last_key,
        count=count,
        digest=digest(raw) if len(missing) < count else b"",
        length=len(raw),
        raw_key=b"" if raw_key == last_key.encode() else raw_key,
    )
    return described if marks == described.marks else described.with_marks(marks)


def drop_missing_rows(entry: Entry, columns: Columns, gone: Collection[int]) -> Piece | None:
    """Make a segment without the missing rows ``gone``; None if nothing is left of it.

    The digest stays: it was always that of the rows that are not missing.
    """
    dropped = set(gone)
    kept = [row for row in range(len(columns)) if row not in dropped]
    if not kept:
        return None
    rows = _some_of(columns, kept)
    number = {before: row for row, before in enumerate(kept)}
    left = replace(
        entry,
        last_key=rows.keys[-1],
        count=len(rows),
        raw_key=entry.raw_key if entry.ends_listed else b"",
    )
    return Piece(left.with_marks(entry.marks.renumbered(number.get)), rows)


def _some_of(columns: Columns, numbers: Sequence[int]) -> Columns:
    """Take some rows, in the order of ``numbers``."""
    return type(columns)(
        [columns.keys[n] for n in numbers],
        [columns.etags[n] for n in numbers],
        [columns.last_modified[n] for n in numbers],
        [columns.sizes[n] for n in numbers],
    )


def entries_after(entries: Sequence[Entry], key: str) -> int:
    """Find the first entry (in key order) that reaches beyond ``key``."""
    return bisect_right(entries, key, key=lambda entry: entry.last_key)
