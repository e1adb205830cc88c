"""Who scans what, in Redis (`core/redis_keys.py` names the keys).

    region:{region}:due   sorted set  bucket -> when it is due
    region:{region}:run   sorted set  bucket -> when its lease expires: the region's slots and the
                                      bucket locks in one, so that they cannot disagree
    bucket:{name}         hash        fence, commit, generation, offset, status of the last scan
    history:{name}        list        the last scans (`telemetry.py`)

The fence of a claim is larger than any before it, also after a failover that forgot some claims,
because it follows the server's clock. Every commit checks it (`state.py`).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from scanning.adapters.redis.schedule import server_time
from scanning.adapters.redis.telemetry import history_entry, with_telemetry
from scanning.core import redis_keys, scan_warnings
from scanning.core.metrics import counters
from scanning.core.texts import MOST_MESSAGE, clean
from scanning.core.types import Claim, EventType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scanning.adapters.redis.connection import RedisConnection
    from scanning.core.types import BucketConfig, ScanResult

LEASE_S = 15.0

# What both claims do: see which leases hold; for one bucket, bump the fence and take the slot.
_TAKE = """
local t = redis.call('TIME')
local now = t[1] + t[2] / 1000000
-- Take away the leases that have expired. One that lasts longer than any is from before the clock
-- went back, as it may in a failover: it begins now.
local function expire(run, lease)
  redis.call('ZREMRANGEBYSCORE', run, '-inf', now)
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', run, now + lease + 1, '+inf')) do
    redis.call('ZADD', run, string.format('%.6f', now + lease), name)
  end
end
local function take(name, run, scheduled, lease)
  local hash = BUCKETS .. name
  local fence = math.max(tonumber(redis.call('HGET', hash, 'fence') or 0) + 1,
                         math.floor(now * 1000))
  redis.call('HSET', hash, 'fence', string.format('%.0f', fence))
  redis.call('HDEL', hash, 'again')
  redis.call('ZADD', run, string.format('%.6f', now + lease), name)
  return {name, string.format('%.0f', fence), redis.call('HGET', hash, 'generation') or '0',
          redis.call('HGET', hash, 'commit') or '0', string.format('%.6f', scheduled),
          redis.call('HGET', hash, 'offset') or '', string.format('%.6f', now + lease),
          redis.call('HGET', hash, 'failures') or '0', string.format('%.6f', now)}
end
""".replace("BUCKETS", f"'{redis_keys.BUCKET_PREFIX}'")

# KEYS: due, run, clearing, trusted.  ARGV: most, slots, lease seconds.
# Returns a list of {bucket, fence, generation, commit, scheduled, offset, expiry, failures, now}.
_CLAIM_DUE = (
    _TAKE
    + """
