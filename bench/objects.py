"""The objects of the bench bucket, as the bytes that a Ceph RGW would list them in.

Keys, times, sizes and ETags are made up but shaped like real ones: keys by date with a counter and
a random end, ETags like MD5. The n-th row is the same however many there are.
"""

from __future__ import annotations

import random
from array import array
from bisect import bisect_right
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

SEED: Final = 20240501
DAYS: Final = 28
A_DAY: Final = 80_000  # objects; less than a counter's last five digits can number
CLUSTERS: Final = 4

_KEY_AT: Final = len(b"<Contents><Key>")
_BODY: Final = (
    "<Contents><Key>photos%%2F2024%%2F%02d%%2F%02d%%2FIMG-%05d-%s.jpg</Key>"
    "<LastModified>2024-%02d-%02dT%02d:%02d:%02d.%03dZ</LastModified>"
    "<ETag>&quot;%s&quot;</ETag><Size>%d</Size>"
    "<StorageClass>STANDARD</StorageClass><Type>Normal</Type></Contents>"
)
_ETAG: Final = b"<ETag>&quot;"
_TIME: Final = b"<LastModified>2024-"
_ETAG_DIGITS: Final = 32
_END_DIGITS: Final = 6


class Rows:
    """Rows in key order: ``raw`` holds them all, row n from ``starts[n]`` to ``starts[n + 1]``.

    ``sizes[n]`` is how many bytes the first n objects have.
    """

    def __init__(self, raw: bytes, starts: array[int], sizes: array[int]) -> None:
        self.raw = raw
        self.starts = starts
        self.sizes = sizes

    def __len__(self) -> int:
        return len(self.starts) - 1

    def key(self, number: int) -> bytes:
        start = self.starts[number] + _KEY_AT
        return self.raw[start : self.raw.index(b"<", start)].replace(b"%2F", b"/")

    def after(self, key: bytes) -> int:
        """The number of the first row whose key is greater."""
        return bisect_right(range(len(self)), key, key=self.key)

    def between(self, first: int, end: int) -> memoryview:
        return memoryview(self.raw)[self.starts[first] : self.starts[end]]


def make_rows(count: int) -> Rows:
    made = random.Random(SEED)  # noqa: S311 - the same bucket in every run
    parts, starts, sizes = [], array("Q", [0]), array("Q", [0])
    for number in range(count):
        text, size = _row_and_size(number, made)
        row = text.encode()
        parts.append(row)
        starts.append(starts[-1] + len(row))
        sizes.append(sizes[-1] + size)
    return Rows(b"".join(parts), starts, sizes)


def _row_and_size(number: int, made: random.Random) -> tuple[str, int]:
    day, counter = divmod(number, A_DAY)
    month, day = divmod(day, DAYS)
    second = counter * 86400 // A_DAY
    digits = f"{made.getrandbits(4 * (_ETAG_DIGITS + _END_DIGITS)):038x}"
    noise = made.getrandbits(30)
    size = noise % 8_000_000 + 20_000
    row = _BODY % (
        month + 1,
        day + 1,
        counter,
        digits[_ETAG_DIGITS:],
        month + 1,
        day + 1,
        second // 3600,
        second // 60 % 60,
        second % 60,
        noise % 1000,
        digits[:_ETAG_DIGITS],
        size,
    )
    return row, size


def overwritten(rows: Rows, numbers: Iterable[int]) -> Rows:
    """The same bucket after some objects were overwritten by others of their size."""
    raw = bytearray(rows.raw)
    for number in numbers:
        at = raw.index(_ETAG, rows.starts[number]) + len(_ETAG)
        raw[at : at + _ETAG_DIGITS] = raw[at : at + _ETAG_DIGITS][::-1]
        at = raw.index(_TIME, rows.starts[number]) + len(_TIME)
        raw[at : at + 2] = b"12"
    return Rows(bytes(raw), rows.starts, rows.sizes)


def flat(rows: Rows) -> Rows:
    """The same objects under keys without a prefix: random ones, as of a store of digests."""
    made = random.Random(SEED + 2)  # noqa: S311
    keys = sorted(f"{made.getrandbits(128):032x}".encode() for _ in range(len(rows)))
    parts, starts, length = [], array("Q", [0]), 0
    for number, key in enumerate(keys):
        row = bytes(rows.between(number, number + 1))
        part = row[:_KEY_AT] + key + row[row.index(b"<", _KEY_AT) :]
        parts.append(part)
        length += len(part)
        starts.append(length)
    return Rows(b"".join(parts), starts, rows.sizes)


def scattered(count: int) -> list[int]:
    """One object in a hundred, anywhere."""
    return sorted(random.Random(SEED + 1).sample(range(count), count // 100))  # noqa: S311


def clustered(count: int) -> list[int]:
    """One object in a hundred, in four runs of neighbours."""
    run = count // 100 // CLUSTERS
    starts = [count * (2 * number + 1) // (2 * CLUSTERS) for number in range(CLUSTERS)]
    return [number for start in starts for number in range(start, start + run)]
