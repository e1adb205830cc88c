"""How endpoints answer, shared by all processes through Redis (`core/pacing.py` has the rules).

    pace:{endpoint}                string  JSON: held back, failing or dead; absent when none of it
    pace:{endpoint}:failed_at      string  when a failing endpoint failed last
    pace:{endpoint}:use            hash    process -> "until:connections:requests a second"
    pace:{endpoint}:slots:         string  up to when moments to ask it are reserved
    pace:{endpoint}:waiting        zset    "bucket region" -> when it was due
    paces                          zset    endpoint -> when it was asked last

All of them expire: what is lost is only learnt again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from scanning.adapters.redis.schedule import server_time
from scanning.adapters.redis.telemetry import with_telemetry
from scanning.core import redis_keys
from scanning.core.metrics import counters
from scanning.core.metrics.telemetry import EndpointLoad
from scanning.core.pacing import (
    HEALTHY,
    EndpointHealth,
    allowed_per_s,
    drop_recovered_rate,
    state_of,
)
from scanning.identity import this_process
from scanning.ports import EndpointStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scanning.adapters.redis.connection import RedisConnection
    from scanning.core.types import Claim
    from scanning.ports import EndpointUsage

# A process that has not reported its usage for so long has no connections any more.
USAGE_S = 30
_KEEP_PACE_S = 600
_KEEP_WAITING_S = 86400
# Endpoints are shown for so long after they were asked last.
SHOWN_S = 3600
# When a dead endpoint answers, its buckets are due over so many seconds, at most so far apart.
_SPREAD_S, _APART_S = 5.0, 0.05
# So many of those that wait for a dead endpoint try it, one after the other; the rest come after
# so many seconds by themselves, should nobody have called them.
_TRIERS, _BY_THEMSELVES_S = 3, 60.0

# KEYS: use, pace, paces, stats, failed_at.
# ARGV: process, requests a second, connections wanted, limit or 0, seconds to keep, endpoint,
#       seconds to show it, throttled, unanswered.
# Returns {connections granted, requests a second of others, pace or '', failed_at or '', now}.
_SHARE_USAGE = (
    with_telemetry("""
local t = redis.call('TIME')
local now = t[1] + t[2] / 1000000
local taken, others = 0, 0
local rows = redis.call('HGETALL', KEYS[1])
for i = 1, #rows, 2 do
  local untl, connections, per_s = rows[i + 1]:match('^(.-):(.-):(.*)$')
  local left = tonumber(untl or 0) - now
  -- More than that if the clock went back.
  if left < 0 or left > 2 * tonumber(ARGV[5]) then redis.call('HDEL', KEYS[1], rows[i])
  elseif rows[i] ~= ARGV[1] then
    taken, others = taken + tonumber(connections), others + tonumber(per_s)
  end
end
local granted, limit = tonumber(ARGV[3]), tonumber(ARGV[4])
if limit > 0 then granted = math.max(0, math.min(granted, limit - taken)) end
if granted == 0 and tonumber(ARGV[2]) == 0 then redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1],
             string.format('%.3f:%d:%s', now + tonumber(ARGV[5]), granted, ARGV[2]))
  redis.call('EXPIRE', KEYS[1], ARGV[5])
end
redis.call('ZADD', KEYS[3], string.format('%.0f', now), ARGV[6])
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now - tonumber(ARGV[7]))
redis.call('EXPIRE', KEYS[3], ARGV[7])
local minute = 'MINUTE' .. math.floor(now / 60)
for field, number in pairs({THROTTLED = ARGV[8], UNANSWERED = ARGV[9]}) do
  if number ~= '0' then
    redis.call('HINCRBY', KEYS[4], field, number)
    redis.pcall('HINCRBY', minute, field, number)
    redis.pcall('EXPIRE', minute, KEEP_MINUTES)
  end
end
return {granted, string.format('%.3f', others), redis.call('GET', KEYS[2]) or '',
        redis.call('GET', KEYS[5]) or '', string.format('%.6f', now)}
""")
    .replace("UNANSWERED", counters.UNANSWERED)
    .replace("THROTTLED", counters.THROTTLED)
)

# KEYS: pace, failed_at, waiting.
# ARGV: expected pace and failed_at, new ones, each or '', seconds to keep them, 'died', 'revived'
#       or '', seconds to spread those that wait over, most seconds apart.
# Returns 1, or 0 if the pace is another one by now.
_REPLACE = """
for i = 1, 2 do
  if (redis.call('GET', KEYS[i]) or '') ~= ARGV[i] then return 0 end
