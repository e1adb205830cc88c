"""Text from outside: keys, and what servers write into their answers."""

from __future__ import annotations

from email.errors import HeaderParseError
from email.header import decode_header, make_header
from typing import Final

MOST_TEXT: Final = 300
# Of a whole message, which holds several texts and what bucketwatch says of them.
MOST_MESSAGE: Final = 2000
# What S3 encodes is shorter, and looking for the end of each beginning is not linear.
_LONGEST_ENCODED: Final = 4096
# The full-width forms count as the others.
_BEGINS_FORMULA: Final = (*"=+-@\t\r\n", *"\uff1d\uff0b\uff0d\uff20", "'")


def printable(text: str) -> str:
    """Escape what a terminal or a log would obey: control characters, bidi marks, surrogates."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def spreadsheet_text(text: str) -> str:
    """Mark text that a spreadsheet may take for a formula as text, by an apostrophe before it.

    Text that has one already gets another, so that the first one is never a part of the text
    (https://owasp.org/www-community/attacks/CSV_Injection).
    """
    return f"'{text}" if text.startswith(_BEGINS_FORMULA) else text


def watch_and_bucket(watch: str, bucket: str) -> str:
    """Name a watch, and the bucket as S3 knows it where that is another name."""
    return watch if watch == bucket else f"{watch} ({bucket})"


def clean(text: str, limit: int = MOST_TEXT) -> str:
    """Make a server's text printable and at most so many characters long, where it is taken in."""
    shown = printable(text[: limit + 1])
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"


def header_text(raw: bytes) -> str:
    """Decode a header: UTF-8 as servers send it, Latin-1 where it is not, then RFC 2047."""
    raw = b" ".join(line.strip() for line in raw.splitlines())  # long ones may be folded
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    if "=?" not in text or len(text) > _LONGEST_ENCODED:
        return text
    try:
        return str(make_header(decode_header(text)))
    except (ValueError, LookupError, HeaderParseError):  # it only looks encoded
        return text


def strong_etag(etag: str) -> str:
    """Drop an ETag's quotes and weakness: HEAD may say ``W/"x"`` of what is listed as ``"x"``."""
    return etag.removeprefix("W/").strip('"')
