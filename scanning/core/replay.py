"""Which known objects are announced again, and how such notifications differ from the first."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection

    from scanning.core.listing.body import Columns

_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True)
class Selection:
    """Known objects: keys that begin with ``prefix``, modified at ``since`` or later."""

    prefix: str = ""
    since: float = float("-inf")

    def rows(self, columns: Columns, *, missing: Collection[int], after: str) -> list[int]:
        """Choose rows of a segment that come after a key; none that a listing has missed."""
        since_ms = self.since * 1000
        return [
            row
            for row, key in enumerate(columns.keys)
            if key > after
            and key.startswith(self.prefix)
            and columns.last_modified[row] >= since_ms
            and row not in missing
        ]

    def is_past(self, key: str) -> bool:
        """Tell whether no chosen key comes at ``key`` or later."""
        return key > self.prefix and not key.startswith(self.prefix)


def as_replay(notification: str, replay: str) -> str:
    """Mark the notification as one of a replay.

    Its ``event_id`` is another than the first time, or consumers would drop it as a repeated one;
    in the same replay it is always the same.
    """
    message = json.loads(notification)
    parts = f"{replay} {message['event_id']}".encode()
    message["event_id"] = blake2b(parts, digest_size=16).hexdigest()
    message["replay"] = replay
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False)


def read_moment(text: str, *, now: datetime) -> datetime:
    """Read a time: ISO 8601 (UTC without a zone), or an age like 90m, 24h, 7d, 2w.

    Raises ValueError.
    """
    number, unit = text[:-1], text[-1:]
    if number.isdecimal() and unit in _UNITS:
        try:
            return now - timedelta(**{_UNITS[unit]: int(number)})
        except OverflowError:
            raise ValueError("longer ago than there are dates") from None
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
