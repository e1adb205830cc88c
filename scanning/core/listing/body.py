"""Reading the body of a ListObjectsV2 answer: bytes in, rows out.

Two levels, because most pages of most scans are what they were before:

* the *digest level* finds where the entries stand, how many there are, the last key, whether the
  listing goes on, and a digest of the entries' bytes, without parsing any of them;
* the *rows level* turns the entries into columns.

What differs between servers is known from measurements (RGW, AWS, MinIO, moto): IsTruncated stands
before or after the entries, quotes are ``&quot;`` or ``&#34;``, and RGW echoes StartAfter and
tokens raw, so that a control character in them makes the whole body invalid XML. Nothing here
needs the body to be valid XML, only its entries to be where they look to be; a body that looks
otherwise is not recognised, and the caller takes a real XML parser.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import quote_from_bytes, unquote_to_bytes
from xml.sax.saxutils import escape

from scanning.core.listing.uniform_rows import rows_like

if TYPE_CHECKING:
    from collections.abc import Sequence

_OPEN: Final = b"<Contents>"
_CLOSE: Final = b"</Contents>"
_END: Final = b"</ListBucketResult>"

# A hostile server chooses the bytes, and a search holds the interpreter's lock until it ends: each
# pattern must take time in proportion to their number, whatever they are.
PROLOG: Final = rb"(?:\xef\xbb\xbf)?\s*+(?:<\?[^>]*\?>\s*+)*+"
_ROOT = re.compile(PROLOG + rb"<ListBucketResult(?:\s[^>]*)?>")
_PREFIXED_ROOT = re.compile(PROLOG + rb"<(?:[\w.-]+:)?ListBucketResult[\s/>]")
_PREFIXED_END = re.compile(rb"</(?:[\w.-]+:)?ListBucketResult\s*>\s*\Z")
_COMMON_PREFIXES = re.compile(rb"<(?:[\w.-]+:)?CommonPrefixes")
MOST_KEY_BYTES: Final = 1024  # S3's own limit
# No server writes more for a byte than "&#x10FFFF;".
LONGEST_RAW_KEY: Final = 10 * MOST_KEY_BYTES
_MANY_ESCAPES: Final = 50_000
_MOST_UTF8: Final = 4  # bytes for a character
# Those of S3 have 38 characters, those of some servers twice as many.
MOST_ETAG: Final = 256
# A page of so many bytes for each of the rows that were asked for has no more than these, or is of
# a server that lies about KeyCount, and counting takes longer than finding where entries stand.
_USUAL_ROW: Final = 512
# Elements and end tags: a thousand entries as S3 writes them have half as many.
_MOST_TAGS: Final = 100_000
_IS_TRUNCATED = re.compile(rb"<IsTruncated>\s*(true|false)\s*</IsTruncated>")
_KEY_COUNT = re.compile(rb"<KeyCount>\s*(\d{1,9})\s*</KeyCount>")
_NEXT_TOKEN = re.compile(rb"<NextContinuationToken>([^<]+)</NextContinuationToken>")
_URL_ENCODED: Final = b"<EncodingType>url</EncodingType>"
# Where any of these stands outside the entries, the entries are not all there is.
_FOREIGN = re.compile(rb"<!|<(?:[\w.-]+:)?(?:Contents|CommonPrefixes)")
_ECHOED = re.compile(
    rb"(?<!<CommonPrefixes>)"
    rb"<(StartAfter|Marker|Prefix|Delimiter|ContinuationToken|NextContinuationToken)>[^<]*</\1>"
)
_LAST = re.compile(rb">\s*false\s*</(?:[\w.-]+:)?IsTruncated>")

_ENTRY = re.compile(rb"<Contents>[^<]*+(?:<(?!/?Contents>)[^<]*+)*+</Contents>")
# A key that does not come first may be another element's: a real parser must tell.
_FIRST_KEY = re.compile(rb"<Contents>\s*+<Key>([^<]+)</Key>")
_TELLING_KEY = re.compile(rb"<Key>([^<%+ \x80-\xff]*+[%+ \x80-\xff][^<]*+)</Key>")
_RAW_KEY = re.compile(rb"<Key>[^< \x80-\xff]*+[ \x80-\xff]")
_ROW = re.compile(
    rb"<Contents>\s*+<Key>([^<]++)</Key>"
    rb"\s*+<LastModified>(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d++)?)Z</LastModified>"
    rb"\s*+(?:<ETag>(?:&quot;|&#34;|\")?([^<&\"\n]*+)(?:&quot;|&#34;|\")?</ETag>|<ETag\s*+/>)"
    rb"[^<]*+(?:<(?!Size>|/?Contents>)[^<]*+)*+<Size>(\d{1,18}+)</Size>"
    rb"[^<]*+(?:<(?!Size>|/?Contents>)[^<]*+)*+</Contents>"
)
_REFERENCE = re.compile(rb"&([^;&\xff]*);?")
_NAMED: Final = {b"amp": b"&", b"lt": b"<", b"gt": b">", b"quot": b'"', b"apos": b"'"}

_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - listings are UTC; naive is faster
_MILLISECOND: Final = timedelta(milliseconds=1)


class UnreadableListing(ValueError):
    """The entries cannot be what the server meant; no other parser would help."""


class UnreadableKey(UnreadableListing):
    """A key that is not UTF-8, or longer than any."""


class KeysOutOfOrder(UnreadableListing):
    """The server sorts keys otherwise than by their bytes."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Rows of a listing in their order: one list per column, all of the same length.

    ``etags`` are without quotes, ``last_modified`` is in milliseconds since the epoch.
    """

    keys: list[str]
    etags: list[str]
    last_modified: list[int]
    sizes: list[int]

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: Sequence[int]) -> Columns:
        """Take some rows, in the order of their numbers."""
        return Columns(
            [self.keys[n] for n in rows],
            [self.etags[n] for n in rows],
            [self.last_modified[n] for n in rows],
            [self.sizes[n] for n in rows],
        )


@dataclass(frozen=True, slots=True)
class ListingBody:
    """The digest level of one answer.

    ``last_key`` is the key of the last entry whose key can be read ("" without any), and
    ``ends_oddly`` says that others follow it; ``key_count`` is what the server says.
    ``is_truncated`` is None if the server does not say. ``next_token`` continues the listing; it
    matters only where there is no last key to go on from.
    """

    body: bytes
    start: int
    end: int
    gapless: bool
    is_truncated: bool | None
    url_encoded: bool
    last_key: str
    next_token: str
    key_count: int | None
    ends_oddly: bool = False

    @property
    def is_version_1(self) -> bool:
        """Whether this is how ListObjects answers, which knows no KeyCount and echoes Marker."""
        if self.key_count is not None or self.next_token:
            return False
        envelope = self.body[: self.start] + self.body[self.end :]
        return b"<Marker>" in envelope or b"<Marker/>" in envelope or b"<Marker />" in envelope

    @property
    def rows(self) -> int:
        """The number of entries; it takes longer to count them than to find where they stand."""
        return self.body.count(_CLOSE, self.start, self.end)

    @property
    def entries(self) -> bytes:
        """The bytes of all entries with nothing between them, wherever the page was cut."""
        if self.gapless:
            return self.body[self.start : self.end]
        return b"".join(_ENTRY.findall(self.body, self.start, self.end))

    def has_more_than(self, asked: int) -> bool:
        if self.key_count is not None and self.end - self.start <= asked * _USUAL_ROW:
            return self.key_count > asked
        return self.rows > asked

    def goes_on(self, asked: int) -> bool:
        """Tell whether more follows these entries; ``asked`` were asked for.

        Raises UnreadableListing if that cannot be told.
        """
        if self.is_truncated is not None:
            return self.is_truncated
        if self.next_token:
            return True
        if self.key_count == self.rows < asked:
            return False
        raise UnreadableListing(
            "it has no IsTruncated, and neither KeyCount nor NextContinuationToken tells whether "
            "more follows"
        )

    def columns(self) -> Columns | None:
        """Parse the rows; None if an entry is not of the usual shape.

        Raises UnreadableListing if a key is not UTF-8.
        """
        return read_rows(self.body[self.start : self.end], url_encoded=self.url_encoded)


def is_whole(body: bytes) -> bool:
    """Check that a listing is not cut short: right root, and its end tag at the very end."""
    return _ROOT.match(body) is not None and body[-256:].rstrip().endswith(_END)


def check_for_parser(body: bytes) -> None:
    """Look at a body that is not of a known shape before an XML parser does.

    Raises UnreadableListing for what is no listing, for what a parser would pay for with all of
    this host's memory, and for what stands for keys that it does not show.
    """
    if not (_PREFIXED_ROOT.match(body) and _PREFIXED_END.search(body[-256:])):
        raise UnreadableListing("it was cut short, or is not a listing")
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        raise UnreadableListing("it holds a document type, which is not what S3 sends")
    check_elements(body)
    if _COMMON_PREFIXES.search(body):
        raise UnreadableListing("it holds CommonPrefixes, though no delimiter was asked for")


def check_elements(xml: bytes) -> None:
    """Raise UnreadableListing for so many elements that parsing them takes this host's memory."""
    if xml.count(b"<") > _MOST_TAGS:
        raise UnreadableListing("it holds more elements than S3 sends")


