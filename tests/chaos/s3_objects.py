"""Buckets in memory, and their listings as S3 servers write them."""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, quote_from_bytes, unquote

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

MOST_KEYS: Final = 1000
AFTER_ALL: Final = "\U0010ffff"


@dataclass(frozen=True, slots=True)
class Style:
    """How a server writes a listing; the same objects, other bytes."""

    quote: str
    safe_in_keys: str
    truncated_first: bool


# What Ceph's gateway does, and what MinIO does.
STYLES: Final = (
    Style("&quot;", "", truncated_first=True),
    Style("&#34;", "/", truncated_first=False),
)


@dataclass(frozen=True, slots=True)
class Change:
    """One object from now on; without ``etag`` there is none."""

    bucket: str
    key: str
    etag: str | None
    modified_ms: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class Object:
    """One object; ``rows`` are its listing entries, by style."""

    etag: str
    size: int
    rows: tuple[bytes, ...]


class Bucket:
    """Objects in key order. Safe for threads: a page shows one moment."""

    def __init__(self) -> None:
        self._keys: list[str] = []
        self._objects: dict[str, Object] = {}
        self._before: dict[str, Object] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def change(self, change: Change) -> None:
        if change.etag is None:
            self._delete(change.key)
            return
        rows = tuple(_row(change, style) for style in STYLES)
        with self._lock:
            if change.key not in self._objects:
                insort(self._keys, change.key)
            else:
                self._before[change.key] = self._objects[change.key]
                self._bytes -= self._objects[change.key].size
            self._bytes += change.size
            self._objects[change.key] = Object(change.etag, change.size, rows)

    def _delete(self, key: str) -> None:
        with self._lock:
            found = self._objects.pop(key, None)
            if found is not None:
                self._before[key] = found
                self._bytes -= found.size
                del self._keys[bisect_left(self._keys, key)]

    def totals(self) -> tuple[int, int]:
        """Count its objects and their bytes."""
        with self._lock:
            return len(self._keys), self._bytes

    def get(self, key: str) -> Object | None:
        return self._objects.get(key)

    def get_before(self, key: str) -> Object | None:
        """Return what was there before the last change of a key."""
        return self._before.get(key)

    def page(
        self,
        asked: Page,
        *,
        style: int,
        shows: Callable[[list[str], bool], tuple[list[str], bool]] = lambda keys, more: (
            keys,
            more,
        ),
        writes: Callable[[list[bytes]], list[bytes]] = lambda rows: rows,
    ) -> bytes:
        """Write the body of one answer to ListObjectsV2.

        ``shows`` says what a server shows of a page, ``writes`` how it writes the rows of it.
        """
        begins = bisect_left if asked.inclusive else bisect_right
        with self._lock:
            first = max(
                bisect_left(self._keys, asked.prefix),
                begins(self._keys, asked.after) if asked.after else 0,
            )
            end = bisect_right(self._keys, asked.prefix + AFTER_ALL)
            shown = self._keys[first : min(first + asked.most, max(first, end))]
            last = shown[-1] if shown else asked.after
            shown, more = shows(shown, first + len(shown) < end)
            rows = [self._objects[key].rows[style] for key in shown]
        if asked.repeats and rows:
            rows.insert(len(rows) // 2, rows[len(rows) // 2])
        tersely = asked.tersely and (more or len(rows) < asked.most)
        return _body(writes(rows), last, STYLES[style], more=more, tersely=tersely)


@dataclass(frozen=True, slots=True)
class Page:
    """Which keys are asked for, and how a server takes that.

    ``inclusive``: it begins with the key itself; it ``repeats`` a row; ``tersely``: without what
    follows from the rest.
    """

    prefix: str
    after: str
    most: int
    inclusive: bool = False
    repeats: bool = False
    tersely: bool = False


def _row(change: Change, style: Style) -> bytes:
    seconds, milliseconds = divmod(change.modified_ms, 1000)
    moment = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return (
        f"<Contents><Key>{quote(change.key, safe=style.safe_in_keys)}</Key>"
        f"<LastModified>{moment}.{milliseconds:03}Z</LastModified>"
        f"<ETag>{style.quote}{change.etag}{style.quote}</ETag><Size>{change.size}</Size>"
        f"<StorageClass>STANDARD</StorageClass></Contents>"
    ).encode()


def _body(rows: Collection[bytes], last: str, style: Style, *, more: bool, tersely: bool) -> bytes:
    token = b""
    if more:
        token = b"<NextContinuationToken>%b</NextContinuationToken>" % token_after(last).encode()
    truncated = b"<IsTruncated>%b</IsTruncated>" % (b"true" if more else b"false") + token
    if tersely:
        truncated = b"<KeyCount>%d</KeyCount>" % len(rows) + token
    entries = b"".join(rows)
    parts = (truncated, entries) if style.truncated_first else (entries, truncated)
    return (
        b'<?xml version="1.0" encoding="UTF-8"?>'
        b'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        b"<Name>chaos</Name><Prefix></Prefix><EncodingType>url</EncodingType>%b%b"
        b"</ListBucketResult>"
    ) % parts


def token_after(key: str) -> str:
    """A continuation token, which says nothing to anybody but ``key_of``."""
    return "t" + quote_from_bytes(key.encode()[::-1], safe="")


def key_of(token: str) -> str:
    return unquote(token[1:], encoding="latin-1").encode("latin-1")[::-1].decode()
