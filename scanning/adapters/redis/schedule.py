"""The schedule in Redis: which buckets are due when, by region (`leases.py` claims from it)."""

from __future__ import annotations

import math
from itertools import chain
from typing import TYPE_CHECKING, Any

from scanning.core import redis_keys
from scanning.core.metrics.telemetry import LATE_S, NextScan

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from scanning.adapters.redis.connection import RedisConnection, Script

_KEEP_ENDPOINTS_S = 300
_AT_ONCE = 500

# KEYS: leader.  ARGV: who, milliseconds.  Returns 1 if the caller leads now.
_LEAD = """
local leader = redis.call('GET', KEYS[1])
-- A lease that lasts longer than any is from before the clock went back.
local holds = leader and redis.call('PTTL', KEYS[1]) <= 2 * tonumber(ARGV[2])
if holds and leader ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

# KEYS: leader.  ARGV: who.
_STEP_DOWN = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"""


# KEYS: regions, revisions.  ARGV: rows of four: 'due' region bucket time, 'gone' region bucket '',
# 'offset' '' bucket seconds, 'region' region '' ''.  Regions that are not named any more leave.
_WRITE = """
local wanted = {}
for i = 1, #ARGV, 4 do
  local what, region, name, number = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if what == 'region' then
    wanted[region] = true
    redis.call('SADD', KEYS[1], region)
  elseif what == 'gone' then
    redis.call('ZREM', 'OURSregion:' .. region .. ':due', name)
  elseif redis.call('HEXISTS', KEYS[2], name) == 1 then
    if what == 'due' and redis.call('HEXISTS', 'BUCKETS' .. name, 'lost_since') == 0 then
      redis.call('ZADD', 'OURSregion:' .. region .. ':due', number, name)
    elseif what == 'offset' then
      redis.call('HSET', 'BUCKETS' .. name, 'offset', number)
    end
  end
end
for _, region in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  if not wanted[region] then redis.call('SREM', KEYS[1], region) end
end
return 1
""".replace("OURS", redis_keys.OURS).replace("BUCKETS", redis_keys.BUCKET_PREFIX)


# A bucket that is not scheduled stays so.
_DUE_NOW = """
local now = redis.call('TIME')[1]
local function due_now(hash, due, bucket)
  if redis.call('ZSCORE', due, bucket) then
    redis.call('ZADD', due, now, bucket)
    -- A scan that is running began too early.
    redis.call('HSET', hash, 'again', '1')
  end
end
"""

# KEYS: bucket hash, due, for each bucket.  ARGV: the buckets.
_ALL_DUE_NOW = (
    _DUE_NOW
    + """
for i, bucket in ipairs(ARGV) do due_now(KEYS[2 * i - 1], KEYS[2 * i], bucket) end
return 1
"""
)

# The same, for those that hold deletions.
_RELEASE_HOLDS = (
    _DUE_NOW
    + """
for i, bucket in ipairs(ARGV) do
  local hash = KEYS[2 * i - 1]
  if redis.call('HGET', hash, 'held_since') then
    redis.call('HSET', hash, 'released', redis.call('HGET', hash, 'held_missing') or '1')
    due_now(hash, KEYS[2 * i], bucket)
  end
end
return 1
"""
)