def read_listing(body: bytes) -> ListingBody | None:
    """Find the entries of an answer; None if the body is not of a known shape."""
    root = _ROOT.match(body)
    if root is None or not is_whole(body):
        return None
    start, end = _span(body, root.end())
    envelope = body[root.end() : start] + body[end:]
    truncated = _IS_TRUNCATED.findall(envelope)
    if len(truncated) > 1 or _FOREIGN.search(envelope):
        return None
    if not truncated and b"IsTruncated" in envelope:
        return None
    key_count = _KEY_COUNT.search(envelope)
    gapless = _touching(body, start, end, is_counted=key_count is not None)
    url_encoded = _URL_ENCODED in envelope
    if gapless is None or (start < end and not _ends_with_entry(body, start, end)):
        return None
    last_key, at = _last_key(body, start, end, url_encoded=url_encoded)
    return ListingBody(
        body=body,
        start=start,
        end=end,
        gapless=gapless,
        is_truncated=truncated[0] == b"true" if truncated else None,
        url_encoded=url_encoded,
        last_key=last_key,
        next_token=next_token(envelope),
        key_count=int(key_count[1]) if key_count else None,
        ends_oddly=at != end,
    )


def read_rows(entries: bytes, *, url_encoded: bool) -> Columns | None:
    """Parse all entries; None if one is of another shape, or holds what cannot be read.

    Raises UnreadableListing if a key is not UTF-8, or something else stands between them.
    """
    if b"<CommonPrefixes" in entries:
        raise UnreadableListing("it holds CommonPrefixes, though no delimiter was asked for")
    count = entries.count(_CLOSE)
    if count == 0:
        return Columns([], [], [], [])
    first = _ROW.match(entries)
    rows = rows_like(first, entries, count) if first else None
    if rows is None:
        rows = _ROW.findall(entries)
        if len(rows) != count:
            return None
    keys, stamps, etags, sizes = zip(*rows, strict=True)
    try:
        return Columns(
            keys=decode_keys(keys, url_encoded=url_encoded),
            etags=_text(etags),
            last_modified=milliseconds(_text(stamps)),
            sizes=[int(size) for size in sizes],
        )
    except UnreadableListing:
        raise
    except ValueError:
        return None


