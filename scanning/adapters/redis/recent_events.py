"""The stream of recent events, read for people; the commit writes it (`lua/commit.lua`).

An entry's field ``commit`` holds JSON: {"bucket", "at", "count", "events": [[type, key, size], …
the first 100]}, "bucket_name" if that is not the watch's, and "replay", the id of a replay, if the
events were announced again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from scanning.core import redis_keys
from scanning.core.texts import watch_and_bucket
from scanning.core.types import EventType

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from scanning.adapters.redis.connection import RedisConnection

BEFORE_ALL = "0-0"
_COMMITS_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class RecentEvent:
    """``bucket`` is the watch's name, ``bucket_name`` the one that S3 knows."""

    bucket: str
    bucket_name: str
    event_type: EventType
    key: str
    size: int
    at: datetime

    @property
    def title(self) -> str:
        return watch_and_bucket(self.bucket, self.bucket_name)


@dataclass(frozen=True, slots=True)
class Window:
    """Events, the newest commit's first and in a commit by key; ``since`` is how far back it goes.

    ``not_listed``: events of the bucket that the commits looked at count without naming them.
    """

    events: list[RecentEvent]
    since: datetime | None
    not_listed: int


@dataclass(frozen=True, slots=True)
class RecentCommit:
    """One entry of the stream: ``count`` events, of which ``events`` are the first ones."""

    id: str
    bucket: str
    bucket_name: str
    at: datetime
    count: int
    events: list[RecentEvent]
    replay: str


class RecentEvents:
    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    def read(
        self, *, limit: int, bucket: str = "", event_type: str = "", prefix: str = ""
    ) -> Window:
        """Read the newest ``limit`` of a bucket, a type, a beginning of keys; "" does not choose.

        Raises RedisUnavailable.
        """
        found: list[RecentEvent] = []
        not_listed = 0
        for commit in self.newest_first():
            if bucket not in {"", commit.bucket}:
                continue
            not_listed += max(commit.count - len(commit.events), 0)
            found += [
                event
                for event in commit.events
                if event_type in {"", event.event_type} and event.key.startswith(prefix)
            ]
            if len(found) >= limit:
                break
        return Window(found[:limit], self._since(), not_listed)

    def newest_first(self, *, up_to: str = "+") -> Iterator[RecentCommit]:
        """Walk all commits that the stream still holds, back from the one with the id ``up_to``."""
        last = up_to

        def read(r: Any) -> list[tuple[str, dict[str, str]]]:
            rows: list[Any] = r.xrevrange(redis_keys.EVENTS, max=last, count=_COMMITS_AT_ONCE)
            return rows

        while True:
            entries = self._connection.run(read)
            yield from _commits(entries)
            if len(entries) < _COMMITS_AT_ONCE:
                return
            last = f"({entries[-1][0]}"

    def after(self, id_: str, *, wait_s: float) -> tuple[list[RecentCommit], str]:
        """Read the next commits after one, and the id to go on after.

        Waits up to ``wait_s`` for the first of them.
        """
        streams = {redis_keys.EVENTS: id_}
        answer = self._connection.run(
            lambda r: r.xread(streams, count=_COMMITS_AT_ONCE, block=round(wait_s * 1000))
        )
        if not answer:
            return [], id_
        [(_, entries)] = answer
        return list(_commits(entries)), str(entries[-1][0])

    def newest_id(self) -> str:
        """Read the id of the last commit; smaller than any if there is none."""
        entries = self._connection.run(lambda r: r.xrevrange(redis_keys.EVENTS, count=1))
        return str(entries[0][0]) if entries else BEFORE_ALL

    def oldest_id(self) -> str:
        """Read the id of the first commit that the stream still holds; BEFORE_ALL without any."""
        entries = self._connection.run(lambda r: r.xrange(redis_keys.EVENTS, count=1))
        return str(entries[0][0]) if entries else BEFORE_ALL

    def _since(self) -> datetime | None:
        oldest = self.oldest_id()
        return None if oldest == BEFORE_ALL else _time(int(oldest.split("-")[0]) / 1000)


def _commits(entries: Iterable[tuple[str, dict[str, str]]]) -> Iterator[RecentCommit]:
    return filter(None, (_commit(id_, fields) for id_, fields in entries))


def _commit(id_: str, fields: dict[str, str]) -> RecentCommit | None:
    """Read an entry's commit; None for what is none of ours."""
    try:
        stored: dict[str, Any] = json.loads(fields["commit"])
        bucket, at = str(stored["bucket"]), _time(stored["at"])
        s3_name = str(stored.get("bucket_name") or bucket)
        events = [
            RecentEvent(bucket, s3_name, EventType(kind), _showable(str(key)), int(size), at)
            for kind, key, size in stored["events"]
        ]
        replay = str(stored.get("replay", ""))
        return RecentCommit(id_, bucket, s3_name, at, int(stored["count"]), events, replay)
    except (ValueError, TypeError, KeyError, OverflowError, OSError):
        return None


def _time(epoch_s: float) -> datetime:
    return datetime.fromtimestamp(epoch_s, UTC)


def _showable(key: str) -> str:
    """Make a key UTF-8: JSON in Redis may hold half a character, an answer may not."""
    return key.encode(errors="replace").decode()
