"""Follow what is announced, without taking anything out of the queue."""

from __future__ import annotations

import json
import threading
from argparse import ArgumentTypeError
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scanning import wiring
from scanning.adapters.redis.recent_events import BEFORE_ALL
from scanning.core.errors import RedisUnavailable, UnknownBucket
from scanning.core.texts import watch_and_bucket
from scanning.core.types import EventType
from scanning.management.base import EngineCommand
from scanning.management.output import event_line

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Iterator

    from scanning.adapters.redis.recent_events import RecentCommit, RecentEvent

_SHOWN = 10
_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class Line:
    """Something to print: an event, or, without one, how many events of a commit have no names."""

    commit: RecentCommit
    event: RecentEvent | None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events are wanted; "" does not choose."""

    bucket: str
    event_type: str
    prefix: str

    def lines(self, commit: RecentCommit) -> list[Line]:
        """Pick what there is to print of a commit, in the order of its events."""
        if self.bucket not in {"", commit.bucket}:
            return []
        lines = [
            Line(commit, event)
            for event in commit.events
            if self.event_type in {"", event.event_type} and event.key.startswith(self.prefix)
        ]
        return [*lines, Line(commit, None)] if commit.count > len(commit.events) else lines


class Command(EngineCommand):
    help = (
        "Print what is announced, as it is announced, and leave the queue alone. Ends with Ctrl-C. "
        "Exit status: 0 with --no-follow, 1 Redis does not answer at the start, 2 an unknown "
        "bucket, 130 ended by Ctrl-C."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "-n",
            "--lines",
            type=_count,
            default=_SHOWN,
            metavar="N",
            help=f"begin with the last N events (default {_SHOWN})",
        )
        parser.add_argument("--bucket", default="", metavar="B", help="only this bucket")
        parser.add_argument(
            "--type",
            default="",
            choices=[kind.value for kind in EventType],
            metavar="T",
            help="only created, updated, detected or deleted",
        )
        parser.add_argument("--prefix", default="", metavar="P", help="only keys that begin so")
        parser.add_argument("--json", action="store_true", help="one JSON object an event")
        parser.add_argument(
            "--no-follow", action="store_true", help="print the last N events, and end"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        self._json: bool = options["json"]
        self._events = wiring.followed_events()
        wanted = Filter(options["bucket"], options["type"], options["prefix"])
        if wanted.bucket and wiring.background().bucket_configs.get(wanted.bucket) is None:
            raise UnknownBucket(f"unknown bucket: {wanted.bucket}")
        newest = self._events.newest_id()
        self._print(self._last(wanted, options["lines"], up_to=newest))
        if not options["no_follow"]:
            for commit in self._following(newest):
                self._print(wanted.lines(commit))

    def _last(self, wanted: Filter, limit: int, *, up_to: str) -> list[Line]:
        """Find the last lines up to a commit, oldest first."""
        last: list[Line] = []
        if limit > 0 and up_to != BEFORE_ALL:
            for commit in self._events.newest_first(up_to=up_to):
                last = wanted.lines(commit) + last
                if len(last) >= limit:
                    break
        return last[-limit:]

    def _following(self, last: str) -> Iterator[RecentCommit]:
        """Follow the commits after one, through outages of Redis, for ever."""
        pause = threading.Event()
        is_away = False
        while True:
            try:
                commits, newest = self._events.after(last, wait_s=_WAIT_S)
                oldest = self._events.oldest_id() if commits else ""
            except RedisUnavailable as exc:
                if not is_away:
                    self.stderr.write(f"{exc}; trying again")
                is_away = True
                pause.wait(_WAIT_S)
                continue
            if is_away:
                self.stderr.write("Redis answers again")
            is_away = False
            if commits and commits[0].id == oldest and last != BEFORE_ALL:
                self.stderr.write("What was announced before this is no longer known here")
            yield from commits
            last = newest

    def _print(self, lines: list[Line]) -> None:
        for line in lines:
            self.stdout.write(json.dumps(_as_json(line)) if self._json else _text(line))
        self.stdout.flush()


def _count(text: str) -> int:
    if not text.isdecimal():
        raise ArgumentTypeError("must be a whole number from 0 on")
    return int(text)


def _as_json(line: Line) -> dict[str, Any]:
    commit, event = line.commit, line.event
    shown: dict[str, Any] = {"at": round(commit.at.timestamp(), 3), "bucket": commit.bucket_name}
    if commit.bucket != commit.bucket_name:
        shown |= {"watch": commit.bucket}
    if event is None:
        shown |= {"not_listed": commit.count - len(commit.events)}
    else:
        shown |= {"event_type": event.event_type, "key": event.key, "size": event.size}
    return shown | ({"replay": commit.replay} if commit.replay else {})


def _text(line: Line) -> str:
    commit, event = line.commit, line.event
    begin = f"{commit.at:%Y-%m-%d %H:%M:%S}  "
    end = f"  (replay {commit.replay})" if commit.replay else ""
    if event is None:
        more = commit.count - len(commit.events)
        watch = watch_and_bucket(commit.bucket, commit.bucket_name)
        return f"{begin}… and {more} more of {watch} that were announced together{end}"
    shown = event_line(
        {
            "event_type": event.event_type.value,
            "bucket": event.bucket_name,
            "watch": event.bucket,
            "key": event.key,
            "size": event.size,
        }
    )
    return begin + shown + end