def split_entries(entries: bytes) -> list[bytes]:
    """Cut entries apart. Raises UnreadableListing if anything else stands between them."""
    rows: list[bytes] = _ENTRY.findall(entries)
    if sum(map(len, rows)) != len(entries):
        raise UnreadableListing("its entries are not what S3 sends")
    return rows


def first_key(entries: bytes, *, at: int = 0) -> str | None:
    """Read the first key of some URL-encoded entries; None without any, or in another place."""
    found = _FIRST_KEY.match(entries, at)
    return decode_key(found[1], url_encoded=True) if found else None


def without_up_to(entries: bytes, key: str) -> bytes:
    """Drop the first of some URL-encoded entries, as long as their keys are not after this one."""
    start = 0
    while (first := first_key(entries, at=start)) is not None and first <= key:
        start = entries.index(_CLOSE, start) + len(_CLOSE)
    return entries[start:] if start else entries


def telling_key(body: bytes) -> bytes | None:
    """Find a key that looks different URL-encoded and not, as it is written; None without any."""
    # On the way of every page of a bucket whose keys are all plain: no expression needs to look.
    found = _TELLING_KEY.search(body) if b"%" in body or b"+" in body else None
    return found[1] if found else None


def has_raw_keys(entries: bytes) -> bool:
    """Tell whether a key holds bytes that no URL encoding leaves as they are."""
    return not entries.isascii() and _RAW_KEY.search(entries) is not None


