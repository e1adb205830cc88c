"""The documented JSON of one object's state, as older programs read and write it."""

from __future__ import annotations

import json
import math
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Any

from scanning.core.types import ObjectState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def parse(text: str | None) -> ObjectState | None:
    """Read a stored state; one that cannot be read counts as not there, so the object is announced.

    A state that lacks size or the time of its processing is one all the same: older programs may
    have written no more than ETag and time.
    """
    if text is None:
        return None
    try:
        stored: dict[str, Any] = json.loads(text)
        state = ObjectState(
            etag=stored["etag"],
            last_modified=float(stored["last_modified"]),
            size=int(stored.get("size") or 0),
            last_processed=float(stored.get("last_processed") or 0.0),
        )
        state.etag.encode()  # half a surrogate pair is not text that could be announced
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
    return state if math.isfinite(state.last_modified) and 0 <= state.size < 2**63 else None


def formatted(states: Iterable[ObjectState]) -> Iterator[str]:
    """Write documented states as json.dumps would, which takes many times as long.

    The states of one commit were all processed at the same time.
    """
    written, end = None, ""
    for etag, modified, size, processed in states:
        if processed != written:
            written, end = processed, f', "last_processed": {processed!r}}}'
        quoted = encode_basestring_ascii(etag)
        yield f'{{"etag": {quoted}, "last_modified": {modified!r}, "size": {size}{end}'
