"""What must be written after a range of keys was listed: segments, and nothing that is the same."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from scanning.core.segments.matcher import digest, end_of_rows, raw_last_key
from scanning.core.segments.model import (
    NOTHING,
    Entry,
    Merged,
    Piece,
    even_cuts,
    joined,
    merge,
    part,
    split_at,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scanning.core.listing.body import Columns

# A segment that shrank below this share of the largest size joins its neighbour, if both together
# stay below the other share: between the two nothing is moved back and forth.
SMALL, ROOMY = 1 / 4, 3 / 4


@dataclass(frozen=True, slots=True)
class Neighbour:
    """The segment before the one being written; ``raw`` None without its listed bytes."""

    entry: Entry
    columns: Columns
    raw: bytes | None


@dataclass(frozen=True, slots=True)
class Rewriting:
    """What a range of keys holds now, ``merged`` from its ``known`` rows and what was listed.

    ``pieces`` are the segments to write; none if nothing differs. ``raw`` are the listed bytes,
    None if not all are at hand. ``joined``: the only piece takes in the segment before it, and
    ``removed`` are the ids of segments that are no more. ``rest`` is the piece that is still to be
    listed.
    """

    merged: Merged
    known: Columns
    pieces: Sequence[Piece]
    raw: bytes | None
    joined: bool = False
    removed: Sequence[str] = ()
    rest: Piece | None = None

    @property
    def listed(self) -> int:
        """How many objects the listing showed."""
        return len(self.merged.columns) - len(self.merged.missing)


class Rewriter:
    """Cuts rows into segments of at most ``most`` rows, with ids from ``new_id``.

    ``strings_at``: when the documented strings of new rows are written; 0 if none are wanted.
    """

    def __init__(self, *, most: int, new_id: Callable[[], str], strings_at: float = 0.0) -> None:
        self.most = most
        self._new_id = new_id
        self._strings_at = strings_at

    def after(self, listed: Columns, raw: bytes) -> Rewriting:
        """Rows beyond all that is known."""
        merged = merge(NOTHING, listed)
        fresh = Entry(self._new_id(), "", 0, strings_at=self._strings_at)
        return Rewriting(merged, NOTHING, self._cut(fresh, merged, raw), raw)

    def whole(self, entry: Entry, known: Columns, listed: Columns, raw: bytes) -> Rewriting:
        """All rows of one segment's range."""
        merged = merge(known, listed)
        if not merged.same:
            return Rewriting(merged, known, self._cut(entry, merged, raw), raw)
        described = _described(entry, merged.columns, merged.missing, raw)
        pieces = [] if described == entry else [Piece(described, None)]
        return Rewriting(merged, known, pieces, raw)

    def first_part(
        self, entry: Entry, known: Columns, listed: Columns, raw: bytes, *, up_to: str
    ) -> Rewriting:
        """The rows of a segment's range up to a key, while the rest is still to be listed."""
        head, tail = split_at(known, up_to)
        merged = merge(head, listed)
        pieces = self._cut(replace(entry, id=self._new_id()), merged, raw)
        if not len(head):
            return Rewriting(merged, head, pieces, raw)
        still_missing = tuple(n - len(head) for n in entry.missing if n >= len(head))
        rest = Piece(
            replace(entry, count=len(tail), digest=b"", length=0, missing=still_missing), tail
        )
        return Rewriting(merged, head, [*pieces, rest], raw, rest=rest)

    def joins(self, neighbour: Entry, rewriting: Rewriting, *, shrunk: bool) -> bool:
        """Whether what was just cut had better be part of the segment before it."""
        if len(rewriting.pieces) != 1 or rewriting.pieces[0].columns is None:
            return False
        entry = rewriting.pieces[0].entry
        if neighbour.missing or entry.missing:
            return False
        together = neighbour.count + entry.count
        if shrunk:
            return entry.count < self.most * SMALL and together <= self.most * ROOMY
        return together <= self.most

    def join(self, before: Neighbour, rewriting: Rewriting) -> Rewriting:
        """The same rewriting, as a part of the segment before it."""
        [piece] = rewriting.pieces
        assert piece.columns is not None  # noqa: S101 - see joins()
        columns = joined(before.columns, piece.columns)
        entry = replace(
            before.entry,
            last_key=piece.entry.last_key,
            count=len(columns),
            strings_at=self._strings_of(before.entry, piece.entry),
        )
        if before.raw is None or rewriting.raw is None:
            raw = None
            entry = replace(entry, digest=b"", length=0, raw_key=piece.entry.raw_key)
        else:
            raw = before.raw + rewriting.raw
            entry = _described(entry, columns, (), raw)
        return replace(
            rewriting,
            pieces=[Piece(entry, columns)],
            raw=raw,
            joined=True,
            removed=[piece.entry.id] if len(rewriting.known) else [],
        )

    def _strings_of(self, *entries: Entry) -> float:
        """When to say that joined strings were written: the oldest must live, or all must go."""
        times = [entry.strings_at for entry in entries]
        return min(times) if self._strings_at else max(times)

    def _cut(self, entry: Entry, merged: Merged, raw: bytes) -> list[Piece]:
        """Segments for these rows; the first keeps the id of ``entry``."""
        pieces: list[Piece] = []
        columns, at = merged.columns, 0
        for start, end in even_cuts(len(columns), most=self.most):
            missing = tuple(n - start for n in merged.missing if start <= n < end)
            last = end == len(columns)
            raw_end = len(raw) if last else end_of_rows(raw, at, end - start - len(missing))
            rows = part(columns, start, end)
            named = replace(entry, id=self._new_id()) if pieces else entry
            pieces.append(Piece(_described(named, rows, missing, raw[at:raw_end]), rows))
            at = raw_end
        return pieces


def _described(entry: Entry, columns: Columns, missing: tuple[int, ...], raw: bytes) -> Entry:
    """The entry for these rows, of which all but the missing ones were listed as ``raw``."""
    last_key = columns.keys[-1]
    count = len(columns)
    ends_listed = not missing or missing[-1] != count - 1
    raw_key = raw_last_key(raw) if ends_listed else b""
    return replace(
        entry,
        last_key=last_key,
        count=count,
        digest=digest(raw) if len(missing) < count else b"",
        length=len(raw),
        raw_key=b"" if raw_key == last_key.encode() else raw_key,
        missing=missing,
    )


def drop_missing_rows(entry: Entry, columns: Columns) -> Piece | None:
    """A segment without its missing rows; None if nothing is left of it.

    Its digest stays: it was always that of the other rows.
    """
    kept = entry.listed_rows(columns)
    if not kept:
        return None
    rows = _some_of(columns, kept)
    raw_key = entry.raw_key if entry.ends_listed else b""
    left = replace(entry, last_key=rows.keys[-1], count=len(rows), missing=(), raw_key=raw_key)
    return Piece(left, rows)


def _some_of(columns: Columns, numbers: Sequence[int]) -> Columns:
    """Some rows, in the order of ``numbers``."""
    return type(columns)(
        [columns.keys[n] for n in numbers],
        [columns.etags[n] for n in numbers],
        [columns.last_modified[n] for n in numbers],
        [columns.sizes[n] for n in numbers],
    )


def entries_after(entries: Sequence[Entry], key: str) -> int:
    """Which of the entries (in key order) is the first that reaches beyond ``key``."""
    return bisect_right(entries, key, key=lambda entry: entry.last_key)