if redis.call('EXISTS', KEYS[4]) == 0 then return {} end
expire(KEYS[2], tonumber(ARGV[3]))
local taken, busy = {}, redis.call('ZCARD', KEYS[2])
local free = math.min(tonumber(ARGV[1]), tonumber(ARGV[2]) - busy)
if free <= 0 then return taken end
-- A bucket that is being scanned or cleared stays in the due set: look past those.
local look = free + busy + redis.call('SCARD', KEYS[3])
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'WITHSCORES', 'LIMIT', 0, look)
for i = 1, #due, 2 do
  local name = due[i]
  if not redis.call('ZSCORE', KEYS[2], name) and redis.call('SISMEMBER', KEYS[3], name) == 0 then
    taken[#taken + 1] = take(name, KEYS[2], tonumber(due[i + 1]), tonumber(ARGV[3]))
    if #taken == free then break end
  end
end
return taken
"""
)

# KEYS: run, clearing.  ARGV: bucket, slots, lease seconds.  Returns one claim, or an empty list.
_CLAIM_ONE = (
    _TAKE
    + """
expire(KEYS[1], tonumber(ARGV[3]))
if redis.call('ZSCORE', KEYS[1], ARGV[1]) or redis.call('SISMEMBER', KEYS[2], ARGV[1]) == 1
   or redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return {} end
return {take(ARGV[1], KEYS[1], now, tonumber(ARGV[3]))}
"""
)

# KEYS: run, bucket hash.  ARGV: bucket, fence, lease seconds.  Returns 1, or 0: the lease is lost.
_RENEW = """
local t = redis.call('TIME')
local now = t[1] + t[2] / 1000000
local expires = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not expires or tonumber(expires) < now or redis.call('HGET', KEYS[2], 'fence') ~= ARGV[2] then
  return 0
end
redis.call('ZADD', KEYS[1], string.format('%.6f', now + tonumber(ARGV[3])), ARGV[1])
return 1
"""

# KEYS: run, bucket hash.  ARGV: bucket, fence.
_RELEASE = """
if redis.call('HGET', KEYS[2], 'fence') == ARGV[2] then redis.call('ZREM', KEYS[1], ARGV[1]) end
return 1
"""

# KEYS: run, bucket hash, due, status_changes, last_scan, stats, history.
# ARGV: bucket, fence, next due or '', start of a complete pass or '', entry of the history or '',
#       generation, number of the last commit or '', number of counters, number of the last commit
#       before the scan if S3 broke it off or '', then counter, n, …, then field, value, … of the
#       bucket hash ('' removes a field).
# Returns 1, or 0 if another claim came after ours, the bucket is another one since, or a failover
# forgot the last commit: it stays due then.  It also stays due if another scan is wanted since the
# claim.  Repeating it changes nothing: the bucket has left the running set by then.
_FINISH = with_telemetry("""
if redis.call('HGET', KEYS[2], 'fence') ~= ARGV[2] then return 0 end
if redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then return 0 end
if (redis.call('HGET', KEYS[2], 'generation') or '0') ~= ARGV[6] then return 0 end
if ARGV[7] ~= '' and (redis.call('HGET', KEYS[2], 'commit') or '0') ~= ARGV[7] then return 0 end
if ARGV[3] ~= '' and redis.call('HEXISTS', KEYS[2], 'again') == 0 then
  redis.call('ZADD', KEYS[3], 'XX', ARGV[3], ARGV[1])
end
local fields = 10 + 2 * tonumber(ARGV[8])
local minute = 'MINUTE' .. math.floor(redis.call('TIME')[1] / 60)
for i = 10, fields - 1, 2 do
  redis.call('HINCRBY', KEYS[6], ARGV[i], ARGV[i + 1])
  redis.pcall('HINCRBY', minute, ARGV[i], ARGV[i + 1])
end
redis.pcall('EXPIRE', minute, KEEP_MINUTES)
if ARGV[5] ~= '' then
  redis.pcall('RPUSH', KEYS[7], ARGV[5])
  redis.pcall('LTRIM', KEYS[7], -KEEP_SCANS, -1)
end
if ARGV[4] ~= '' then
  redis.call('SET', KEYS[5], ARGV[4])
  redis.call('HSET', KEYS[6], 'last_scan_time', ARGV[4])
end
for i = fields, #ARGV, 2 do
  if ARGV[i + 1] == '' then redis.call('HDEL', KEYS[2], ARGV[i])
  else redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
end
-- Without a commit the pass stands where it stood.
if ARGV[9] ~= '' then
  local moved = (redis.call('HGET', KEYS[2], 'commit') or '0') ~= ARGV[9]
  local before = not moved and redis.call('HGET', KEYS[2], 'stuck') or 0
  redis.call('HSET', KEYS[2], 'stuck', before + 1)
end
-- What was confirmed before this scan did not suffice, or is done.
if ARGV[4] ~= '' and redis.call('HEXISTS', KEYS[2], 'again') == 0 then
  redis.call('HDEL', KEYS[2], 'released')
end
local now = redis.call('TIME')
now = now[1] .. '.' .. string.format('%06d', now[2])
-- Even if there was nothing to commit: that the bucket is empty is known from now on.
if ARGV[4] ~= '' then redis.call('HSETNX', KEYS[2], 'commit_at', now) end
redis.call('ZADD', KEYS[4], now, ARGV[1])
return 1
""")


class RedisLeases:
    """Implements `ports.Leases`."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        register = connection.script
        self._claim_due, self._claim_one = register(_CLAIM_DUE), register(_CLAIM_ONE)
        self._renew, self._finish = register(_RENEW), register(_FINISH)
        self._release = register(_RELEASE)

    def claim_due(self, region: str, *, most: int, slots: int) -> list[Claim]:
        names = [
            redis_keys.due(region),
            redis_keys.running(region),
            redis_keys.CLEARING,
            redis_keys.TRUSTED,
        ]
        rows = self._claim_due(names, [most, slots, LEASE_S])
        return [_claim(region, row) for row in rows]

    def claim(self, bucket: BucketConfig, *, slots: int) -> Claim | None:
        names = [redis_keys.running(bucket.region), redis_keys.CLEARING]
        rows = self._claim_one(names, [bucket.name, slots, LEASE_S])
        return _claim(bucket.region, rows[0]) if rows else None

    def renew(self, claim: Claim) -> bool:
        names = [redis_keys.running(claim.region), redis_keys.bucket(claim.bucket)]
        args = [claim.bucket, claim.fence, LEASE_S]
        return bool(self._renew(names, args))

    def finish(
        self,
        claim: Claim,
        result: ScanResult,
        *,
        next_due: float | None,
        failures: int = 0,
        broke_off: bool = False,
    ) -> None:
        names = [
            redis_keys.running(claim.region),
            redis_keys.bucket(claim.bucket),
            redis_keys.due(claim.region),
            redis_keys.STATUS_CHANGES,
            redis_keys.last_scan(claim.bucket),
            redis_keys.STATS,
            redis_keys.history(claim.bucket),
        ]
        late_s = max(0.0, result.started_at - claim.scheduled_at)
        counted = counters.of_scan(result, late_s=late_s)
        args = [
            claim.bucket,
            claim.fence,
            "" if next_due is None else f"{next_due:.6f}",
            repr(result.began) if result.ok and result.complete else "",
            history_entry(result),
            claim.generation,
            "" if result.commit is None else result.commit,
            len(counted),
            claim.commit if broke_off else "",
            *_flat(counted),
            *_flat(_status_fields(claim, result) | _next_try(next_due, failures)),
        ]
        self._finish(names, args)

    def release(self, claim: Claim) -> None:
        """Give a claim back unused: the bucket stays due, and nothing is recorded."""
        names = [redis_keys.running(claim.region), redis_keys.bucket(claim.bucket)]
        args = [claim.bucket, claim.fence]
        self._release(names, args)

    def running(self, region: str) -> list[str]:
        def ask(r: Any) -> list[str]:
            return list(r.zrangebyscore(redis_keys.running(region), server_time(r), "+inf"))

        return self._connection.run(ask)

    def next_due_in_s(self, region: str) -> float | None:
        def ask(r: Any) -> float | None:
            now = server_time(r)
            pipe = r.pipeline(transaction=False)
            pipe.zrangebyscore(redis_keys.running(region), now, "+inf")
            pipe.zrange(redis_keys.due(region), 0, 0, withscores=True)
            pipe.exists(redis_keys.TRUSTED)
            running, head, is_trusted = pipe.execute()
            if not is_trusted:
                return None
            if head and head[0][0] in running:
                head = r.zrange(redis_keys.due(region), 0, len(running), withscores=True)
            waiting = [score for name, score in head if name not in running]
            return float(waiting[0]) - now if waiting else None

        return self._connection.run(ask)


def _claim(region: str, row: list[str]) -> Claim:
    bucket, fence, generation, commit, scheduled, offset, expires, failures, now = row
    return Claim(
        bucket=bucket,
        region=region,
        fence=int(fence),
        generation=int(generation),
        scheduled_at=float(scheduled),
        offset_s=float(offset) if offset else None,
        expires_at=float(expires),
        commit=int(commit),
        failures=int(failures),
        taken_at=float(now),
        arrived_s=time.monotonic(),
    )


def _status_fields(claim: Claim, result: ScanResult) -> dict[str, str]:
    """Fields of the bucket hash; a failed scan leaves what the last complete one said."""
    if not result.ok:
        return {
            "error": clean(result.error, MOST_MESSAGE),
            "error_class": result.error_class,
            "error_at": repr(result.started_at + result.duration_s),
        }
    fields = {"error": "", "error_class": "", "error_at": "", "stuck": ""}
    if not result.complete:
        return fields | {"progress": result.progress}
    return (
        fields
        | {
            "progress": "",
            "complete": str(claim.generation),
            "scan_at": repr(result.began),
            "duration_s": f"{result.duration_s:.3f}",
            "objects": str(result.listed),
            "changes": str(result.counts.changes),
            **{str(kind): str(getattr(result.counts, kind)) for kind in EventType},
            "lag_s": f"{max(0.0, result.started_at - claim.scheduled_at):.3f}",
            "warnings": scan_warnings.as_json(result.warnings),
        }
        | _held_fields(result)
    )


def _next_try(next_due: float | None, failures: int) -> dict[str, str]:
    return {
        "next_scan_at": "" if next_due is None else f"{next_due:.3f}",
        "failures": str(failures or ""),
    }


def _held_fields(result: ScanResult) -> dict[str, str]:
    held = result.held
    if held is None:
        return {"held_since": "", "held_missing": "", "released": ""}
    return {
        "held_since": repr(held.since),
        "held_missing": str(held.missing),
        # "released" stays if the deletion was confirmed after this scan began.
    }


def _flat(pairs: Mapping[str, object]) -> list[object]:
    return [item for pair in pairs.items() for item in pair]
