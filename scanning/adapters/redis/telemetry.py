"""What happened lately in all processes: written by the scripts that do it, read for people.

    …:bw:minute:{minute}       hash   counter (`counters.py`) -> n; expires after 25 hours
    …:bw:events_of_day:{day}   hash   bucket -> notifications; expires after two days
    …:bw:history:{name}        list   JSON [at, duration, objects, changes, error class] of a scan

The commit (`state.py`) and the end of a scan (`leases.py`) count inside their own scripts, which do
nothing when they are repeated; so no process counts twice, and none is forgotten.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from scanning.adapters.redis.schedule import server_time
from scanning.core import redis_keys
from scanning.core.metrics import counters, histograms
from scanning.core.metrics.telemetry import LATE_S, RegionLoad, ScanRecord, Telemetry, TimeBucket

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from scanning.adapters.redis.connection import RedisConnection
    from scanning.config.settings import EngineSettings
    from scanning.core.types import ScanResult

SCANS_KEPT = 120  # of a bucket: two hours at the default polling interval
_KEPT = {
    "KEEP_MINUTES": "90000",
    "KEEP_DAYS": "172800",
    "KEEP_SCANS": str(SCANS_KEPT),
    "MINUTE": redis_keys.MINUTE_PREFIX,
    "DAY": redis_keys.DAY_PREFIX,
    "OURS": redis_keys.OURS,
}


def with_telemetry(script: str) -> str:
    """A Lua script with names and life times in place of the words in capitals."""
    for word, meaning in _KEPT.items():
        script = script.replace(word, meaning)
    return script


# ARGV: minutes in a moment, moments, gauge, counters.
# Returns the newest moments, oldest first: for each the last value of the gauge ('' without one)
# and the sum of each counter. Moments begin at whole multiples of their length.
_MOMENTS = with_telemetry("""
local span, number, gauge = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local names = {unpack(ARGV, 3)}
local newest = math.floor(redis.call('TIME')[1] / 60)
local first = (math.floor(newest / span) - number + 1) * span
local moments = {}
for start = first, newest, span do
  local sums = {''}
  for i = 2, #names do sums[i] = 0 end
  for minute = start, math.min(start + span - 1, newest) do
    local key = 'MINUTE' .. minute
    if redis.call('TYPE', key).ok == 'hash' then
      local found = redis.call('HMGET', key, unpack(names))
      sums[1] = found[1] or sums[1]
      for i = 2, #names do sums[i] = sums[i] + (tonumber(found[i] or 0) or 0) end
    end
  end
  moments[#moments + 1] = sums
end
return {first * 60, moments}
""")

# ARGV: seconds after which a bucket that waits is late.
# Returns {region, buckets, late, running} of each region. A bucket that is being scanned keeps its
# place in the due set.
_REGIONS = with_telemetry("""
local t = redis.call('TIME')
local now = t[1] + t[2] / 1000000
local before = now - tonumber(ARGV[1])
local loads = {}
for _, region in ipairs(redis.call('SMEMBERS', 'OURSregions')) do
  local due = 'OURSregion:' .. region .. ':due'
  local late = redis.call('ZCOUNT', due, '-inf', before)
  local running = redis.call('ZRANGEBYSCORE', 'OURSregion:' .. region .. ':run', now, '+inf')
  for _, name in ipairs(running) do
    local at = redis.call('ZSCORE', due, name)
    if at and tonumber(at) <= before then late = late - 1 end
  end
  loads[#loads + 1] = {region, redis.call('ZCARD', due), late, #running}
end
return loads
""")

# KEYS: due, run.  ARGV: seconds after which a bucket that waits is late.
# Returns how many of a region's buckets are in each of _SCHEDULED; the first that fits counts.
_STATES = with_telemetry("""
local t = redis.call('TIME')
local now = t[1] + t[2] / 1000000
local failing, held, late, waiting, watched = 0, 0, 0, 0, 0
local rows = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for i = 1, #rows, 2 do
  local name, due = rows[i], tonumber(rows[i + 1])
  local said = redis.call('HMGET', 'OURSbucket:' .. name, 'error_class', 'held_since', 'scan_at')
  if said[1] then failing = failing + 1
  elseif said[2] then held = held + 1
  elseif due <= now - tonumber(ARGV[1])
         and tonumber(redis.call('ZSCORE', KEYS[2], name) or 0) <= now then late = late + 1
  elseif not said[3] then waiting = waiting + 1
  else watched = watched + 1 end
end
return {failing, held, late, waiting, watched}
""")
_SCHEDULED = ("failing", "held", "late", "waiting", "watched")

# Returns how many active buckets are off the schedule because Redis forgot them.
_FORGOTTEN = with_telemetry("""
local number = 0
for _, name in ipairs(redis.call('HKEYS', 'OURSrevisions')) do
  if redis.call('HEXISTS', 'OURSbucket:' .. name, 'lost_since') == 1 then
    local ok, config = pcall(cjson.decode, redis.call('GET', 'CONFIG' .. name) or '')
    if ok and (config.status or 'active') == 'active' then number = number + 1 end
  end
end
return number
""").replace("CONFIG", redis_keys.CONFIG_PREFIX)

# KEYS: queue.  What is only shown stops no schedule: pcall.
_SAMPLE = with_telemetry("""
local minute = 'MINUTE' .. math.floor(redis.call('TIME')[1] / 60)
local length = redis.pcall('LLEN', KEYS[1])
if type(length) == 'number' then
  redis.pcall('HSET', minute, 'GAUGE', length)
  redis.pcall('EXPIRE', minute, KEEP_MINUTES)
end
return 1
""").replace("GAUGE", counters.QUEUE_LENGTH)

# Of a `Moment`: where its members come from.
_SUMMED = {
    **{str(kind): field for kind, field in counters.ANNOUNCED.items()},
    "objects": "total_objects_scanned",
    "list_calls": "list_calls",
    "scans": "total_scans",
    "failed": "failed_scans",
}
_LATENESS = counters.places(counters.LATENESS, histograms.LATENESS_S)
_LAG = counters.places(counters.LAG, histograms.LAG_S)


def history_entry(result: ScanResult) -> str:
    """One element of a bucket's history; "" for a pass that goes on."""
    if result.ok and not result.complete:
        return ""
    counts, objects = result.counts, result.listed or result.counts.objects
    duration_s = round(result.started_at + result.duration_s - result.began, 3)
    entry = [result.began, duration_s, objects, counts.changes, result.error_class]
    return json.dumps(entry, separators=(",", ":"))


class TelemetryStore:
    def __init__(self, connection: RedisConnection, conf: EngineSettings) -> None:
        self._connection = connection
        self._queue, self._slots = conf.redis.queue_name, conf.parallel.rate_limit_per_region
        self._moments = connection.script(_MOMENTS)
        self._regions = connection.script(_REGIONS)
        self._states = connection.script(_STATES)
        self._forgotten = connection.script(_FORGOTTEN)
        self._sample = connection.script(_SAMPLE)

    def sample_queue(self) -> None:
        """Note how long the queue is in this minute."""
        self._sample([self._queue], [])

    def read(self) -> Telemetry:
        """The state of the whole installation. Raises RedisUnavailable."""
        [(_, _, counts)] = self._sums(60, 1, [*_LATENESS, *_LAG])
        length, oldest, leader = self._connection.run(self._now)
        return Telemetry(
            last_hour=tuple(self._read_moments(1, 60)),
            last_day=tuple(self._read_moments(15, 96)),
            lateness=histograms.percentiles(counts[: len(_LATENESS)], histograms.LATENESS_S),
            lag=histograms.percentiles(counts[len(_LATENESS) :], histograms.LAG_S),
            queue_length=length,
            queue_oldest_s=oldest,
            leader=leader,
            regions=tuple(self._read_regions()),
        )

    def _read_moments(self, minutes: int, number: int) -> Iterator[TimeBucket]:
        for at, length, sums in self._sums(minutes, number, [*_SUMMED.values()]):
            counted = dict(zip(_SUMMED, sums, strict=True))
            yield TimeBucket(at, minutes * 60.0, queue_length=length, **counted)

    def _sums(
        self, minutes: int, number: int, fields: Sequence[str]
    ) -> Iterator[tuple[float, int | None, list[int]]]:
        """For each of the newest moments: when it began, the queue's length, the sums."""
        first, rows = self._moments([], [minutes, number, counters.QUEUE_LENGTH, *fields])
        for n, (length, *sums) in enumerate(rows):
            at = float(first) + n * minutes * 60.0
            yield at, int(length) if length else None, [int(value) for value in sums]

    def _now(self, r: Any) -> tuple[int, float | None, str]:
        """The queue's length, the age of its oldest notification, and who leads."""
        pipe = r.pipeline(transaction=False)
        pipe.llen(self._queue)
        pipe.lindex(self._queue, 0)
        pipe.get(redis_keys.LEADER)
        length, oldest, leader = pipe.execute()
        return int(length), _age_s(oldest, now=server_time(r)), str(leader or "")

    def _read_regions(self) -> list[RegionLoad]:
        rows = self._regions([], [LATE_S])
        loads = [
            RegionLoad(str(region), int(buckets), int(late), int(running), self._slots)
            for region, buckets, late, running in rows
        ]
        return sorted(loads, key=lambda load: load.region)

    def bucket_states(self) -> dict[str, int]:
        """How many buckets are in each state of ``buckets.selectors.State``, by its name.

        That class says the rule; a test there holds this form of it against the others.
        """

        def ask(r: Any) -> tuple[list[str], int]:
            pipe = r.pipeline(transaction=False)
            pipe.smembers(redis_keys.REGIONS)
            pipe.hlen(redis_keys.REVISIONS)
            regions, managed = pipe.execute()
            return sorted(regions), int(managed)

        regions, managed = self._connection.run(ask)
        # Region by region, so that commits wait for none of it for long.
        states = dict.fromkeys(_SCHEDULED, 0)
        for region in regions:
            counts = self._states([redis_keys.due(region), redis_keys.running(region)], [LATE_S])
            for state, number in zip(_SCHEDULED, counts, strict=True):
                states[state] += int(number)
        states["lost"] = int(self._forgotten([], []))
        return states | {"paused": max(0, managed - sum(states.values()))}

    def history(self, bucket: str) -> list[ScanRecord]:
        """A bucket's last scans, the oldest first."""
        texts = self._connection.run(lambda r: r.lrange(redis_keys.history(bucket), 0, -1))
        return [ScanRecord(*json.loads(text)) for text in texts]

    def events_today(self, buckets: Iterable[str]) -> dict[str, int]:
        """How many events of each bucket were announced since midnight UTC."""
        names = list(buckets)
        if not names:
            return {}

        def read(r: Any) -> list[str | None]:
            day = redis_keys.events_of_day(int(server_time(r) // 86400))
            found: list[str | None] = r.hmget(day, names)
            return found

        return {
            name: int(number or 0)
            for name, number in zip(names, self._connection.run(read), strict=True)
        }


def _age_s(notification: str | None, *, now: float) -> float | None:
    """How long ago a notification was put into the queue; None without one that says so."""
    try:
        return max(0.0, now - float(json.loads(notification or "")["detection_time"]))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
