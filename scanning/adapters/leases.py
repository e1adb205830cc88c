"""Who scans what, in Redis (`core/keys.py` names the keys).

    region:{region}:due   sorted set  bucket -> when it is due
    region:{region}:run   sorted set  bucket -> when its lease expires: the region's slots and the
                                      bucket locks in one, so that they cannot disagree
    bucket:{name}         hash        fence, commit, generation, offset, status of the last scan

The fence of a claim is larger than any before it, also after a failover that forgot some claims,
because it follows the server's clock. Every commit checks it (`state.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scanning.adapters.schedule_store import server_time
from scanning.core import keys
from scanning.core.types import BucketStatus, Claim

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scanning.adapters.redis_connection import RedisConnection
    from scanning.core.types import BucketConfig, ScanResult

LEASE_S = 15.0

# What both claims do for one bucket: bump the fence, take the slot.
_TAKE = """
local t = redis.call('TIME')
local now = t[1] + t[2] / 1000000
local function take(name, run, scheduled, lease)
  local hash = BUCKETS .. name
  local fence = math.max(tonumber(redis.call('HGET', hash, 'fence') or 0) + 1,
                         math.floor(now * 1000))
  redis.call('HSET', hash, 'fence', string.format('%.0f', fence))
  redis.call('ZADD', run, string.format('%.6f', now + lease), name)
  return {name, string.format('%.0f', fence), redis.call('HGET', hash, 'generation') or '0',
          redis.call('HGET', hash, 'commit') or '0', string.format('%.6f', scheduled),
          redis.call('HGET', hash, 'offset') or '', string.format('%.6f', now + lease)}
end
""".replace("BUCKETS", f"'{keys.BUCKET_PREFIX}'")

# KEYS: due, run, clearing.  ARGV: most, slots, lease seconds.
# Returns a list of {bucket, fence, generation, commit, scheduled, offset, expiry}.
_CLAIM_DUE = (
    _TAKE
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
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
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
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

# KEYS: run, bucket hash, due, changed_status, last_scan, stats.
# ARGV: bucket, fence, next due or '', start of a complete pass or '', number of counters,
#       then counter, n, …, then field, value, … of the bucket hash ('' removes a field).
# Returns 1, or 0 if another claim came after ours.  Repeating it changes nothing: the bucket has
# left the running set by then.
_FINISH = """
if redis.call('HGET', KEYS[2], 'fence') ~= ARGV[2] then return 0 end
if redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then return 0 end
if ARGV[3] ~= '' then redis.call('ZADD', KEYS[3], 'XX', ARGV[3], ARGV[1]) end
local fields = 6 + 2 * tonumber(ARGV[5])
for i = 6, fields - 1, 2 do redis.call('HINCRBY', KEYS[6], ARGV[i], ARGV[i + 1]) end
if ARGV[4] ~= '' then
  redis.call('SET', KEYS[5], ARGV[4])
  redis.call('HSET', KEYS[6], 'last_scan_time', ARGV[4])
end
for i = fields, #ARGV, 2 do
  if ARGV[i + 1] == '' then redis.call('HDEL', KEYS[2], ARGV[i])
  else redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
end
redis.call('SADD', KEYS[4], ARGV[1])
return 1
"""


class RedisLeases:
    """Implements `ports.Leases`."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        register = connection.script
        self._claim_due, self._claim_one = register(_CLAIM_DUE), register(_CLAIM_ONE)
        self._renew, self._finish = register(_RENEW), register(_FINISH)
        self._release = register(_RELEASE)

    def claim_due(self, region: str, *, most: int, slots: int) -> list[Claim]:
        names = [keys.due(region), keys.running(region), keys.CLEARING]
        rows = self._claim_due(names, [most, slots, LEASE_S])
        return [_claim(region, row) for row in rows]

    def claim(self, bucket: BucketConfig, *, slots: int) -> Claim | None:
        names = [keys.running(bucket.region), keys.CLEARING]
        rows = self._claim_one(names, [bucket.name, slots, LEASE_S])
        return _claim(bucket.region, rows[0]) if rows else None

    def renew(self, claim: Claim) -> bool:
        names = [keys.running(claim.region), keys.bucket(claim.bucket)]
        args = [claim.bucket, claim.fence, LEASE_S]
        return bool(self._renew(names, args))

    def finish(self, claim: Claim, result: ScanResult, *, next_due: float | None) -> None:
        names = [
            keys.running(claim.region),
            keys.bucket(claim.bucket),
            keys.due(claim.region),
            keys.CHANGED_STATUS,
            keys.last_scan(claim.bucket),
            keys.STATS,
        ]
        counters = _counters(result)
        args = [
            claim.bucket,
            claim.fence,
            "" if next_due is None else f"{next_due:.6f}",
            repr(result.began) if result.ok and result.complete else "",
            len(counters),
            *_flat(counters),
            *_flat(_status_fields(claim, result)),
        ]
        self._finish(names, args)

    def release(self, claim: Claim) -> None:
        """Give a claim back unused: the bucket stays due, and nothing is recorded."""
        names = [keys.running(claim.region), keys.bucket(claim.bucket)]
        args = [claim.bucket, claim.fence]
        self._release(names, args)

    def next_due(self, region: str) -> float | None:
        def ask(r: Any) -> float | None:
            pipe = r.pipeline(transaction=False)
            pipe.zrangebyscore(keys.running(region), server_time(r), "+inf")
            pipe.zrange(keys.due(region), 0, 0, withscores=True)
            running, head = pipe.execute()
            if head and head[0][0] in running:
                head = r.zrange(keys.due(region), 0, len(running), withscores=True)
            waiting = [score for name, score in head if name not in running]
            return float(waiting[0]) if waiting else None

        return self._connection.run(ask)


