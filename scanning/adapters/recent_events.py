"""The stream of recent events, read for people; the commit writes it (`state.py`).

…:bw:events   stream   an entry a commit, capped; field ``commit`` holds JSON:
                       {"bucket", "at", "count", "events": [[type, key, size], … the first 100]}
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from scanning.core import keys
from scanning.core.types import EventType

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scanning.adapters.redis_connection import RedisConnection

_COMMITS_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class RecentEvent:
    bucket: str
    event_type: EventType
    key: str
    size: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Window:
    """Events, the newest commit's first and in a commit by key; ``since`` is how far back it goes.

    ``not_listed``: events of the bucket that the commits looked at count without naming them.
    """

    events: list[RecentEvent]
    since: datetime | None
    not_listed: int


@dataclass(frozen=True, slots=True)
class _Commit:
    bucket: str
    count: int
    events: list[RecentEvent]


class RecentEvents:
    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    def read(
        self, *, most: int, bucket: str = "", event_type: str = "", prefix: str = ""
    ) -> Window:
        """The newest ``most`` of a bucket, a type, a beginning of keys; "" does not choose.

        Raises RedisUnavailable.
        """
        found: list[RecentEvent] = []
        not_listed = 0
        for commit in self._newest_first():
            if bucket not in {"", commit.bucket}:
                continue
            not_listed += max(commit.count - len(commit.events), 0)
            found += [
                event
                for event in commit.events
                if event_type in {"", event.event_type} and event.key.startswith(prefix)
            ]
            if len(found) >= most:
                break
        return Window(found[:most], self._since(), not_listed)

    def _newest_first(self) -> Iterator[_Commit]:
        last = "+"

        def read(r: Any) -> list[tuple[str, dict[str, str]]]:
            rows: list[Any] = r.xrevrange(keys.EVENTS, max=last, count=_COMMITS_AT_ONCE)
            return rows

        while True:
            entries = self._connection.run(read)
            yield from filter(None, (_commit(fields) for _, fields in entries))
            if len(entries) < _COMMITS_AT_ONCE:
                return
            last = f"({entries[-1][0]}"

    def _since(self) -> datetime | None:
        oldest = self._connection.run(lambda r: r.xrange(keys.EVENTS, count=1))
        return _time(int(oldest[0][0].split("-")[0]) / 1000) if oldest else None


def _commit(fields: dict[str, str]) -> _Commit | None:
    """An entry's commit; None for what is none of ours."""
    try:
        stored: dict[str, Any] = json.loads(fields["commit"])
        bucket, at = str(stored["bucket"]), _time(stored["at"])
        events = [
            RecentEvent(bucket, EventType(kind), _showable(str(key)), int(size), at)
            for kind, key, size in stored["events"]
        ]
        return _Commit(bucket, int(stored["count"]), events)
    except (ValueError, TypeError, KeyError, OverflowError, OSError):
        return None


def _time(epoch_s: float) -> datetime:
    return datetime.fromtimestamp(epoch_s, UTC)


def _showable(key: str) -> str:
    """A key as UTF-8 can carry it: JSON in Redis may hold half a character, an answer may not."""
    return key.encode(errors="replace").decode()
