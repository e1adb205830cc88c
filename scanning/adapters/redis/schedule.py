"""The schedule in Redis: which buckets are due when, by region (`leases.py` claims from it)."""

from __future__ import annotations

import math
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from scanning.core import redis_keys
from scanning.core.holds import Release
from scanning.core.metrics.telemetry import LATE_S, NextScan
from scanning.core.types import MOST_HINTED_KEYS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from scanning.adapters.redis.connection import RedisConnection, Script

_KEEP_ENDPOINTS_S = 300
_AT_ONCE = 500
# One more than a look takes shows that they are too many, and a look that is under way has as many.
_MOST_LOOK_KEYS = 2 * (MOST_HINTED_KEYS + 1)


class ScheduleStore:
    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._lead = connection.load_script("lead")
        self._step_down = connection.load_script("step_down")
        self._release_holds = connection.load_script("release_holds")
        self._make_due = connection.load_script("make_due")
        self._request_look = connection.load_script("request_look")
        self._write = connection.load_script("write_schedule")

    def lead(self, who: str, *, lease_s: float) -> bool:
        """Take or keep the leader lease."""
        args = {"who": who, "milliseconds": int(lease_s * 1000)}
        return bool(self._lead([redis_keys.LEADER], args))

    def step_down(self, who: str) -> None:
        self._step_down([redis_keys.LEADER], {"who": who})

    def now(self) -> float:
        """Read the time that the schedule goes by: Redis's. This host's may be another one."""
        return self._connection.run(server_time)

    def last_scans(self, buckets: Iterable[str]) -> dict[str, float]:
        """Read when each bucket's last complete scan began; none for buckets never scanned."""
        names = list(buckets)
        if not names:
            return {}
        texts = self._connection.run(
            lambda r: r.mget([redis_keys.last_scan(name) for name in names])
        )
        times = {name: epoch_s(text) for name, text in zip(names, texts, strict=True)}
        return {name: at for name, at in times.items() if at is not None}

    def quiet_times(self, buckets: Iterable[str]) -> dict[str, float]:
        """Read for how long nothing had changed in each bucket when its last pass began.

        Buckets of which that is not known are left out.
        """
        names = list(buckets)

        def read(r: Any) -> list[list[str | None]]:
            pipe = r.pipeline(transaction=False)
            for name in names:
                pipe.hmget(redis_keys.bucket(name), "scan_at", "changed_at")
            found: list[list[str | None]] = pipe.execute()
            return found

        rows = self._connection.run(read) if names else []
        return {
            name: float(began) - float(changed_at)
            for name, (began, changed_at) in zip(names, rows, strict=True)
            if began and changed_at
        }

    def regions(self) -> set[str]:
        """List the regions that have active buckets, or had them at the schedule's last write."""
        return set(self._connection.run(read_regions))

    def due_times(self, regions: Iterable[str]) -> dict[str, dict[str, float]]:
        """Read when each bucket is due, by region and bucket."""
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
        """Count each region's buckets that are due and not being scanned, by the server's clock.

        Buckets that will be due ``within_s`` count too.
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

    def postponed(self, buckets: Iterable[str]) -> set[str]:
        """Name the ``buckets`` that wait because they or their endpoint failed, or for a budget."""
        names = list(buckets)

        def read(r: Any) -> set[str]:
            now = server_time(r)
            pipe = r.pipeline(transaction=False)
            for name in names:
                pipe.hmget(redis_keys.bucket(name), "failures", "parked")
                pipe.zscore(redis_keys.STRETCHED, name)
            answers = pipe.execute()
            rows = zip(names, answers[::2], answers[1::2], strict=True)
            return {name for name, marks, until in rows if any(marks) or (until or 0.0) > now}

        return self._connection.run(read) if names else set()

    def stretched(self) -> dict[str, float]:
        """Read the buckets whose passes wait for their budgets, and until when each does."""

        def read(r: Any) -> dict[str, float]:
            rows = r.zrangebyscore(redis_keys.STRETCHED, server_time(r), "+inf", withscores=True)
            return {str(name): float(at) for name, at in rows}

        return self._connection.run(read)

    def unstretch(self, buckets: Iterable[str]) -> None:
        """Have passes of these buckets wait for no budget: the schedule brings them forward."""
        names = list(buckets)
        if names:
            self._connection.run(lambda r: r.zrem(redis_keys.STRETCHED, *names))

    def next_scans(self, buckets: Mapping[str, str]) -> dict[str, NextScan]:
        """Read when each bucket of ``buckets`` (name -> region) is due, and whether a scan runs."""
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
        """Find the buckets of all regions that are due for ``LATE_S`` and not being scanned."""

        def read(r: Any) -> frozenset[str]:
            now, regions = server_time(r), read_regions(r)
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
        due_regions = sorted({*added, *removed})
        buckets = sorted({*offsets, *chain.from_iterable(added.values())})
        keys = [
            redis_keys.REGIONS,
            redis_keys.REVISIONS,
            *map(redis_keys.due, due_regions),
            *map(redis_keys.bucket, buckets),
        ]
        args = {
            "due_regions": due_regions,
            "buckets": buckets,
            "regions": list(regions),
            "added": {region: _texts(times) for region, times in added.items()},
            "removed": {region: list(names) for region, names in removed.items()},
            "offsets": _texts(offsets),
        }
        self._write(keys, args)

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
        """Name the region's endpoints, if it has several."""
        found = self._connection.run(lambda r: r.smembers(redis_keys.endpoints(region)))
        return {str(endpoint) for endpoint in found}

    def release_holds(
        self, buckets: Mapping[str, str], choice: Release = Release.ANNOUNCE_DELETIONS
    ) -> None:
        """Let the next scans do with what is held as somebody chose, and have them due now.

        ``buckets``: name -> region. Nothing happens to those that hold nothing of that kind.
        """
        _for_each(self._release_holds, buckets, choice=str(choice))

    def make_due(self, buckets: Mapping[str, str]) -> None:
        """Have those of ``buckets`` (name -> region) that are scheduled scanned now.

        One that is being scanned is scanned once more.
        """
        _for_each(self._make_due, buckets)

    def request_looks(
        self,
        buckets: Mapping[str, str],
        *,
        keys: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ) -> set[str]:
        """Have buckets (name -> region) looked at now; name those that are scheduled.

        ``keys``, by bucket, are looked at whatever else is. A bucket that is being scanned is
        looked at afterwards, and nothing happens to one whose pass is due by now.
        """
        scheduled: set[str] = set()
        rows = list(buckets.items())
        for at in range(0, len(rows), _AT_ONCE):
            part = rows[at : at + _AT_ONCE]
            names = [
                key
                for name, region in part
                for key in (
                    redis_keys.bucket(name),
                    redis_keys.due(region),
                    redis_keys.running(region),
                )
            ]
            args = {
                "buckets": [name for name, _ in part],
                "keys": {name: list(dict.fromkeys(keys.get(name, ()))) for name, _ in part},
                "most_keys": _MOST_LOOK_KEYS,
            }
            scheduled.update(map(str, self._request_look(names, args)))
        return scheduled

    def postpone(self, bucket: str, region: str, *, until: float) -> None:
        """Move a bucket's next scan; a bucket that is not scheduled stays so."""
        self._connection.run(lambda r: r.zadd(redis_keys.due(region), {bucket: until}, xx=True))


def _for_each(script: Script, buckets: Mapping[str, str], **args: str) -> None:
    rows = list(buckets.items())
    for at in range(0, len(rows), _AT_ONCE):
        part = rows[at : at + _AT_ONCE]
        names = [
            key
            for name, region in part
            for key in (redis_keys.bucket(name), redis_keys.due(region))
        ]
        script(names, {"buckets": [name for name, _ in part], **args})


def _texts(numbers: Mapping[str, float]) -> dict[str, str]:
    return {name: f"{number:.6f}" for name, number in numbers.items()}


def read_regions(r: Any) -> list[str]:
    """Read the regions' names, for whoever needs the keys of each."""
    return sorted(map(str, r.smembers(redis_keys.REGIONS)))


def server_time(r: Any) -> float:
    """Read Redis's own clock, which leases and claims go by."""
    seconds, micros = r.time()
    return float(seconds) + float(micros) / 1e6


def epoch_s(text: str | bytes | None) -> float | None:
    """Read a documented key that other programs write too: what is no time counts as not there."""
    try:
        at = float(text or "")
    except ValueError:
        return None
    return at if math.isfinite(at) else None