def _claim(region: str, row: list[str]) -> Claim:
    bucket, fence, generation, commit, scheduled, offset, expires = row
    return Claim(
        bucket=bucket,
        region=region,
        fence=int(fence),
        generation=int(generation),
        scheduled_at=float(scheduled),
        offset_s=float(offset) if offset else None,
        expires_at=float(expires),
        commit=int(commit),
    )


def _counters(result: ScanResult) -> dict[str, int]:
    counts = result.counts
    return {
        "total_scans": int(result.complete or not result.ok),
        "failed_scans": int(not result.ok),
        "errors": int(not result.ok),
        "total_objects_scanned": counts.objects,
        "list_calls": counts.pages,
        "segments_unchanged": counts.unchanged,
        "segments_compared": counts.compared,
    }


def _status_fields(claim: Claim, result: ScanResult) -> dict[str, str]:
    """Fields of the bucket hash; a failed scan leaves what the last complete one said."""
    if not result.ok:
        return {
            "error": result.error,
            "error_class": result.error_class,
            "error_at": repr(result.started_at + result.duration_s),
        }
    fields = {"error": "", "error_class": "", "error_at": ""}
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
            "lag_s": f"{max(0.0, result.started_at - claim.scheduled_at):.3f}",
        }
        | _held_fields(result)
    )


def _held_fields(result: ScanResult) -> dict[str, str]:
    held = result.held
    if held is None:
        return {"held_since": "", "held_missing": "", "held_known": "", "released": ""}
    return {
        "held_since": repr(held.since),
        "held_missing": str(held.missing),
        "held_known": str(held.known),
        "released": "",
    }


def _flat(pairs: Mapping[str, object]) -> list[object]:
    return [item for pair in pairs.items() for item in pair]


class RedisStatuses:
    """How the last scans ended, for whoever shows it; what has changed is remembered until read."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    def drain(self, most: int = 1000) -> list[BucketStatus]:
        """Up to ``most`` statuses that changed since the last drain; each is given once."""

        def read(r: Any) -> list[BucketStatus]:
            names = [str(name) for name in r.spop(keys.CHANGED_STATUS, most) or []]
            pipe = r.pipeline(transaction=False)
            for name in names:
                pipe.hgetall(keys.bucket(name))
            return [
                _status(name, fields) for name, fields in zip(names, pipe.execute(), strict=True)
            ]

        return self._connection.run(read)

    def give_back(self, names: list[str]) -> None:
        """Make ``names`` part of the next drain again: whoever took them could not keep them."""
        if names:
            self._connection.run(lambda r: r.sadd(keys.CHANGED_STATUS, *names))


def _status(name: str, fields: dict[str, str]) -> BucketStatus:
    def number(field: str) -> float | None:
        return float(fields[field]) if fields.get(field) else None

    return BucketStatus(
        bucket=name,
        last_scan_at=number("scan_at"),
        duration_s=number("duration_s") or 0.0,
        objects=int(number("objects") or 0),
        changes=int(number("changes") or 0),
        error=fields.get("error", ""),
        error_class=fields.get("error_class", ""),
        error_at=number("error_at"),
        lag_s=number("lag_s") or 0.0,
        held_since=number("held_since"),
        held_missing=int(number("held_missing") or 0),
    )
