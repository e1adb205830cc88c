"""Segments and manifest entries as bytes: columns, then zstd.

Numbers are stored as planes (all lowest bytes, then all next ones, …), where zstd finds what
neighbouring objects have in common; MD5 ETags as their 16 bytes.
"""

from __future__ import annotations

import re
import sys
import threading
from array import array
from typing import TYPE_CHECKING, Any, Final

import msgpack
import zstandard

from scanning.core.listing.body import Columns
from scanning.core.segments.model import Entry

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDTH: Final = 8
_ALL_MD5: Final = re.compile(r"[0-9a-f]*")
_MD5_DIGITS: Final = 32
_LEVEL: Final = 1
_DIGEST: Final = 16  # bytes of xxh3_128

# A compressor is not safe to share between threads, and costs more to make than to use.
_local = threading.local()


def pack_rows(columns: Columns) -> bytes:
    etags: Any = columns.etags
    together = "".join(etags)
    if all(len(etag) == _MD5_DIGITS for etag in etags) and _ALL_MD5.fullmatch(together):
        etags = bytes.fromhex(together)
    packed = msgpack.packb(
        [columns.keys, etags, _planes(columns.last_modified), _planes(columns.sizes)]
    )
    return _zstd()[0].compress(packed)


def unpack_rows(value: bytes) -> Columns:
    """Read the rows of one segment. Raises ValueError if the bytes are not a segment's."""
    try:
        keys, etags, modified, sizes = msgpack.unpackb(_zstd()[1].decompress(value))
        if isinstance(etags, bytes):
            together = etags.hex()
            etags = [together[at : at + _MD5_DIGITS] for at in range(0, len(together), _MD5_DIGITS)]
        columns = Columns(keys, etags, _numbers(modified), _numbers(sizes))
        lengths = {len(keys), len(etags), len(columns.last_modified), len(columns.sizes)}
    except (zstandard.ZstdError, msgpack.UnpackException, TypeError, MemoryError) as exc:
        raise ValueError("not a segment") from exc
    if len(lengths) != 1:
        raise ValueError("not a segment")
    return columns


def pack_entry(entry: Entry) -> bytes:
    """Pack a manifest entry without its id, which is the field's name.

    What is noted of rows goes with the digest: hosts of version 0.1 read seven members, and take a
    digest of another length for one that no listing has. They compare the rows then, and drop the
    note. Where no rows are absent, its time is that of the last change.
    """
    digest = entry.digest
    if entry.absent or entry.moved or entry.changed_at:
        noted_at = entry.absent_since if entry.absent else entry.changed_at
        note = [entry.digest, entry.absent, noted_at]
        if entry.moved:
            note.append(_zstd()[0].compress(_planes([*entry.moved, *entry.moved_times])))
        digest = bytes(_DIGEST) + msgpack.packb(note)
    packed: bytes = msgpack.packb(
        [
            entry.last_key,
            entry.count,
            digest,
            entry.length,
            entry.raw_key,
            entry.missing,
            entry.strings_at,
        ]
    )
    return packed


def unpack_entry(id_: bytes, value: bytes) -> Entry:
    """Read one field of a manifest. Raises ValueError if the bytes are not an entry's."""
    try:
        last_key, count, digest, length, raw_key, missing, strings_at = msgpack.unpackb(value)
        rows = tuple(missing)
        absent, noted_at, moved = (), 0, list[int]()
        if len(digest) > _DIGEST:
            digest, absent, noted_at, *more = msgpack.unpackb(digest[_DIGEST:])
            if more:
                moved = _numbers(_zstd()[1].decompress(more[0]))
            if len(moved) % 2:
                raise ValueError("not a manifest entry")
        return Entry(
            id_.decode(),
            last_key,
            count,
            digest,
            length,
            raw_key,
            rows,
            strings_at,
            tuple(absent),
            noted_at if absent else 0.0,
            tuple(moved[: len(moved) // 2]),
            tuple(moved[len(moved) // 2 :]),
            0 if absent else noted_at,
        )
    except (zstandard.ZstdError, msgpack.UnpackException, TypeError) as exc:
        raise ValueError("not a manifest entry") from exc


def _planes(numbers: Sequence[int]) -> bytes:
    raw = array("q", numbers)
    if sys.byteorder == "big":
        raw.byteswap()
    together = raw.tobytes()
    return b"".join(together[plane::_WIDTH] for plane in range(_WIDTH))


def _numbers(planes: bytes) -> list[int]:
    count = len(planes) // _WIDTH
    together = bytearray(len(planes))
    for plane in range(_WIDTH):
        together[plane::_WIDTH] = planes[plane * count : (plane + 1) * count]
    raw = array("q", bytes(together))
    if sys.byteorder == "big":
        raw.byteswap()
    return raw.tolist()


def _zstd() -> tuple[zstandard.ZstdCompressor, zstandard.ZstdDecompressor]:
    if not hasattr(_local, "zstd"):
        _local.zstd = (zstandard.ZstdCompressor(level=_LEVEL), zstandard.ZstdDecompressor())
    found: tuple[zstandard.ZstdCompressor, zstandard.ZstdDecompressor] = _local.zstd
    return found
