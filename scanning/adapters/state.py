"""Segments, manifests and documented strings, and the commit that writes them with their events.

…:bw:{bucket}:{generation}:manifest   hash     segment id -> entry (`packing.py`)
…:bw:{bucket}:{generation}:seg:{id}   string   the segment's rows (`packing.py`)
…:bw:bucket:{name}                    hash     fence, generation, commit, progress, complete, …
…:bw:events                           stream   recent events, one entry a commit, capped
…:bw:stats                            hash     counters of all processes
linode:notifications:queue            list     one JSON notification an element
{state_prefix}{bucket}:{key}          string   the documented JSON of one object, a view
"""

from __future__ import annotations

import json
from dataclasses import asdict
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Any

from scanning.adapters import packing
from scanning.core import keys
from scanning.core.errors import (
    CommitOutOfStep,
    ConfigurationChanged,
    LeaseLost,
    QueueFull,
    RedisUnavailable,
    StateDamaged,
)
from scanning.core.types import EventType, ObjectState
from scanning.ports import KnownState, Progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from scanning.adapters.redis_connection import RedisConnection
    from scanning.conf import ScanningConf
    from scanning.core.listing import Columns
    from scanning.core.types import BucketConfig, Claim
    from scanning.ports import Commit

RECENT_COMMITS = 1000

# All or nothing. Lua has no rollback, so whatever can fail is looked at before the first write.
# KEYS: bucket hash, run set, queue, stats, stream, manifest, then the segments and strings that
#       are written, then those that are deleted.
# ARGV: bucket, fence, generation, commit number, progress JSON, high-water mark, string seconds,
#       stream entry or '', stream length, then how many of each follow: counters, entries,
#       entries deleted, segments, strings; then counter, n, …; id, entry, …; ids; values of the
#       segments; values of the strings; notifications.
# Returns 'ok', 'lost', 'changed', 'out of step', 'full', or 'wrong type KEY'.
_COMMIT = """
local hash, run, queue, stats, stream, manifest = unpack(KEYS, 1, 6)
local bucket, fence, generation, number = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
if redis.call('HGET', hash, 'fence') ~= fence then return 'lost' end
if (redis.call('HGET', hash, 'generation') or '0') ~= generation then return 'changed' end
local expires, t = redis.call('ZSCORE', run, bucket), redis.call('TIME')
if not expires or tonumber(expires) < t[1] + t[2] / 1000000 then return 'lost' end
local last = tonumber(redis.call('HGET', hash, 'commit') or '0')
-- A command may be sent twice after a time-out: the second answers as the first did.
if last == number then return 'ok' end
if last ~= number - 1 then return 'out of step' end
local types = {[queue] = 'list', [stats] = 'hash', [stream] = 'stream', [manifest] = 'hash'}
for key, wanted in pairs(types) do
  local kind = redis.call('TYPE', key).ok
  if kind ~= wanted and kind ~= 'none' then return 'wrong type ' .. key end
end
local counters, entries, gone, segments, strings = unpack(ARGV, 10, 14)
local at = 15
local after = at + 2 * counters + 2 * entries + gone + segments + strings
for i = at, at + 2 * counters - 1, 2 do
  local stored = redis.call('HGET', stats, ARGV[i])
  -- What HINCRBY would refuse: no number, 007, or one near the end of 64 bits.
  if stored and stored ~= '0' and not (#stored < 17 and string.match(stored, '^-?[1-9]%d*$')) then
    return 'wrong type ' .. stats
  end
end
if #ARGV >= after and redis.call('LLEN', queue) >= tonumber(ARGV[6]) then return 'full' end

for i = after, #ARGV, 1000 do
  redis.call('RPUSH', queue, unpack(ARGV, i, math.min(i + 999, #ARGV)))
end
-- The older monitor left a 7-day expiry on the queue; nothing may drop events silently.
redis.call('PERSIST', queue)
if ARGV[8] ~= '' then
  redis.call('XADD', stream, 'MAXLEN', '~', ARGV[9], '*', 'commit', ARGV[8])
end
for _ = 1, counters do
  redis.call('HINCRBY', stats, ARGV[at], ARGV[at + 1])
  at = at + 2
end
for _ = 1, entries do
  redis.call('HSET', manifest, ARGV[at], ARGV[at + 1])
  at = at + 2
end
for _ = 1, gone do
  redis.call('HDEL', manifest, ARGV[at])
  at = at + 1
end
local key = 7
for _ = 1, segments do
  redis.call('SET', KEYS[key], ARGV[at])
  key, at = key + 1, at + 1
end
for _ = 1, strings do
  redis.call('SET', KEYS[key], ARGV[at], 'EX', ARGV[7])
  key, at = key + 1, at + 1
end
for i = key, #KEYS, 1000 do
  redis.call('UNLINK', unpack(KEYS, i, math.min(i + 999, #KEYS)))
end
redis.call('HSET', hash, 'commit', ARGV[4], 'progress', ARGV[5])
return 'ok'
"""

_COUNTERS = {
    EventType.CREATED: "total_new_objects",
    EventType.UPDATED: "total_updated_objects",
    EventType.DETECTED: "total_detected_objects",
    EventType.DELETED: "total_deleted_objects",
}


