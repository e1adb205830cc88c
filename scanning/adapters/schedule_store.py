"""The schedule in Redis: which buckets are due when, by region (`leases.py` claims from it)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scanning.core import keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from scanning.adapters.redis_connection import RedisConnection

# KEYS: leader.  ARGV: who, milliseconds.  Returns 1 if the caller leads now.
_LEAD = """
local leader = redis.call('GET', KEYS[1])
if leader and leader ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

# KEYS: leader.  ARGV: who.
_STEP_DOWN = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"""


class ScheduleStore:
    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._lead = connection.script(_LEAD)
        self._step_down = connection.script(_STEP_DOWN)

    def lead(self, who: str, *, lease_s: float) -> bool:
        """Take or keep the leader lease."""
        args = [who, int(lease_s * 1000)]
        return bool(self._lead([keys.LEADER], args))

    def step_down(self, who: str) -> None:
        self._step_down([keys.LEADER], [who])

    def last_scans(self, buckets: Iterable[str]) -> dict[str, float]:
        """When each bucket's last complete scan began; buckets never scanned are left out."""
        names = list(buckets)
        if not names:
            return {}
        texts = self._connection.run(lambda r: r.mget([keys.last_scan(name) for name in names]))
        return {n: float(text) for n, text in zip(names, texts, strict=True) if text is not None}

    def regions(self) -> set[str]:
        """The regions that have active buckets, or had them when the schedule was last written."""
        return {str(region) for region in self._connection.run(lambda r: r.smembers(keys.REGIONS))}

    def due_times(self, regions: Iterable[str]) -> dict[str, dict[str, float]]:
        """When each bucket is due, by region and bucket."""
        asked = sorted(regions)

        def read(r: Any) -> dict[str, dict[str, float]]:
            pipe = r.pipeline(transaction=False)
            for region in asked:
                pipe.zrange(keys.due(region), 0, -1, withscores=True)
            return {
                region: {str(name): float(at) for name, at in rows}
                for region, rows in zip(asked, pipe.execute(), strict=True)
            }

        return self._connection.run(read)

    def due_counts(self, regions: Iterable[str], *, now: float) -> dict[str, int]:
        """How many buckets of each region are due and not being scanned; one round trip."""
        asked = sorted(regions)

        def read(r: Any) -> dict[str, int]:
            pipe = r.pipeline(transaction=False)
            for region in asked:
                pipe.zrangebyscore(keys.due(region), "-inf", now)
                pipe.zrange(keys.running(region), 0, -1)
            answers = pipe.execute()
            return {
                region: len(set(answers[2 * i]) - set(answers[2 * i + 1]))
                for i, region in enumerate(asked)
            }

        return self._connection.run(read)

    def write(
        self,
        *,
        added: Mapping[str, Mapping[str, float]],
        removed: Mapping[str, Iterable[str]],
        offsets: Mapping[str, float],
        regions: Iterable[str],
    ) -> None:
        """Change due times (by region, then bucket), remember stagger offsets and the regions."""
        wanted = set(regions)

        def change(r: Any) -> None:
            gone = {str(region) for region in r.smembers(keys.REGIONS)} - wanted
            pipe = r.pipeline()
            for region, due in added.items():
                pipe.zadd(keys.due(region), dict(due))
            for region, names in removed.items():
                pipe.zrem(keys.due(region), *names)
            for name, offset in offsets.items():
                pipe.hset(keys.bucket(name), "offset", f"{offset:.6f}")
            if wanted:
                pipe.sadd(keys.REGIONS, *wanted)
            if gone:
                pipe.srem(keys.REGIONS, *gone)
            pipe.execute()

        self._connection.run(change)

    def due_now(self, bucket: str, region: str, *, now: float) -> None:
        """Ask for a scan as soon as a slot is free; a bucket that is not scheduled stays so."""
        self._connection.run(lambda r: r.zadd(keys.due(region), {bucket: now}, xx=True))
