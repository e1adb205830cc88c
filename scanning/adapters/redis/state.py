"""Segments, manifests and documented strings, and the commit that writes them with their events.

…:bw:{bucket}:{generation}:manifest   hash     segment id -> entry (`segment_codec.py`)
…:bw:{bucket}:{generation}:seg:{id}   string   the segment's rows (`segment_codec.py`)
…:bw:bucket:{name}                    hash     fence, generation, commit, progress, complete, …
…:bw:events                           stream   recent events, one entry a commit, capped
…:bw:stats                            hash     counters of all processes (`counters.py`)
…:bw:minute:{minute}                  hash     the same of one minute
…:bw:events_of_day:{day}              hash     bucket -> notifications of the day
linode:notifications:queue            list     one JSON notification an element
{state_prefix}{bucket}:{key}          string   the documented JSON of one object, a view
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from scanning.adapters.redis import segment_codec
from scanning.adapters.redis.schedule import epoch_s
from scanning.adapters.redis.telemetry import with_telemetry
from scanning.core import object_state, redis_keys
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

# All or nothing. Lua has no rollback, so whatever can fail is looked at before the first write.
# KEYS: bucket hash, run set, queue, stats, stream, manifest, then the segments and strings that
#       are written, then those that are deleted.
# ARGV: bucket, fence, generation, commit number, progress JSON, high-water mark, string seconds,
#       stream entry or '', stream length, what the bucket wants to have announced or '', then how
#       many of each follow: counters, entries, entries deleted, segments, strings; then counter, n,
#       …; id, entry, …; ids; values of the segments; in msgpack the values of the strings, and the
#       notifications: thousands of arguments cost both sides more than one.
# Returns 'ok', 'lost', 'changed', 'out of step', 'full', 'wrong type KEY', or 'may not COMMAND'.
_COMMIT = with_telemetry("""
local hash, run, queue, stats, stream, manifest = unpack(KEYS, 1, 6)
local bucket, fence, generation, number = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
if redis.call('HGET', hash, 'fence') ~= fence then return 'lost' end
if (redis.call('HGET', hash, 'generation') or '0') ~= generation then return 'changed' end
-- What is switched on counts for all that is found from then on.
local wants = ARGV[10]
if wants ~= '' and redis.call('HGET', hash, 'wants') ~= wants then return 'changed' end
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
local counters, entries, gone, segments, strings = unpack(ARGV, 11, 15)
local at = 16
local values, notifications = cmsgpack.unpack(ARGV[#ARGV - 1]), cmsgpack.unpack(ARGV[#ARGV])
for i = at, at + 2 * counters - 1, 2 do
  local stored = redis.call('HGET', stats, ARGV[i])
  -- What HINCRBY would refuse: no number, 007, or one near the end of 64 bits.
  if stored and stored ~= '0' and not (#stored < 17 and string.match(stored, '^-?[1-9]%d*$')) then
    return 'wrong type ' .. stats
  end
end
if #notifications > 0 and redis.call('LLEN', queue) >= tonumber(ARGV[6]) then return 'full' end
-- Rights are checked with each command, so too late; Redis 6 cannot tell before.
for command, args in pairs({RPUSH = {queue, ''}, PERSIST = {queue}, XADD = {stream, '*', 'f', ''},
                            HINCRBY = {stats, 'f', 1}, HSET = {hash, 'f', ''},
                            HDEL = {manifest, 'f'}, SET = {hash, ''}, UNLINK = {hash}}) do
  if redis.acl_check_cmd and not redis.acl_check_cmd(command, unpack(args)) then
    return 'may not ' .. command
  end
end
-- Of what is only shown nothing may break a commit: pcall.
local minute = 'MINUTE' .. math.floor(t[1] / 60)

for i = 1, #notifications, 1000 do
  redis.call('RPUSH', queue, unpack(notifications, i, math.min(i + 999, #notifications)))
end
-- The older monitor left a 7-day expiry on the queue; nothing may drop events silently.
redis.call('PERSIST', queue)
if ARGV[8] ~= '' then
  redis.call('XADD', stream, 'MAXLEN', '~', ARGV[9], '*', 'commit', ARGV[8])
end
for _ = 1, counters do
  redis.call('HINCRBY', stats, ARGV[at], ARGV[at + 1])
  redis.pcall('HINCRBY', minute, ARGV[at], ARGV[at + 1])
  at = at + 2
end
if counters ~= '0' then redis.pcall('EXPIRE', minute, KEEP_MINUTES) end
if #notifications > 0 then
  local day = 'DAY' .. math.floor(t[1] / 86400)
  redis.pcall('HINCRBY', day, bucket, #notifications)
  redis.pcall('EXPIRE', day, KEEP_DAYS)
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
for i = 1, strings do
  redis.call('SET', KEYS[key], values[i], 'EX', ARGV[7])
  key = key + 1
end
for i = key, #KEYS, 1000 do
  redis.call('UNLINK', unpack(KEYS, i, math.min(i + 999, #KEYS)))
end
redis.call('HSET', hash, 'commit', ARGV[4], 'progress', ARGV[5],
           'commit_at', t[1] .. '.' .. string.format('%06d', t[2]),
           'segments', redis.call('HLEN', manifest))
return 'ok'
""")


class RedisStateStore:
    """Implements `ports.StateStore`."""

    def __init__(self, connection: RedisConnection, conf: EngineSettings) -> None:
        self._connection = connection
        self._conf = conf
        self._commit = connection.script(_COMMIT)

    def open(self, bucket: BucketConfig, claim: Claim | None = None) -> KnownState:
        manifest = redis_keys.manifest(bucket.name, bucket.generation)
        wanted = ["complete", "progress", "held_since", "released", "segments", "lost_since"]
        wanted += ["stuck", "fence", "commit"]

        def read(r: Any) -> tuple[dict[bytes, bytes], list[bytes | None], bytes | None]:
            pipe = r.pipeline()
            pipe.hgetall(manifest)
            pipe.hmget(redis_keys.bucket(bucket.name), wanted)
            pipe.get(redis_keys.last_scan(bucket.name))
            stored, fields, last_scan = pipe.execute()
            return stored, fields, last_scan

        stored, fields, last_scan = self._connection.run_bytes(read)
        complete, progress, held_since, released, segments, lost_since, stuck = fields[:-2]
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
        redis = self._conf.redis
        written = [piece for piece in commit.pieces if piece.columns is not None]
        names = [
            redis_keys.bucket(claim.bucket),
            redis_keys.running(claim.region),
            redis.queue_name,
            redis_keys.STATS,
            redis_keys.EVENTS,
            redis_keys.manifest(claim.bucket, claim.generation),
            *(self._segment(claim, piece.entry.id) for piece in written),
            *(redis_keys.state(redis.state_prefix, claim.bucket, key) for key in commit.strings),
            *(self._segment(claim, id_) for id_ in commit.removed),
            *(redis_keys.state(redis.state_prefix, claim.bucket, key) for key in commit.no_strings),
        ]
        counted = counters.of_commit(commit.counted, commit.announced, commit.lags_s)
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
            commit.filter_fingerprint,
            len(counted),
            len(commit.pieces),
            len(commit.removed),
            len(written),
            len(commit.strings),
        ]
        for field, number in counted.items():
            args += [field, number]
        for piece in commit.pieces:
            args += [piece.entry.id, segment_codec.pack_entry(piece.entry)]
        args += commit.removed
        args += [segment_codec.pack_rows(piece.columns) for piece in written if piece.columns]
        args.append(segment_codec.pack_texts(object_state.formatted(commit.strings.values())))
        args.append(segment_codec.pack_texts(commit.notifications))
        answer = self._commit.begin(names, args)

        def land() -> None:
            if (said := answer()) != "ok":
                raise _not_committed(claim.bucket, str(said))

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


def _position(fence: bytes | None, commit: bytes | None) -> Position:
    return Position(int(fence or 0), int(commit or 0))


def _lost(bucket: str) -> StateLost:
    return StateLost(
        f"{bucket}: Redis forgot what was known of it; choose in the admin whether to announce its "
        "objects or only to remember them"
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
    if answer.startswith("may not "):
        command = answer.removeprefix("may not ")
        return RedisUnavailable(
            f"{bucket}: Redis does not let this user run {command}; docs/redis.md has the rights"
        )
    key = answer.removeprefix("wrong type ")
    return RedisUnavailable(f"{bucket}: the Redis key {key} has another type; rename or delete it")


def _progress(stored: bytes | None) -> Progress | None:
    return Progress(**json.loads(stored)) if stored else None
