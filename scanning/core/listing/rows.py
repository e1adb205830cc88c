"""The rows of some entries, and those among them that cannot be read.

One odd row costs one row: it is named, and left out of the rows that are compared. A page on which
odd rows take much memory is none that S3 sends.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from operator import lt
from typing import TYPE_CHECKING, Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from scanning.core.listing.body import (
    MOST_ETAG,
    MOST_KEY_BYTES,
    Columns,
    KeysOutOfOrder,
    UnreadableKey,
    UnreadableListing,
    decode_key,
    read_rows,
    render_entries,
    split_entries,
)
from scanning.core.texts import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_KEY = re.compile(rb"<Key>([^<]*+)</Key>")
_MOST_UTF8: Final = 4  # bytes for a character
# 1900, in milliseconds: what was never modified is of the year 1 to some servers.
_OLDEST: Final = -2_208_988_800_000
# What S3 writes is shorter; no page of it holds so many bytes of rows that are longer, and odd.
_USUAL_ENTRY: Final = 4_096
_MOST_UNUSUAL: Final = 131_072
_SHOWN: Final = 1000


@dataclass(frozen=True, slots=True)
class OddRow:
    """An entry that cannot be read; ``key`` is None where that is what cannot be read of it.

    ``shown`` is the key as the server wrote it, for people; ``place`` are its bytes, which say
    where it belongs. ``number`` is its place among all entries.
    """

    key: str | None
    shown: str
    place: bytes = b""
    number: int = 0


@dataclass(frozen=True, slots=True)
class ListedRows:
    """The rows that can be read, and the odd ones, each in their order.

    ``numbers`` are the places of the former among all entries; None: there are no others.
    ``conflicting`` are keys that come twice with different rows: the last row counts.
    """

    columns: Columns
    numbers: Sequence[int] | None = None
    odd: Sequence[OddRow] = ()
    conflicting: Sequence[str] = ()

    @property
    def ends_oddly(self) -> bool:
        """Tell whether the last entry is an odd one."""
        return bool(self.odd) and (not self.numbers or self.odd[-1].number > self.numbers[-1])

    def up_to(self, key: str) -> int:
        """Count the entries, odd ones too, up to a key."""
        rows = bisect_right(self.columns.keys, key)
        if self.numbers is None:
            return rows
        end = self.numbers[rows - 1] + 1 if rows else 0
        beyond = self.numbers[rows] if rows < len(self.numbers) else math.inf
        for odd in self.odd:
            if end <= odd.number < beyond and odd.place <= key.encode():
                end = odd.number + 1
        return end

    def kept(self, entries: bytes) -> bytes:
        """Cut the entries that were read down to those of ``columns``."""
        if self.numbers is None:
            return entries
        rows = split_entries(entries)
        return b"".join([rows[number] for number in self.numbers])


def read_entries(
    entries: bytes, *, url_encoded: bool, by_parser: Callable[[bytes], Columns]
) -> ListedRows:
    """Read rows, each once and in order. Raises UnreadableListing where they make no sense.

    ``by_parser`` reads entries of any shape with a real parser, or raises UnreadableListing.
    """
    rows = read_each(entries, url_encoded=url_encoded, by_parser=by_parser)
    # Python compares strings by code point, which is the order of their UTF-8 bytes.
    keys = rows.columns.keys
    if all(map(lt, keys, keys[1:])):
        return rows
    return _each_once(rows)


def read_each(
    entries: bytes, *, url_encoded: bool, by_parser: Callable[[bytes], Columns]
) -> ListedRows:
    """Read rows as they come, those of a key that comes twice too."""
    with suppress(UnreadableKey):
        columns = read_rows(entries, url_encoded=url_encoded)
        if columns is not None and are_plausible(columns):
            return ListedRows(columns)
    raw = split_entries(entries)
    read: list[Columns | None] = [None] * len(raw)
    others = []
    for number, entry in enumerate(raw):
        with suppress(UnreadableKey):  # a parser would read no more of it
            row = read_rows(entry, url_encoded=url_encoded)
            if row is None:
                others.append(number)
            elif are_plausible(row):
                read[number] = row
    parsed = _parse([raw[number] for number in others], by_parser)
    for number, row in zip(others, parsed, strict=True):
        read[number] = row
    odd = [entry for entry, row in zip(raw, read, strict=True) if row is None]
    if sum(len(entry) for entry in odd if len(entry) > _USUAL_ENTRY) > _MOST_UNUSUAL:
        raise UnreadableListing("its rows are longer than S3 sends")
    return sift(read, [_odd_row(entry, url_encoded=url_encoded) for entry in odd])


def sift(read: Sequence[Columns | None], odd: Sequence[OddRow]) -> ListedRows:
    """Put single rows together; None stands for an odd one."""
    numbers = [number for number, row in enumerate(read) if row is not None]
    found = [row for row in read if row is not None]
    columns = Columns(
        [row.keys[0] for row in found],
        [row.etags[0] for row in found],
        [row.last_modified[0] for row in found],
        [row.sizes[0] for row in found],
    )
    if not odd:
        return ListedRows(columns)
    places = [number for number, row in enumerate(read) if row is None]
    return ListedRows(
        columns,
        numbers,
        tuple(replace(row, number=number) for row, number in zip(odd, places, strict=True)),
    )


def render_rows(rows: ListedRows) -> bytes:
    """Write rows as URL-encoded entries, the odd ones as entries that nobody can read either."""
    if rows.numbers is None:
        return render_entries(rows.columns)
    columns, places = rows.columns, set(rows.numbers)
    odd, written, row = iter(rows.odd), [], 0
    for number in range(len(columns) + len(rows.odd)):
        if number in places:
            written.append(render_entries(columns.take([row])))
            row += 1
        else:
            key = quote_from_bytes(next(odd).shown.encode(errors="backslashreplace"), safe="")
            written.append(b"<Contents><Key>%b</Key></Contents>" % key.encode())
    return b"".join(written)


def _each_once(rows: ListedRows) -> ListedRows:
    """Take the last row of each key. Raises UnreadableListing for keys in another order."""
    keys = rows.columns.keys
    for before, after in pairwise(keys):
        if after < before:
            shown = f"{clean(after)} comes after {clean(before)}"
            raise KeysOutOfOrder(f"its keys are not in order: {shown}")
    kept = [n for n in range(len(keys)) if n + 1 == len(keys) or keys[n] != keys[n + 1]]
    columns = rows.columns
    versions = list(zip(columns.etags, columns.last_modified, columns.sizes, strict=True))
    conflicting = {
        keys[n]
        for n in range(1, len(keys))
        if keys[n] == keys[n - 1] and versions[n] != versions[n - 1]
    }
    numbers = rows.numbers or range(len(keys))
    return ListedRows(
        columns.take(kept),
        [numbers[n] for n in kept],
        rows.odd,
        sorted(conflicting),
    )


def are_plausible(columns: Columns) -> bool:
    """Tell whether all rows say what may be true of objects."""
    keys = columns.keys
    if not keys:
        return True
    if max(map(len, keys)) * _MOST_UTF8 > MOST_KEY_BYTES and any(
        len(key.encode()) > MOST_KEY_BYTES for key in keys
    ):
        return False
    return (
        "" not in keys
        and max(map(len, columns.etags)) <= MOST_ETAG
        and min(columns.last_modified) >= _OLDEST
        and 0 <= min(columns.sizes) <= max(columns.sizes) < 2**63
    )


def _parse(entries: Sequence[bytes], by_parser: Callable[[bytes], Columns]) -> list[Columns | None]:
    """Read entries of another shape: together if that succeeds, else one by one."""
    if not entries:
        return []
    with suppress(UnreadableListing):
        columns = by_parser(b"".join(entries))
        if are_plausible(columns):
            return [columns.take([number]) for number in range(len(columns))]
    return [_parse_one(entry, by_parser) for entry in entries]


def _parse_one(entry: bytes, by_parser: Callable[[bytes], Columns]) -> Columns | None:
    with suppress(UnreadableListing):
        row = by_parser(entry)
        return row if len(row) == 1 and are_plausible(row) else None
    return None


def _odd_row(entry: bytes, *, url_encoded: bool) -> OddRow:
    found = _KEY.search(entry)
    if found is None:
        return OddRow(None, "")
    raw = found[1]
    # A server that does not escape what XML wants escaped means what it writes.
    key = decode_key(raw, url_encoded=url_encoded) or decode_key(
        raw.replace(b"&", b"&amp;"), url_encoded=url_encoded
    )
    return OddRow(
        key or None,
        key or raw[:_SHOWN].decode(errors="backslashreplace"),
        key.encode() if key else unquote_to_bytes(raw[:MOST_KEY_BYTES]),
    )
