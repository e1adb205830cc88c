"""Follow a listing through a bucket's manifest, as one stream of bytes.

Pages are only how the stream arrives: the bytes of a segment's rows are the same wherever a page
is cut, so a segment is found again by its digest at the place where it should begin, also when
insertions and deletions before it have shifted every page (`docs/adr/0004`). Asking for full pages
is always enough: no LIST call is spent on alignment, however fragmented the manifest is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import xxhash

from scanning.core.listing.body import UnreadableListing, render_entries
from scanning.core.scan_warnings import ScanWarnings, WarningKind
from scanning.core.segments.model import interleave, part, parts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from scanning.core.listing.body import Columns
    from scanning.core.listing.rows import ListedRows
    from scanning.core.segments.model import Entry

_KEY = b"<Key>%b</Key>"
_CONTENTS = b"<Contents>"
_CLOSE = b"</Contents>"
# Written as it is, a key with one of these would be another key, or none.
_ALWAYS_ENCODED = re.compile(r"[%+&<\r]")


class Page(Protocol):
    """One answer of a listing: ``entries`` are its rows' bytes, with nothing between them."""

    @property
    def entries(self) -> bytes: ...
    @property
    def last_key(self) -> str: ...
    @property
    def is_truncated(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The segment's rows were listed as they were last time; ``raw`` are their bytes."""

    entry: Entry
    raw: bytes


@dataclass(frozen=True, slots=True)
class Listed:
    """Rows that must be compared with the known ones.

    ``columns`` are all rows listed after what came before, up to the end of ``entry``'s range, or
    only up to ``up_to`` while more of that range is to come; never more rows than a segment may
    have. There are none only where a whole range is empty. Without an entry the rows come after
    all known keys. ``odd`` are keys whose rows cannot be read: their objects are there.
    """

    entry: Entry | None
    columns: Columns
    raw: bytes
    up_to: str | None = None
    odd: Collection[str] = ()

    def with_odd_rows(self, known: Columns) -> Listed:
        """Take what is known of the objects whose rows cannot be read for what is listed of them.

        The bytes are none that a server sends then, so the range is compared in each pass.
        """
        if not self.odd:
            return self
        listed = set(self.columns.keys)
        kept = [n for n, key in enumerate(known.keys) if key in self.odd and key not in listed]
        if not kept:
            return self
        columns, _, _ = interleave(self.columns, known, kept)
        return replace(self, columns=columns, raw=render_entries(columns))


class Matcher:
    """Follows one range of keys: takes its pages in order, finds its known segments in them.

    ``limit`` is the largest number of rows in a segment. The range ends with the key ``until``, and
    what is listed after it belongs to somebody else; None: it ends with the bucket. ``warnings``
    are of the rows that were handed out, and of those left out between them.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        parse: Callable[[bytes], ListedRows],
        *,
        limit: int,
        after: str = "",
        until: str | None = None,
    ) -> None:
        self._entries = list(entries)
        self._parse = parse
        self._limit = limit
        self._until = until
        self._next = 0
        self._buffer = b""
        self._at = 0
        self._last_key = after
        self._covered = after
        self._ended = False
        # Keys whose rows cannot be read, of ranges that are not all handed out.
        self._odd: set[str] = set()
        self.warnings = ScanWarnings()

    @property
    def done(self) -> bool:
        """Tell whether every row of the range has been handed out."""
        return self._next == len(self._entries) and (self._ended or self._covered == self._until)

    def end_at(self, until: str | None) -> None:
        """Leave what comes after ``until`` to somebody else; nothing of it was handed out."""
        self._until = until

    def replace_current(self, entry: Entry) -> None:
        """Go on with ``entry`` for the segment whose first part was handed out and stored apart."""
        self._entries[self._next] = entry

    def feed(self, page: Page) -> Iterator[Unchanged | Listed]:
        """Match one more page; exhaust the iterator before feeding the next."""
        rest = self._buffer[self._at :]
        self._buffer = rest + page.entries if rest else page.entries
        self._at = 0
        self._last_key = page.last_key or self._last_key
        reaches_end = self._until is not None and self._last_key >= self._until
        self._ended = not page.is_truncated or reaches_end
        yield from self._match_entries()
        if self._next == len(self._entries):
            self._drop_what_is_beyond()
            yield from self._take_tail()

    # What the buffer holds at the place where the next known segment should begin (ADR 4):
    #
    #   the bytes that the segment had            the segment is unchanged; nothing is parsed
    #   all rows of its range, and they fit       compared with the known rows, all at once
    #   all rows of its range, too many           compared in equal parts, as they will be segments
    #   more than two segments, no end in sight   a first part is compared early: buffers stay small
    #   anything else                             the next page decides
    def _match_entries(self) -> Iterator[Unchanged | Listed]:
        while self._next < len(self._entries):
            entry = self._entries[self._next]
            if self._matches_digest(entry):
                yield self._take_unchanged(entry)
            elif self._reaches_end_of(entry):
                end = self._end_of(entry)
                rows = self._buffer.count(_CLOSE, self._at, end)
                if rows <= self._limit:
                    yield self._take_range(entry, end)
                else:
                    yield from self._take_part(entry, rows // parts_of(rows, self._limit))
            elif self._overflows():
                yield from self._take_part(entry, self._limit)
            else:
                return

    def _matches_digest(self, entry: Entry) -> bool:
        end = self._at + entry.length
        return (
            entry.digest != b""
            and entry.ends_listed
            and end <= len(self._buffer)
            and digest(memoryview(self._buffer)[self._at : end]) == entry.digest
        )

    def _reaches_end_of(self, entry: Entry) -> bool:
        return self._ended or self._last_key >= entry.last_key

    def _overflows(self) -> bool:
        return self._rows() >= 2 * self._limit

    def _take_unchanged(self, entry: Entry) -> Unchanged:
        raw = self._buffer[self._at : self._at + entry.length]
        self._advance(self._at + entry.length, entry.last_key)
        self._next += 1
        return Unchanged(entry, raw)

    def _take_range(self, entry: Entry, end: int) -> Listed:
        raw, columns = self._read(end)
        listed = Listed(entry, columns, raw, odd=frozenset(self._odd))
        self._advance(end, entry.last_key)
        self._next += 1
        return listed

    def _take_part(self, entry: Entry | None, rows: int) -> Iterator[Listed]:
        """Take the next rows of a range that goes on, unless they only repeat the last key."""
        is_all = rows == self._rows()
        end = len(self._buffer) if is_all else end_of_rows(self._buffer, self._at, rows)
        raw, columns = self._read(end)
        last_key = columns.keys[-1] if columns.keys else self._covered
        odd = frozenset(self._odd)
        self._advance(end, last_key)
        if columns.keys:
            yield Listed(entry, columns, raw, up_to=last_key if entry else None, odd=odd)

    def _take_tail(self) -> Iterator[Listed]:
        """Take the rows beyond all known keys: a full segment as soon as there is one."""
        while (rows := self._rows()) >= self._limit or (rows and self._ended):
            yield from self._take_part(None, min(rows, self._limit))

    def _drop_what_is_beyond(self) -> None:
        """Drop the rows after the range from the buffer, in which all known segments are found."""
        if self._until is None or self._last_key <= self._until:
            return
        rows = 0
        if self._covered < self._until:
            rows = self._parse(self._buffer[self._at :]).up_to(self._until)
        self._buffer = self._buffer[: end_of_rows(self._buffer, self._at, rows)]

    def _read(self, end: int) -> tuple[bytes, Columns]:
        """Parse the bytes up to ``end``; drop rows that come twice, or cannot be read."""
        raw = self._buffer[self._at : end]
        rows = self._parse(raw)
        self._odd.update(row.key for row in rows.odd if row.key)
        self._warn(WarningKind.ODD_ROW, [row.shown for row in rows.odd])
        self._warn(WarningKind.CONFLICTING_ROWS, rows.conflicting)
        raw, columns = rows.kept(raw), rows.columns
        if columns.keys and columns.keys[0] == self._covered:
            columns, raw = part(columns, 1, len(columns)), raw[end_of_rows(raw, 0, 1) :]
        if columns.keys and columns.keys[0] <= self._covered:
            raise UnreadableListing("its keys are not in order")
        return raw, columns

    def _warn(self, kind: WarningKind, keys: Sequence[str]) -> None:
        if keys:
            self.warnings.add(kind, *keys)

    def _advance(self, end: int, covered: str) -> None:
        self._at = end
        self._covered = covered
        if self._odd:
            self._odd = {key for key in self._odd if key > covered}

    def _rows(self) -> int:
        """Count the rows that wait in the buffer, which takes longer than recognising them."""
        return self._buffer.count(_CLOSE, self._at)

    def _end_of(self, entry: Entry) -> int:
        """Find where the rows of ``entry``'s range end in the buffer."""
        if self._last_key <= entry.last_key:
            return len(self._buffer)
        # How a key is written is unknown if it came last only when others were deleted.
        if entry.raw_key or not _ALWAYS_ENCODED.search(entry.last_key):
            raw_key = _KEY % (entry.raw_key or entry.last_key.encode())
            found = self._buffer.find(raw_key, self._at)
            if found >= 0:
                end = self._buffer.index(_CLOSE, found) + len(_CLOSE)
                while self._buffer.startswith(_CONTENTS + raw_key, end):  # again
                    end = self._buffer.index(_CLOSE, end) + len(_CLOSE)
                return end
        # The last key is gone, or is written otherwise than before.
        rows = self._parse(self._buffer[self._at :])
        self._odd.update(row.key for row in rows.odd if row.key)
        return end_of_rows(self._buffer, self._at, rows.up_to(entry.last_key))


def digest(raw: bytes | memoryview) -> bytes:
    """Digest the bytes of some rows to 128 bits. Equal digests mean equal rows."""
    return xxhash.xxh3_128_digest(raw)


def end_of_rows(raw: bytes, start: int, rows: int) -> int:
    """Find where the first ``rows`` rows from ``start`` end."""
    end = start
    for _ in range(rows):
        end = raw.index(_CLOSE, end) + len(_CLOSE)
    return end


def raw_last_key(raw: bytes) -> bytes:
    """Cut out the last row's key as the server wrote it."""
    start = raw.rfind(b"<Key>")
    return raw[start + 5 : raw.find(b"</Key>", start)] if start >= 0 else b""