def render_entries(columns: Columns) -> bytes:
    """Write entries as a URL-encoding server would, for rows that came in another way."""
    return b"".join(
        b"<Contents><Key>%b</Key><LastModified>%bZ</LastModified>"
        b"<ETag>&quot;%b&quot;</ETag><Size>%d</Size></Contents>"
        % (
            quote_from_bytes(key.encode(), safe="").encode(),
            (_EPOCH + modified * _MILLISECOND).isoformat(timespec="milliseconds").encode(),
            escape(etag, {'"': "&quot;"}).encode(),
            size,
        )
        for key, etag, modified, size in zip(
            columns.keys, columns.etags, columns.last_modified, columns.sizes, strict=True
        )
    )


def next_token(envelope: bytes) -> str:
    """Find where the server would go on; "" if it does not say, or not legibly."""
    found = _NEXT_TOKEN.search(envelope)
    try:
        return unescape(found[1]).decode() if found else ""
    except ValueError:
        return ""


def says_last(body: bytes) -> bool:
    """Tell whether an answer that is not of a known shape says that nothing follows it.

    To botocore whatever does not say ``true`` does: an empty element, or ``True``.
    """
    return _LAST.search(body) is not None


def without_echoes(body: bytes) -> bytes:
    """Drop the elements that repeat the request: RGW writes them raw, and XML parsers refuse it."""
    start, end = _span(body, 0)
    return _ECHOED.sub(b"", body[:start]) + body[start:end] + _ECHOED.sub(b"", body[end:])


def decode_keys(raw: Sequence[bytes], *, url_encoded: bool) -> list[str]:
    """Undo XML escaping, then URL encoding, as S3 did them the other way round.

    All keys at once: 0xFF, which never occurs in UTF-8, keeps them apart.
    Raises UnreadableListing if what comes out is not UTF-8, or what comes in too long for a key,
    ValueError for an unknown entity.
    """
    if max(map(len, raw)) > LONGEST_RAW_KEY:
        raise UnreadableKey(f"a key is longer than {MOST_KEY_BYTES} bytes, as none of S3 is")
    text = b"\xff".join(raw)
    if b"\r" in text:  # as every XML parser must
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if b"&" in text:
        text = unescape(text)
    if url_encoded:
        # Python's own takes its time for each escape, and these two are the most frequent by far.
        text = text.replace(b"+", b" ").replace(b"%2F", b"/").replace(b"%20", b" ")
        if b"%" in text:
            text = _unquoted(text)
    try:
        keys = [key.decode() for key in text.split(b"\xff")]
    except UnicodeDecodeError as exc:
        raise UnreadableKey("a key is not valid UTF-8") from exc
    if len(keys) != len(raw):
        raise UnreadableKey("a key is not valid UTF-8")
    return keys


