"""Segments, manifests and documented strings, and the commit that writes them with their events.

Keys: the manifest and the segments of a generation, the bucket's hash, the documented strings, and
what `lua/commit.lua` writes with them.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from scanning.adapters.redis import segment_codec
from scanning.adapters.redis.schedule import epoch_s
from scanning.core import object_state, redis_keys, scan_warnings
from scanning.core.errors import (
    CommitOutOfStep,
    ConfigurationChanged,
    LeaseLost,
    QueueFull,
    RedisUnavailable,
    StateDamaged,
    StateLost,
)
from scanning.core.metrics import counters
from scanning.core.remedies import REMEDIES
from scanning.core.segments import key_ranges
from scanning.core.totals import Totals
from scanning.ports import KnownState, Position, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scanning.adapters.redis.connection import RedisConnection
    from scanning.config.settings import EngineSettings
    from scanning.core.listing.body import Columns
    from scanning.core.segments.model import Entry
    from scanning.core.types import BucketConfig, Claim, ObjectState
    from scanning.ports import Commit

RECENT_COMMITS = 1000
# What ``released_moved`` says instead of a number where the times are to be taken without events.
SILENTLY: Final = b"silently"


class RedisStateStore:
    """Implements `ports.StateStore`."""

    def __init__(self, connection: RedisConnection, conf: EngineSettings) -> None:
        self._connection = connection
        self._conf = conf
        self._commit = connection.load_script("commit")

    def open(self, bucket: BucketConfig, claim: Claim | None = None) -> KnownState:
        manifest = redis_keys.manifest(bucket.name, bucket.generation)
        wanted = ["complete", "progress", "held_since", "released", "segments", "lost_since"]
        wanted += ["stuck", "pass_warnings", "held_moved_since", "released_moved", "scan_at"]
        wanted += ["listed_objects", "listed_bytes", "totals_apart", "totals_before", "ahead"]
        wanted += ["fence", "commit"]

        def read(r: Any) -> tuple[dict[bytes, bytes], list[bytes | None], bytes | None]:
            pipe = r.pipeline()
            pipe.hgetall(manifest)
            pipe.hmget(redis_keys.bucket(bucket.name), wanted)
            pipe.get(redis_keys.last_scan(bucket.name))
            stored, fields, last_scan = pipe.execute()
            return stored, fields, last_scan

        stored, fields, last_scan = self._connection.run_bytes(read)
        complete, progress, held_since, released, segments, lost_since = fields[:6]
        stuck, warnings, held_moved_since, released_moved, scan_at = fields[6:11]
        listed_objects, listed_bytes, apart, before, ahead = fields[11:16]
        takes_times = released_moved == SILENTLY
        found = _position(*fields[-2:])
        if claim is not None:
            self._check(bucket.name, found, Position(claim.fence, found.commit))
        if lost_since:
            raise _lost(bucket.name)
        try:
            entries = [segment_codec.unpack_entry(id_, value) for id_, value in stored.items()]
        except ValueError as exc:
            raise StateDamaged.of(bucket.name) from exc
        entries.sort(key=lambda entry: entry.last_key)
        is_first = complete != str(bucket.generation).encode()
        return KnownState(
            entries=entries,
            progress=_progress(progress),
            is_first=is_first,
            held_since=float(held_since) if held_since else None,
            released=int(released or 0),
            commit=found.commit,
            is_whole=segments is None or int(segments) == len(stored),
            older_scan_at=epoch_s(last_scan) if is_first and bucket.taken_over else None,
            stuck=int(stuck or 0),
            warnings=scan_warnings.from_json(warnings.decode() if warnings else None),
            ahead=key_ranges.from_json(ahead, found.commit) if progress else (),
            last_pass_at=float(scan_at) if scan_at else None,
            listed=Totals(int(listed_objects or 0), int(listed_bytes or 0)),
            totals_apart=Totals.read(_text(apart)),
            totals_before=Totals.read(_text(before)),
            held_moved_since=float(held_moved_since) if held_moved_since else None,
            released_moved=0 if takes_times else int(released_moved or 0),
            takes_times=takes_times,
        )

    def load(
        self, bucket: BucketConfig, segments: Sequence[str], at: Position | None = None
    ) -> list[Columns]:
        names = [redis_keys.segment(bucket.name, bucket.generation, id_) for id_ in segments]

        def read(r: Any) -> tuple[list[Any], list[bytes | None]]:
            pipe = r.pipeline()
            pipe.mget(names)
            pipe.hmget(redis_keys.bucket(bucket.name), ["fence", "commit"])
            values, position = pipe.execute()
            return values, position

        values, position = self._connection.run_bytes(read)
        if at is not None:
            self._check(bucket.name, _position(*position), at)
        try:
            return [segment_codec.unpack_rows(value) for value in values]
        except ValueError as exc:
            raise StateDamaged.of(bucket.name) from exc

    def read_segment(self, bucket: BucketConfig, entry: Entry) -> Columns | None:
        manifest = redis_keys.manifest(bucket.name, bucket.generation)
        segment = redis_keys.segment(bucket.name, bucket.generation, entry.id)

        def read(r: Any) -> tuple[bytes | None, Any]:
            pipe = r.pipeline()
            pipe.hget(manifest, entry.id)
            pipe.get(segment)
            described, rows = pipe.execute()
            return described, rows

        described, rows = self._connection.run_bytes(read)
        try:
            if (
                described is None
                or segment_codec.unpack_entry(entry.id.encode(), described) != entry
            ):
                return None
            return segment_codec.unpack_rows(rows)
        except ValueError as exc:
            raise StateDamaged.of(bucket.name) from exc

    def older_states(self, bucket: BucketConfig, keys_: Sequence[str]) -> list[ObjectState | None]:
        if not keys_:
            return []
        names = [redis_keys.state(self._conf.redis.state_prefix, bucket.name, key) for key in keys_]
        return [object_state.parse(text) for text in self._connection.run(lambda r: r.mget(names))]

    def commit(self, claim: Claim, commit: Commit) -> None:
        self.begin(claim, commit)()

    def begin(self, claim: Claim, commit: Commit) -> Callable[[], None]:
        redis, now = self._conf.redis, claim.redis_time(time.monotonic())
        written = [piece for piece in commit.pieces if piece.columns is not None]
        keys = [
            redis_keys.bucket(claim.bucket),
            redis_keys.running(claim.region),
            redis.queue_name,
            redis_keys.STATS,
            redis_keys.EVENTS,
            redis_keys.manifest(claim.bucket, claim.generation),
            redis_keys.minute(int(now // 60)),
            redis_keys.events_of_day(int(now // 86400)),
            *(self._segment(claim, piece.entry.id) for piece in written),
            *(redis_keys.state(redis.state_prefix, claim.bucket, key) for key in commit.strings),
            *(self._segment(claim, id_) for id_ in commit.removed),
            *(redis_keys.state(redis.state_prefix, claim.bucket, key) for key in commit.no_strings),
        ]
        args = {
            "bucket": claim.bucket,
            "fence": claim.fence,
            "generation": claim.generation,
            "number": commit.number,
            "progress": json.dumps(asdict(commit.progress)) if commit.progress else "",
            "ahead": key_ranges.as_json(commit.ahead, commit.number),
            "warnings": scan_warnings.as_json(commit.warnings),
            "took_times": commit.took_times,
            "wants": commit.filter_fingerprint,
            "high_water": self._conf.queue.high_water,
            "bucket_share": self._conf.queue.high_water * self._conf.queue.bucket_share,
            "recent": commit.recent,
            "recent_kept": RECENT_COMMITS,
            "counters": counters.of_commit(commit.counted, commit.announced, commit.lags_s),
            "entries": {p.entry.id: segment_codec.pack_entry(p.entry) for p in commit.pieces},
            "removed": list(commit.removed),
            # As texts: Lua would write large numbers otherwise.
            "gained": {
                "listed_objects": str(commit.gained.objects),
                "listed_bytes": str(commit.gained.size_bytes),
            },
            "segments": [segment_codec.pack_rows(p.columns) for p in written if p.columns],
            "strings_kept_s": redis.ttl,
        }
        strings = list(object_state.formatted(commit.strings.values()))
        answer = self._commit.begin(keys, args, strings, list(commit.notifications))

        def land() -> None:
            if (result := answer()) != "ok":
                raise _not_committed(claim.bucket, str(result))

        return land

    def _check(self, bucket: str, found: Position, at: Position) -> None:
        """Refuse an answer that is not of the state that the scan goes on from."""
        if found == at:
            return
        if found.fence > at.fence:
            raise _not_committed(bucket, "lost")
        # What answers is a master that a failover has replaced: ask who is master now.
        self._connection.reconnect()
        raise CommitOutOfStep(f"{bucket}: Redis answers from before a failover; scanning again")

    def _segment(self, claim: Claim, id_: str) -> str:
        return redis_keys.segment(claim.bucket, claim.generation, id_)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


def _position(fence: bytes | None, commit: bytes | None) -> Position:
    return Position(int(fence or 0), int(commit or 0))


def _lost(bucket: str) -> StateLost:
    return StateLost(f"{bucket}: Redis forgot what was known of it; {REMEDIES[StateLost].clause}")


_FULL: Final = {
    "full": "the notification queue is above its high-water mark; scanning goes on when consumers "
    "have read from it",
    "share": "this bucket's share of the notification queue is full; the other buckets go on, and "
    "this one when consumers have read from the queue",
}


def _not_committed(bucket: str, answer: str) -> Exception:
    if answer == "lost":
        return LeaseLost(f"{bucket}: the lease expired or went to another worker")
    if answer == "changed":
        return ConfigurationChanged(f"{bucket}: removed or changed while it was being scanned")
    if answer == "out of step":
        return CommitOutOfStep(f"{bucket}: Redis lost an earlier commit; scanning again")
    if answer in _FULL:
        return QueueFull(f"{bucket}: {_FULL[answer]}")
    if answer.startswith("may not "):
        command = answer.removeprefix("may not ")
        return RedisUnavailable(
            f"{bucket}: Redis does not let this user run {command}; docs/redis.md has the rights"
        )
    key = answer.removeprefix("wrong type ")
    return RedisUnavailable(f"{bucket}: the Redis key {key} has another type; rename or delete it")


def _progress(stored: bytes | None) -> Progress | None:
    return Progress(**json.loads(stored)) if stored else None