class ScheduleStore:
    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._lead = connection.script(_LEAD)
        self._step_down = connection.script(_STEP_DOWN)
        self._release_holds = connection.script(_RELEASE_HOLDS)
        self._all_due_now = connection.script(_ALL_DUE_NOW)
        self._write = connection.script(_WRITE)

    def lead(self, who: str, *, lease_s: float) -> bool:
        """Take or keep the leader lease."""
        args = [who, int(lease_s * 1000)]
        return bool(self._lead([redis_keys.LEADER], args))

    def step_down(self, who: str) -> None:
        self._step_down([redis_keys.LEADER], [who])

    def now(self) -> float:
        """The time that the schedule goes by: Redis's. This host's may be another one."""
        return self._connection.run(server_time)

    def last_scans(self, buckets: Iterable[str]) -> dict[str, float]:
        """When each bucket's last complete scan began; buckets never scanned are left out."""
        names = list(buckets)
        if not names:
            return {}
        texts = self._connection.run(
            lambda r: r.mget([redis_keys.last_scan(name) for name in names])
        )
        times = {name: epoch_s(text) for name, text in zip(names, texts, strict=True)}
        return {name: at for name, at in times.items() if at is not None}

    def regions(self) -> set[str]:
        """The regions that have active buckets, or had them when the schedule was last written."""
        return {
            str(region) for region in self._connection.run(lambda r: r.smembers(redis_keys.REGIONS))
        }

    def due_times(self, regions: Iterable[str]) -> dict[str, dict[str, float]]:
        """When each bucket is due, by region and bucket."""
        asked = sorted(regions)

        def read(r: Any) -> dict[str, dict[str, float]]:
            pipe = r.pipeline(transaction=False)
            for region in asked:
                pipe.zrange(redis_keys.due(region), 0, -1, withscores=True)
            return {
                region: {str(name): float(at) for name, at in rows}
                for region, rows in zip(asked, pipe.execute(), strict=True)
            }

        return self._connection.run(read)

    def due_counts(self, regions: Iterable[str], *, within_s: float = 0.0) -> dict[str, int]:
        """How many buckets of each region are due and not being scanned, by the server's clock.

        Those that will be due ``within_s`` count too.
        """
        asked = sorted(regions)

        def read(r: Any) -> dict[str, int]:
            now = server_time(r)
            pipe = r.pipeline(transaction=False)
            for region in asked:
                pipe.zrangebyscore(redis_keys.due(region), "-inf", now + within_s)
                # Only a claim takes expired leases away, and it needs a wake-up: look past them.
                pipe.zrangebyscore(redis_keys.running(region), now, "+inf")
            answers = pipe.execute()
            return {
                region: len(set(answers[2 * i]) - set(answers[2 * i + 1]))
                for i, region in enumerate(asked)
            }

        return self._connection.run(read)

    def put_off(self, buckets: Iterable[str]) -> set[str]:
        """Those of ``buckets`` that wait because they failed, or because their endpoint did."""
        names = list(buckets)

        def read(r: Any) -> set[str]:
            pipe = r.pipeline(transaction=False)
            for name in names:
                pipe.hmget(redis_keys.bucket(name), "failures", "parked")
            return {n for n, marks in zip(names, pipe.execute(), strict=True) if any(marks)}

        return self._connection.run(read) if names else set()

    def next_scans(self, buckets: Mapping[str, str]) -> dict[str, NextScan]:
        """When each bucket is due, and whether it is being scanned; ``buckets``: name -> region."""
        rows = list(buckets.items())

        def read(r: Any) -> dict[str, NextScan]:
            now = server_time(r)
            pipe = r.pipeline(transaction=False)
            for name, region in rows:
                pipe.zscore(redis_keys.due(region), name)
                pipe.zscore(redis_keys.running(region), name)
            answers = pipe.execute()
            return {
                name: NextScan(due, running=(lease or 0.0) > now)
                for (name, _), due, lease in zip(rows, answers[::2], answers[1::2], strict=True)
            }

        return self._connection.run(read)

    def late(self) -> frozenset[str]:
        """The buckets of all regions that are due for ``LATE_S`` and not being scanned."""

        def read(r: Any) -> frozenset[str]:
            now, regions = server_time(r), sorted(r.smembers(redis_keys.REGIONS))
            pipe = r.pipeline(transaction=False)
            for region in regions:
                pipe.zrangebyscore(redis_keys.due(region), "-inf", now - LATE_S)
                pipe.zrangebyscore(redis_keys.running(region), now, "+inf")
            answers = pipe.execute()
            due, running = answers[::2], answers[1::2]
            return frozenset(map(str, chain(*due))) - frozenset(map(str, chain(*running)))

        return self._connection.run(read)

    def write(
        self,
        *,
        added: Mapping[str, Mapping[str, float]],
        removed: Mapping[str, Iterable[str]],
        offsets: Mapping[str, float],
        regions: Iterable[str],
    ) -> None:
        """Change due times (by region, then bucket), remember stagger offsets and the regions.

        A bucket that was removed from the configuration meanwhile is left alone.
        """
        rows = [
            *(["due", r, n, f"{at:.6f}"] for r, times in added.items() for n, at in times.items()),
            *(["gone", r, n, ""] for r, names in removed.items() for n in names),
            *(["offset", "", n, f"{offset:.6f}"] for n, offset in offsets.items()),
            *(["region", r, "", ""] for r in regions),
        ]
        self._write(
            [redis_keys.REGIONS, redis_keys.REVISIONS], [field for row in rows for field in row]
        )

    def write_endpoints(self, by_region: Mapping[str, Iterable[str]]) -> None:
        """Note the endpoints of regions that have several; said again before they expire."""

        def write(r: Any) -> None:
            pipe = r.pipeline()
            for region, endpoints in by_region.items():
                pipe.delete(redis_keys.endpoints(region))
                pipe.sadd(redis_keys.endpoints(region), *endpoints)
                pipe.expire(redis_keys.endpoints(region), _KEEP_ENDPOINTS_S)
            pipe.execute()

        if by_region:
            self._connection.run(write)

    def endpoints(self, region: str) -> set[str]:
        """The region's endpoints, if it has several."""
        found = self._connection.run(lambda r: r.smembers(redis_keys.endpoints(region)))
        return {str(endpoint) for endpoint in found}

    def release_holds(self, buckets: Mapping[str, str]) -> None:
        """Let the next scans make deletions of what is held, and have them due now.

        ``buckets``: name -> region. Nothing happens to those that hold no deletions.
        """
        _for_each(self._release_holds, buckets)

    def due_now(self, buckets: Mapping[str, str]) -> None:
        """Have those of ``buckets`` (name -> region) that are scheduled scanned now.

        One that is being scanned is scanned once more.
        """
        _for_each(self._all_due_now, buckets)

    def due_at(self, bucket: str, region: str, *, at: float) -> None:
        """Move a bucket's next scan; a bucket that is not scheduled stays so."""
        self._connection.run(lambda r: r.zadd(redis_keys.due(region), {bucket: at}, xx=True))


def _for_each(script: Script, buckets: Mapping[str, str]) -> None:
    rows = list(buckets.items())
    for at in range(0, len(rows), _AT_ONCE):
        part = rows[at : at + _AT_ONCE]
        names = [
            key
            for name, region in part
            for key in (redis_keys.bucket(name), redis_keys.due(region))
        ]
        script(names, [name for name, _ in part])


def server_time(r: Any) -> float:
    """Redis's own clock, which leases and claims go by."""
    seconds, micros = r.time()
    return float(seconds) + float(micros) / 1e6


def epoch_s(text: str | bytes | None) -> float | None:
    """A documented key that other programs write too: what is no time counts as not there."""
    try:
        at = float(text or "")
    except ValueError:
        return None
    return at if math.isfinite(at) else None
