"""Print each notification of the queue once, over restarts too, and leave the queue to others.

The demo reads without consuming (a consumer of yours may use the same queue) and keeps its
place in a file. Because nobody else need consume, it also trims what it printed long ago.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import TYPE_CHECKING

from bucketwatch.demo.home import write_private
from scanning.core.texts import printable

if TYPE_CHECKING:
    from pathlib import Path

    import redis

KEEP_PRINTED = 1000
TRIM_ABOVE = 1500


class Follower:
    """A place in the queue: so many entries seen, the last of which had this digest."""

    def __init__(self, client: redis.Redis, queue: str, cursor_file: Path) -> None:
        self.client = client
        self.queue = queue
        self.cursor_file = cursor_file
        self.index, self.digest = self._load()

    def news(self) -> list[str]:
        """Return the entries pushed since the last call; each is returned once, ever.

        The place is saved before the entries are returned: what is lost to a kill in between
        is a printed line, and never a line printed twice.
        """
        entries = self._entries(max(self.index - 1, 0))
        if self.index == 0:
            new = entries
        elif entries and _digest(entries[0]) == self.digest:
            new = entries[1:]
        else:
            new = self._after_somebody_consumed()
        if new:
            self.index += len(new)
            self.digest = _digest(new[-1])
            self._trim()
            write_private(self.cursor_file, json.dumps([self.index, self.digest]))
        return new

    def _entries(self, first: int) -> list[str]:
        return [str(entry) for entry in self.client.lrange(self.queue, first, -1)]

    def _after_somebody_consumed(self) -> list[str]:
        """Find our place again, from the end; was it consumed too, all that is left is new."""
        entries = self._entries(0)
        for position in range(len(entries), 0, -1):
            if _digest(entries[position - 1]) == self.digest:
                self.index = position
                return entries[position:]
        self.index = 0
        return entries

    def _trim(self) -> None:
        surplus = self.index - KEEP_PRINTED
        if self.index > TRIM_ABOVE:
            self.client.ltrim(self.queue, surplus, -1)
            self.index -= surplus

    def _load(self) -> tuple[int, str]:
        try:
            index, digest = json.loads(self.cursor_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return 0, ""
        return int(index), str(digest)


def line(entry: str) -> str:
    """Write one notification for a person."""
    event = json.loads(entry)
    at = datetime.fromtimestamp(event["detection_time"]).astimezone()
    key, size = printable(event["key"]), f"{event['size']:,} B"
    return f"{at:%H:%M:%S}  {event['event_type']:<9} {event['bucket']:<14} {key}  ({size})"


def _digest(entry: str) -> str:
    return hashlib.sha256(entry.encode()).hexdigest()
