"""Object states as the documented JSON strings, and the commit that writes them with their events.

{state_prefix}{bucket}:{key}   string, JSON   etag, last_modified, size, last_processed
linode:notifications:queue     list           one JSON notification an element
…:bw:bucket:{name}             hash           fence, generation, commit: what a commit checks
…:bw:stats                     hash           counters of all processes
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from scanning.core import keys
from scanning.core.errors import CommitOutOfStep, ConfigurationChanged, LeaseLost, RedisUnavailable
from scanning.core.types import EventType, ObjectState

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scanning.adapters.redis_connection import RedisConnection
    from scanning.conf import Redis
    from scanning.core.types import Claim
    from scanning.ports import PageCommit

# One page: its states and its notifications, all or nothing. Lua has no rollback, so everything
# that can fail is looked at before the first write.
# KEYS: bucket hash, run set, queue, stats, then one key per state.
# ARGV: bucket, fence, generation, commit number, ttl, number of counters, field, n, …,
#       one JSON per state, then the notifications.
# Returns 'ok', 'lost', 'changed', 'out of step', or 'wrong type KEY'.
_COMMIT = """
local hash, run, queue, stats = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local bucket, fence, generation, number = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
if redis.call('HGET', hash, 'fence') ~= fence then return 'lost' end
if (redis.call('HGET', hash, 'generation') or '0') ~= generation then return 'changed' end
if not redis.call('ZSCORE', run, bucket) then return 'lost' end
local last = tonumber(redis.call('HGET', hash, 'commit') or '0')
-- redis-py may send a command twice after a time-out: the second answers as the first did.
if last == number then return 'ok' end
if last ~= number - 1 then return 'out of step' end
local kind = redis.call('TYPE', queue).ok
if kind ~= 'list' and kind ~= 'none' then return 'wrong type ' .. queue end
kind = redis.call('TYPE', stats).ok
if kind ~= 'hash' and kind ~= 'none' then return 'wrong type ' .. stats end

local at = 7 + 2 * tonumber(ARGV[6])
local states = #KEYS - 4
for i = at + states, #ARGV, 1000 do
  redis.call('RPUSH', queue, unpack(ARGV, i, math.min(i + 999, #ARGV)))
end
-- The older monitor left a 7-day expiry on the queue; nothing may drop events silently.
redis.call('PERSIST', queue)
for i = 1, states do redis.call('SET', KEYS[4 + i], ARGV[at + i - 1], 'EX', ARGV[5]) end
for i = 7, at - 1, 2 do redis.call('HINCRBY', stats, ARGV[i], ARGV[i + 1]) end
redis.call('HSET', hash, 'commit', ARGV[4])
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

    def __init__(self, connection: RedisConnection, settings: Redis) -> None:
        self._connection = connection
        self._settings = settings
        self._commit = connection.script(_COMMIT)

    def load(self, bucket: str, keys_: Sequence[str]) -> list[ObjectState | None]:
        if not keys_:
            return []
        names = [keys.state(self._settings.state_prefix, bucket, key) for key in keys_]
        return [_parse(text) for text in self._connection.run(lambda r: r.mget(names))]

    def commit(self, claim: Claim, commit: PageCommit) -> None:
        prefix = self._settings.state_prefix
        names = [
            keys.bucket(claim.bucket),
            keys.running(claim.region),
            self._settings.queue_name,
            keys.STATS,
            *(keys.state(prefix, claim.bucket, key) for key in commit.states),
        ]
        counters = [
            item
            for kind, field in _COUNTERS.items()
            if (number := getattr(commit.counts, kind.value))
            for item in (field, number)
        ]
        args = [
            claim.bucket,
            claim.fence,
            claim.generation,
            commit.number,
            self._settings.ttl,
            len(counters) // 2,
            *counters,
            *map(_format, commit.states.values()),
            *commit.notifications,
        ]
        answer = self._commit(names, args)
        if answer != "ok":
            raise _not_committed(claim.bucket, str(answer))

    def states(self, bucket: str) -> Iterator[str]:
        """The names of a bucket's state keys; looks through the whole keyspace."""
        match = _glob_escape(keys.state(self._settings.state_prefix, bucket, "")) + "*"
        cursor = 0
        while True:
            look = partial(_scan_keys, cursor=cursor, match=match)
            cursor, names = self._connection.run(look)
            yield from names
            if cursor == 0:
                return

    def clear_removed(self) -> int:
        """Delete the states of buckets that were removed; how many strings that were.

        Such a bucket cannot be claimed before it is done, so that one added again under the same
        name starts anew and loses nothing of its own.
        """
        cleared = 0
        for bucket in sorted(self._connection.run(lambda r: r.smembers(keys.CLEARING))):
            batch: list[str] = []
            for name in self.states(bucket):
                batch.append(name)
                if len(batch) == 1000:  # noqa: PLR2004 - names in one UNLINK
                    cleared += self._unlink(batch)
                    batch = []
            cleared += self._unlink(batch)
            self._connection.run(partial(_cleared, bucket=bucket))
        return cleared

    def _unlink(self, names: list[str]) -> int:
        if not names:
            return 0
        return self._connection.run(lambda r: int(r.unlink(*names)))


def _scan_keys(r: Any, *, cursor: int, match: str) -> tuple[int, list[str]]:
    answer: tuple[int, list[str]] = r.scan(cursor, match=match, count=1000)
    return answer


def _cleared(r: Any, *, bucket: str) -> None:
    r.srem(keys.CLEARING, bucket)


def _not_committed(bucket: str, answer: str) -> Exception:
    if answer == "lost":
        return LeaseLost(f"{bucket}: the lease expired or went to another worker")
    if answer == "changed":
        return ConfigurationChanged(f"{bucket}: removed or changed while it was being scanned")
    if answer == "out of step":
        return CommitOutOfStep(f"{bucket}: Redis lost an earlier commit; scanning again")
    key = answer.removeprefix("wrong type ")
    return RedisUnavailable(f"{bucket}: the Redis key {key} has another type; rename or delete it")


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


def _format(state: ObjectState) -> str:
    return json.dumps(
        {
            "etag": state.etag,
            "last_modified": state.last_modified,
            "size": state.size,
            "last_processed": state.last_processed,
        }
    )


def _glob_escape(text: str) -> str:
    return "".join(f"\\{c}" if c in r"*?[]^\\" else c for c in text)