def decode_key(raw: bytes, *, url_encoded: bool) -> str | None:
    """Decode one key; None if it cannot be read, or is longer than any."""
    try:
        key = decode_keys([raw], url_encoded=url_encoded)[0]
    except ValueError:
        return None
    return key if len(key.encode()) <= MOST_KEY_BYTES else None


def milliseconds(stamps: Sequence[str]) -> list[int]:
    """Convert a listing's times (ISO 8601, UTC, the Z cut off) to milliseconds since the epoch."""
    return [(time - _EPOCH) // _MILLISECOND for time in map(datetime.fromisoformat, stamps)]


def _span(body: bytes, offset: int) -> tuple[int, int]:
    """Find where the entries begin and end; an empty range at ``offset`` if there are none."""
    start = body.find(_OPEN, offset)
    end = body.rfind(_CLOSE, offset)
    return (start, end + len(_CLOSE)) if 0 <= start < end else (offset, offset)


def _touching(body: bytes, start: int, end: int, *, is_counted: bool) -> bool | None:
    """Tell whether nothing is between the entries, not even white space; None for anything else.

    A server that says how many keys it sends sends nothing else, so its first two entries tell.
    """
    if start == end:
        return True
    after = body.index(_CLOSE, start) + len(_CLOSE)
    if is_counted and (after == end or body.startswith(_OPEN, after)):
        return True
    position, gapless = start, True
    for entry in _ENTRY.finditer(body, start, end):
        if body[position : entry.start()].strip():
            return None
        gapless = gapless and position == entry.start()
        position = entry.end()
    return gapless if position == end else None


def _ends_with_entry(body: bytes, start: int, end: int) -> bool:
    """Tell whether the last entry is one by itself, with its key where it should be, or none."""
    last = body.rfind(_OPEN, start, end)
    is_one = body.index(_CLOSE, last) + len(_CLOSE) == end
    begins_with_key = _FIRST_KEY.match(body, last, end) is not None
    return is_one and (begins_with_key or body.find(b"<Key>", last, end) < 0)


def _last_key(body: bytes, start: int, end: int, *, url_encoded: bool) -> tuple[str, int]:
    """Read the last key that can be read, and find where its entry ends; "" and the start if none.

    Behind it, a server can only go on by its token.
    """
    while start < end:
        last = body.rfind(_OPEN, start, end)
        found = _FIRST_KEY.match(body, last, end)
        if found and (key := decode_key(found[1], url_encoded=url_encoded)):
            return key, body.index(_CLOSE, last) + len(_CLOSE)
        end = last
    return "", start


def _text(column: Sequence[bytes]) -> list[str]:
    return b"\n".join(column).decode().split("\n")


def _unquoted(text: bytes) -> bytes:
    """Undo URL encoding; key by key where there is much of it, as each escape takes 200 bytes."""
    if text.count(b"%") < _MANY_ESCAPES:
        return unquote_to_bytes(text)
    return b"\xff".join(map(unquote_to_bytes, text.split(b"\xff")))


def unescape(text: bytes) -> bytes:
    return _REFERENCE.sub(_referred, text)


def _referred(reference: re.Match[bytes]) -> bytes:
    name = reference[1]
    if not reference[0].endswith(b";"):
        raise ValueError("an entity without its end")
    try:
        if name[:2] == b"#x":
            return chr(int(name.removeprefix(b"#x"), base=16)).encode()
        if name[:1] == b"#":
            return chr(int(name[1:])).encode()
    except OverflowError as exc:
        raise ValueError("a character that there is not") from exc
    if name not in _NAMED:
        raise ValueError("an unknown entity")
    return _NAMED[name]
