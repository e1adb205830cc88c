"""The body of an S3 error: three texts are taken out of it, and no XML parser ever sees it.

Whoever answers may write megabytes, entities that grow, or nests that no parser leaves again; S3
writes a few hundred bytes, of which an operator needs these.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Final
from xml.sax.saxutils import escape

from scanning.core.listing.body import PROLOG, unescape
from scanning.core.texts import clean

_LONGEST: Final = 64 * 1024
_ROOT = re.compile(PROLOG + rb"<(?:[\w.-]+:)?Error(?:Response)?[\s>]")
_ELEMENT = re.compile(rb"<(?:[\w.-]+:)?(Code|Region|Endpoint)>([^<]*+)</")


def read_error(body: bytes) -> dict[str, str]:
    """Read Code, Region and Endpoint as far as an error body has them; empty for any other body."""
    if not _ROOT.match(body):
        return {}
    found: dict[str, str] = {}
    for name, value in _ELEMENT.findall(body[:_LONGEST]):
        found.setdefault(name.decode(), clean(_text(value).strip()))
    return found


def render_error(found: dict[str, str]) -> bytes:
    """Write an error body of what was taken out of one; no bytes without a Code."""
    if not found.get("Code"):
        return b""
    members = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in found.items())
    return f"<Error>{members}</Error>".encode()


def is_error(body: bytes) -> bool:
    return _ROOT.match(body) is not None


def _text(raw: bytes) -> str:
    with suppress(ValueError):  # an entity that is none is shown as it came
        raw = unescape(raw)
    return raw.decode("utf-8", "backslashreplace")
