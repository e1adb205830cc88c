"""Follow a listing through a bucket's manifest, as one stream of bytes.

Pages are only how the stream arrives: the bytes of a segment's rows are the same wherever a page
is cut, so a segment is found again by its digest at the place where it should begin, also when
insertions and deletions before it have shifted every page (`docs/adr/0004`). Asking for full pages
is always enough: no LIST call is spent on alignment, however fragmented the manifest is.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import xxhash

from scanning.core.listing.body import UnreadableListing, without_repeats
from scanning.core.segments.model import part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from scanning.core.listing.body import Columns
    from scanning.core.segments.model import Entry

_KEY = b"<Key>%b</Key>"
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
    """Rows that must be compared with what is known.

    ``columns`` are all rows listed after what came before, up to the end of ``entry``'s range, or
    only up to ``up_to`` while more of that range is to come; never more rows than a segment may
    have. Without an entry they come after all known keys; ``is_last`` then says that no more
    follow.
    """

    entry: Entry | None
    columns: Columns
    raw: bytes
    up_to: str | None = None
    is_last: bool = False


class Matcher:
    """Takes the pages of one range of keys in their order; says what they mean for its segments.

    ``most`` is the largest number of rows in a segment. Without ``tail`` the range ends with the
    last entry, and what is listed after it belongs to somebody else.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        parse: Callable[[bytes], Columns],
        *,
        most: int,
        tail: bool,
        after: str = "",
    ) -> None:
        self._entries = list(entries)
        self._parse = parse
        self._most = most
        self._tail = tail
        self._next = 0
        self._buffer = b""
        self._at = 0
        self._last_key = after
        self._covered = after
        self._ended = False

    @property
    def done(self) -> bool:
        """Everything in the range has been said."""
        return self._next == len(self._entries) and (not self._tail or self._ended)

    def replace_current(self, entry: Entry) -> None:
        """The segment that is being listed shrank: what was listed of it stands elsewhere now."""
        self._entries[self._next] = entry

    def feed(self, page: Page) -> Iterator[Unchanged | Listed]:
        """What one more page tells; exhaust it before feeding the next."""
        rest = self._buffer[self._at :]
        self._buffer = rest + page.entries if rest else page.entries
        self._at = 0
        self._last_key = page.last_key or self._last_key
        self._ended = not page.is_truncated
        yield from self._through_entries()
        if self._tail and self._next == len(self._entries):
            yield from self._after_entries()

    def _through_entries(self) -> Iterator[Unchanged | Listed]:
        while self._next < len(self._entries):
            entry = self._entries[self._next]
            end = self._at + entry.length
            if entry.digest and entry.ends_listed and end <= len(self._buffer):
                raw = self._buffer[self._at : end]
                if digest(raw) == entry.digest:
                    self._pass(end, entry.last_key)
                    self._next += 1
                    yield Unchanged(entry, raw)
                    continue
            if self._ended or self._last_key >= entry.last_key:
                end = self._end_of(entry)
                rows = self._buffer.count(_CLOSE, self._at, end)
                if rows <= self._most:
                    listed = self._take(end, rows, entry)
                    self._next += 1
                    yield listed
                else:  # in equal parts, as they will be segments
                    yield self._take_part(rows // -(-rows // self._most), entry)
            elif self._rows() >= 2 * self._most:
                yield self._take_part(self._most, entry)
            else:
                return

    def _after_entries(self) -> Iterator[Listed]:
        while (rows := self._rows()) > self._most:
            end = end_of_rows(self._buffer, self._at, self._most)
            yield self._take(end, self._most, None)
        if self._ended or rows == self._most:
            yield self._take(len(self._buffer), rows, None, is_last=self._ended)

    def _take(self, end: int, rows: int, entry: Entry | None, *, is_last: bool = False) -> Listed:
        raw, columns = self._read(end, rows)
        keys = columns.keys
        covered = entry.last_key if entry else keys[-1] if keys else self._covered
        self._pass(end, covered)
        return Listed(entry, columns, raw, is_last=is_last)

    def _take_part(self, rows: int, entry: Entry) -> Listed:
        end = end_of_rows(self._buffer, self._at, rows)
        raw, columns = self._read(end, rows)
        covered = columns.keys[-1] if columns.keys else self._covered
        self._pass(end, covered)
        return Listed(entry, columns, raw, up_to=covered)

    def _read(self, end: int, rows: int) -> tuple[bytes, Columns]:
        """The next bytes, which hold so many rows, and what they say; rows that come twice once."""
        raw = self._buffer[self._at : end]
        columns = self._parse(raw)
        if len(columns) != rows:
            raw = without_repeats(raw)
            if raw.count(_CLOSE) != len(columns):
                raise UnreadableListing("it repeats a row in other words")
        if columns.keys and columns.keys[0] == self._covered:
            columns, raw = part(columns, 1, len(columns)), raw[end_of_rows(raw, 0, 1) :]
        if columns.keys and columns.keys[0] <= self._covered:
            raise UnreadableListing("its keys are not in order")
        return raw, columns

    def _pass(self, end: int, covered: str) -> None:
        self._at = end
        self._covered = covered

    def _rows(self) -> int:
        """How many rows wait in the buffer; counting takes longer than recognising them."""
        return self._buffer.count(_CLOSE, self._at)

    def _end_of(self, entry: Entry) -> int:
        """Where the rows of ``entry``'s range end in the buffer."""
        if self._last_key <= entry.last_key:
            return len(self._buffer)
        # How it is written is not known of a key that was last only since others were deleted.
        if entry.raw_key or not _ALWAYS_ENCODED.search(entry.last_key):
            raw_key = _KEY % (entry.raw_key or entry.last_key.encode())
            found = self._buffer.find(raw_key, self._at)
            if found >= 0:
                return self._buffer.index(_CLOSE, found) + len(_CLOSE)
        # Its last key is gone, or is written otherwise than before.
        keys = self._parse(self._buffer[self._at :]).keys
        if len(keys) != self._rows():
            self._buffer = without_repeats(self._buffer[self._at :])
            self._at = 0
        return end_of_rows(self._buffer, self._at, bisect_right(keys, entry.last_key))


def digest(raw: bytes) -> bytes:
    """128 bits of the bytes of some rows. Equal digests mean equal rows."""
    return xxhash.xxh3_128_digest(raw)


def end_of_rows(raw: bytes, start: int, rows: int) -> int:
    """Where the first ``rows`` rows from ``start`` end."""
    end = start
    for _ in range(rows):
        end = raw.index(_CLOSE, end) + len(_CLOSE)
    return end


def raw_last_key(raw: bytes) -> bytes:
    """The last row's key as the server wrote it."""
    start = raw.rfind(b"<Key>")
    return raw[start + 5 : raw.find(b"</Key>", start)] if start >= 0 else b""