class RedisStates:
    """Implements `ports.StateStore`."""

    def __init__(self, connection: RedisConnection, conf: ScanningConf) -> None:
        self._connection = connection
        self._conf = conf
        self._commit = connection.script(_COMMIT)

    def open(self, bucket: BucketConfig) -> KnownState:
        manifest = keys.manifest(bucket.name, bucket.generation)
        wanted = ["complete", "progress", "held_since", "released", "commit"]

        def read(r: Any) -> tuple[dict[bytes, bytes], list[bytes | None]]:
            pipe = r.pipeline(transaction=False)
            pipe.hgetall(manifest)
            pipe.hmget(keys.bucket(bucket.name), wanted)
            stored, fields = pipe.execute()
            return stored, fields

        stored, fields = self._connection.run_bytes(read)
        complete, progress, held_since, released, commit = fields
        try:
            entries = [packing.unpack_entry(id_, value) for id_, value in stored.items()]
        except ValueError as exc:
            raise _damaged(bucket.name) from exc
        entries.sort(key=lambda entry: entry.last_key)
        return KnownState(
            entries=entries,
            progress=_progress(progress),
            is_first=complete != str(bucket.generation).encode(),
            held_since=float(held_since) if held_since else None,
            released=bool(released),
            commit=int(commit or 0),
        )

    def load(self, bucket: BucketConfig, segments: Sequence[str]) -> list[Columns]:
        names = [keys.segment(bucket.name, bucket.generation, id_) for id_ in segments]
        values = self._connection.run_bytes(lambda r: r.mget(names))
        try:
            return [packing.unpack_rows(value) for value in values]
        except ValueError as exc:
            raise _damaged(bucket.name) from exc

    def older_states(self, bucket: BucketConfig, keys_: Sequence[str]) -> list[ObjectState | None]:
        if not keys_:
            return []
        names = [keys.state(self._conf.redis.state_prefix, bucket.name, key) for key in keys_]
        return [_parse(text) for text in self._connection.run(lambda r: r.mget(names))]

    def commit(self, claim: Claim, commit: Commit) -> None:
        redis = self._conf.redis
        written = [piece for piece in commit.pieces if piece.columns is not None]
        names = [
            keys.bucket(claim.bucket),
            keys.running(claim.region),
            redis.queue_name,
            keys.STATS,
            keys.EVENTS,
            keys.manifest(claim.bucket, claim.generation),
            *(self._segment(claim, piece.entry.id) for piece in written),
            *(keys.state(redis.state_prefix, claim.bucket, key) for key in commit.strings),
            *(self._segment(claim, id_) for id_ in commit.removed),
            *(keys.state(redis.state_prefix, claim.bucket, key) for key in commit.no_strings),
        ]
        args: list[Any] = [
            claim.bucket,
            claim.fence,
            claim.generation,
            commit.number,
            json.dumps(asdict(commit.progress)) if commit.progress else "",
            self._conf.queue.high_water,
            redis.ttl,
            commit.recent,
            RECENT_COMMITS,
            len(commit.counted),
            len(commit.pieces),
            len(commit.removed),
            len(written),
            len(commit.strings),
        ]
        for kind, number in commit.counted.items():
            args += [_COUNTERS[kind], number]
        for piece in commit.pieces:
            args += [piece.entry.id, packing.pack_entry(piece.entry)]
        args += commit.removed
        args += [packing.pack_rows(piece.columns) for piece in written if piece.columns]
        args += _formatted(commit.strings.values())
        args += commit.notifications
        answer = self._commit(names, args)
        if answer != "ok":
            raise _not_committed(claim.bucket, str(answer))

    def _segment(self, claim: Claim, id_: str) -> str:
        return keys.segment(claim.bucket, claim.generation, id_)


def _damaged(bucket: str) -> StateDamaged:
    return StateDamaged(
        f"{bucket}: a part of its state in Redis is missing or broken (was a key evicted, deleted "
        "or written over?); restore it, or remove the bucket and add it again"
    )


def _not_committed(bucket: str, answer: str) -> Exception:
    if answer == "lost":
        return LeaseLost(f"{bucket}: the lease expired or went to another worker")
    if answer == "changed":
        return ConfigurationChanged(f"{bucket}: removed or changed while it was being scanned")
    if answer == "out of step":
        return CommitOutOfStep(f"{bucket}: Redis lost an earlier commit; scanning again")
    if answer == "full":
        return QueueFull(
            f"{bucket}: the notification queue is above its high-water mark; scanning goes on "
            "when consumers have read from it"
        )
    key = answer.removeprefix("wrong type ")
    return RedisUnavailable(f"{bucket}: the Redis key {key} has another type; rename or delete it")


def _progress(stored: bytes | None) -> Progress | None:
    return Progress(**json.loads(stored)) if stored else None


def _parse(text: str | None) -> ObjectState | None:
    """A stored state; one that cannot be read counts as not there, so the object is announced."""
    if text is None:
        return None
    try:
        stored: dict[str, Any] = json.loads(text)
        return ObjectState(
            etag=str(stored["etag"]),
            last_modified=float(stored["last_modified"]),
            size=int(stored["size"]),
            last_processed=float(stored.get("last_processed") or 0.0),
        )
    except (ValueError, TypeError, KeyError):
        return None


def _formatted(states: Iterable[ObjectState]) -> Iterator[str]:
    """Documented states as json.dumps would write them, which takes many times as long.

    Those of one commit were all processed at the same time.
    """
    written, end = None, ""
    for etag, modified, size, processed in states:
        if processed != written:
            written, end = processed, f', "last_processed": {processed!r}}}'
        quoted = encode_basestring_ascii(etag)
        yield f'{{"etag": {quoted}, "last_modified": {modified!r}, "size": {size}{end}'