end
for i = 1, 2 do
  if ARGV[i + 2] == '' then redis.call('DEL', KEYS[i])
  else redis.call('SET', KEYS[i], ARGV[i + 2], 'EX', ARGV[5]) end
end
if ARGV[6] == 'died' then redis.call('DEL', KEYS[3]) end
if ARGV[6] ~= 'revived' then return 1 end
local t = redis.call('TIME')
local now = t[1] + t[2] / 1000000
local waiting = redis.call('ZRANGE', KEYS[3], 0, -1)
local apart = math.min(tonumber(ARGV[7]) / math.max(#waiting, 1), tonumber(ARGV[8]))
for i, member in ipairs(waiting) do
  local bucket, region = member:match('^(%S+) (.*)$')
  -- Saved, or removed, since it was parked: it is due already, or never.
  if redis.call('HDEL', 'BUCKETS' .. bucket, 'parked') == 1 then
    redis.call('ZADD', 'OURSregion:' .. region .. ':due', 'XX',
               string.format('%.6f', now + (i - 1) * apart), bucket)
  end
end
redis.call('DEL', KEYS[3])
return 1
""".replace("OURS", redis_keys.OURS).replace("BUCKETS", redis_keys.BUCKET_PREFIX)

# KEYS: slots.  ARGV: number, seconds apart, most seconds ahead.
# Returns seconds from now to the first, or '' if that would be too far ahead.
_RESERVE = """
local t = redis.call('TIME')
local now = t[1] + t[2] / 1000000
local first = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
-- Nobody reserves so far ahead: the clock went back.
if first - now > LONG_AHEAD then first = now end
if first - now > tonumber(ARGV[3]) then return '' end
local after = first + tonumber(ARGV[1]) * tonumber(ARGV[2])
redis.call('SET', KEYS[1], string.format('%.6f', after),
           'PX', math.ceil((after - now) * 1000) + 1000)
return string.format('%.6f', first - now)
""".replace("LONG_AHEAD", "60")

# KEYS: due, run, waiting.
# ARGV: when they are due, '1' if they wait for an endpoint, region, seconds to keep that, how many
#       try it, seconds after which the others come, then bucket, fence, when it was due, …
_POSTPONE = """
for i = 7, #ARGV, 3 do
  local name, hash, at = ARGV[i], 'BUCKETS' .. ARGV[i], tonumber(ARGV[1])
  if redis.call('HGET', hash, 'fence') == ARGV[i + 1] then
    redis.call('ZREM', KEYS[2], name)
    if ARGV[2] == '1' then
      local member = name .. ' ' .. ARGV[3]
      redis.call('ZADD', KEYS[3], 'NX', ARGV[i + 2], member)
      local rank = redis.call('ZRANK', KEYS[3], member)
      at = at + (rank < tonumber(ARGV[5]) and rank or tonumber(ARGV[6]))
      redis.call('HSET', hash, 'parked', '1')
    end
    redis.call('ZADD', KEYS[1], 'XX', string.format('%.6f', at), name)
  end
end
if ARGV[2] == '1' then redis.call('EXPIRE', KEYS[3], ARGV[4]) end
return 1
""".replace("BUCKETS", redis_keys.BUCKET_PREFIX)


class RedisEndpointHealth:
    """Implements `ports.EndpointHealthStore`, and shows people how endpoints answer."""

    def __init__(self, connection: RedisConnection, *, process: str = "") -> None:
        self._connection = connection
        register = connection.script
        self._share_usage, self._replace = register(_SHARE_USAGE), register(_REPLACE)
        self._reserve, self._postpone = register(_RESERVE), register(_POSTPONE)
        self._process = process or this_process()

    def share_usage(self, usage: EndpointUsage) -> EndpointStatus:
        names = [
            redis_keys.pace_use(usage.endpoint),
            redis_keys.pace(usage.endpoint),
            redis_keys.PACES,
            redis_keys.STATS,
            redis_keys.pace_failed_at(usage.endpoint),
        ]
        args = [
            self._process,
            f"{usage.sent_per_s:.3f}",
            usage.connections,
            usage.limit,
            USAGE_S,
            usage.endpoint,
            SHOWN_S,
            usage.throttled,
            usage.unanswered,
        ]
        granted, others_per_s, text, failed_at, now = self._share_usage(names, args)
        return EndpointStatus(
            _parse(text, failed_at), float(now), int(granted), float(others_per_s)
        )

    def update(
        self, endpoint: str, change: Callable[[EndpointHealth, float], EndpointHealth]
    ) -> EndpointStatus:
        names = [redis_keys.pace(endpoint), redis_keys.pace_failed_at(endpoint)]
        while True:
            stored, now = self._connection.run(lambda r: (r.mget(names), server_time(r)))
            before = _parse(*stored)
            after = drop_recovered_rate(change(before, now), now=now)
            if after == before:
                return EndpointStatus(after, now)
            news = ""
            if before.is_dead != after.is_dead:
                news = "died" if after.is_dead else "revived"
            expected = [text or "" for text in stored]
            if self._replace(
                [*names, redis_keys.pace_waiting(endpoint)],
                [*expected, *_format(after), _KEEP_PACE_S, news, _SPREAD_S, _APART_S],
            ):
                return EndpointStatus(after, now)

    def reserve(
        self, endpoint: str, *, count: int, spacing_s: float, max_wait_s: float
    ) -> float | None:
        args = [count, f"{spacing_s:.6f}", max_wait_s]
        wait_s = self._reserve([redis_keys.pace_slots(endpoint)], args)
        return float(wait_s) if wait_s else None

    def postpone_until_answer(
        self, claims: Sequence[Claim], endpoint: str, *, until: float
    ) -> None:
        self._postpone_claims(claims, until, endpoint)

    def postpone(self, claims: Sequence[Claim], *, until: float) -> None:
        self._postpone_claims(claims, until, "")

    def _postpone_claims(self, claims: Sequence[Claim], until: float, endpoint: str) -> None:
        region = claims[0].region
        names = [
            redis_keys.due(region),
            redis_keys.running(region),
            redis_keys.pace_waiting(endpoint),
        ]
        args: list[object] = [f"{until:.6f}", int(bool(endpoint)), region]
        args += [_KEEP_WAITING_S, _TRIERS, _BY_THEMSELVES_S]
        for claim in claims:
            args += [claim.bucket, claim.fence, f"{claim.scheduled_at:.6f}"]
        self._postpone(names, args)

    def list_loads(self) -> list[EndpointLoad]:
        """Return the endpoints that were asked lately, by name."""

        def read(r: Any) -> tuple[list[str], list[str | None], float]:
            now = server_time(r)
            names = sorted(map(str, r.zrangebyscore(redis_keys.PACES, now - SHOWN_S, "+inf")))
            return names, r.mget([redis_keys.pace(name) for name in names]) if names else [], now

        names, texts, now = self._connection.run(read)
        return [_load(name, _parse(text), now) for name, text in zip(names, texts, strict=True)]


def _load(endpoint: str, health: EndpointHealth, now: float) -> EndpointLoad:
    state, per_s = state_of(health, now=now), allowed_per_s(health, now=now)
    return EndpointLoad(
        endpoint=endpoint,
        state=state,
        list_per_s=per_s if state == "slowed" else 0.0,
        wait_until=health.wait_until if health.is_dead else None,
        why=health.why if health.is_dead else "",
    )


def _format(health: EndpointHealth) -> tuple[str, str]:
    """Write JSON of what differs from a healthy endpoint, and ``failed_at``; '' for nothing.

    ``failed_at`` stands beside: hosts of the version before cannot read JSON that has it.
    """
    differing = {k: v for k, v in asdict(health).items() if v != getattr(HEALTHY, k)}
    failed_at = differing.pop("failed_at", "")
    return json.dumps(differing) if differing else "", str(failed_at)


def _parse(text: str | None, failed_at: str | None = None) -> EndpointHealth:
    """Read a pace; ignore members that a later version may write."""
    if not text:
        return HEALTHY
    written = {"failed_at": float(failed_at or 0), "buckets": ()} | json.loads(text)
    written["buckets"] = tuple(written["buckets"])
    return EndpointHealth(
        **{field.name: written[field.name] for field in fields(HEALTHY) if field.name in written}
    )
