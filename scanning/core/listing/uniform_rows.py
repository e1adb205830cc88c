"""Entries that all look like the first of them.

A server writes every entry of a page with the same elements in the same order, and most of them
with the same text too. With what the first entry has between its key, time, ETag and size as
literal text, a regular expression reads the others several times faster than one that allows for
what any server might write.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

Row = tuple[bytes, bytes, bytes, bytes]

# What `body.py` takes for a key, an ETag and a size; times are looked at afterwards.
_GROUPS: Final = (rb"([^<]++)", rb"([\d:.T-]++)", rb"([^<&\"\n]*+)", rb"(\d{1,18}+)")
_USUAL_STAMP: Final = b"0000-00-00T00:00:00.000"
# What S3 writes between them is shorter; a pattern is compiled of it, and kept.
_LONGEST_BETWEEN: Final = 2000
_DIGITS: Final = bytes.maketrans(b"123456789", b"000000000")


def rows_like(first: re.Match[bytes], entries: bytes, count: int) -> Sequence[Row] | None:
    """Parse all ``count`` entries if they look like ``first``, one of them; else None.

    The groups of ``first`` are key, time, ETag and size, as those of each row.
    """
    if None in first.groups():
        return None
    ends = [first.start(), *(end for group in range(1, 5) for end in first.span(group))]
    ends.append(first.end())
    text = first.string
    between = tuple(text[ends[at] : ends[at + 1]] for at in range(0, len(ends), 2))
    if b"<Size>" in between[4] or sum(map(len, between)) > _LONGEST_BETWEEN:
        return None
    rows: list[Row] = _pattern(between).findall(entries)
    return rows if len(rows) == count and _usual(rows) else None


def _usual(rows: Sequence[Row]) -> bool:
    """Tell whether all times have milliseconds, as the pattern of times is loose for speed."""
    stamps = b"".join([row[1] for row in rows])
    return stamps.translate(_DIGITS) == _USUAL_STAMP * len(rows)


@lru_cache(maxsize=64)
def _pattern(between: tuple[bytes, ...]) -> re.Pattern[bytes]:
    literals = [re.escape(part) for part in between]
    groups = [*_GROUPS, b""]
    return re.compile(b"".join(a + b for a, b in zip(literals, groups, strict=True)))
