"""What happened lately in all processes: counted by the scripts that do it, read for people.

Keys: the hashes of minutes and days, and each bucket's history. The commit (`lua/commit.lua`) and
the end of a scan (`lua/finish_scan.lua`) count inside their own scripts, which do nothing when they
are repeated; so no process counts twice, and none is forgotten.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from scanning.adapters.redis.schedule import read_regions, server_time
from scanning.core import redis_keys
from scanning.core.metrics import counters, histograms
from scanning.core.metrics.telemetry import LATE_S, RegionLoad, ScanRecord, Telemetry, TimeBucket
from scanning.core.request_costs import DailyRequests, RequestKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from scanning.adapters.redis.connection import RedisConnection
    from scanning.config.settings import EngineSettings
    from scanning.core.request_costs import Requests
    from scanning.core.types import ScanResult

SCANS_KEPT = 120  # of a bucket: two hours at the default polling interval
_AT_ONCE = 1000


# What `lua/count_states.lua` returns.
_SCHEDULED = ("failing", "held", "late", "waiting", "watched")

# Of a `TimeBucket`: where its members come from.
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
    """Write one element of a bucket's history; "" for a pass that goes on."""
    if result.ok and not result.complete:
        return ""
    counts = result.counts
    objects = counts.objects if result.is_look else result.listed or counts.objects
    duration_s = round(result.started_at + result.duration_s - result.began, 3)
    entry = [result.began, duration_s, objects, counts.changes, result.error_class]
    return json.dumps(entry, separators=(",", ":"))


class TelemetryStore:
    def __init__(self, connection: RedisConnection, conf: EngineSettings) -> None:
        self._connection = connection
        self._queue, self._slots = conf.redis.queue_name, conf.parallel.rate_limit_per_region
        self._sum_minutes = connection.load_script("sum_minutes")
        self._region_loads = connection.load_script("region_loads")
        self._count_states = connection.load_script("count_states")
        self._count_lost = connection.load_script("count_lost")
        self._sample_queue = connection.load_script("sample_queue")

    def sample_queue(self) -> None:
        """Note how long the queue is in this minute."""
        now = self._connection.run(server_time)
        keys = [self._queue, redis_keys.minute(int(now // 60))]
        self._sample_queue(keys, {"gauge": counters.QUEUE_LENGTH})

    def read(self) -> Telemetry:
        """Read the state of the whole installation. Raises RedisUnavailable."""
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
        """Read each of the newest moments: when it began, the queue's length, the sums."""
        newest = int(self._connection.run(server_time) // 60)
        # Moments begin at whole multiples of their length.
        first = (newest // minutes - number + 1) * minutes
        keys = [redis_keys.minute(minute) for minute in range(first, newest + 1)]
        args = {"span": minutes, "gauge": counters.QUEUE_LENGTH, "counters": list(fields)}
        for n, (length, *sums) in enumerate(self._sum_minutes(keys, args)):
            at = (first + n * minutes) * 60.0
            yield at, int(length) if length else None, [int(value) for value in sums]

    def _now(self, r: Any) -> tuple[int, float | None, str]:
        """Read the queue's length, the age of its oldest notification, and who leads."""
        pipe = r.pipeline(transaction=False)
        pipe.llen(self._queue)
        pipe.lindex(self._queue, 0)
        pipe.get(redis_keys.LEADER)
        length, oldest, leader = pipe.execute()
        return int(length), _age_s(oldest, now=server_time(r)), str(leader or "")

    def _read_regions(self) -> list[RegionLoad]:
        regions = self._connection.run(read_regions)
        keys = [f(region) for region in regions for f in (redis_keys.due, redis_keys.running)]
        rows = self._region_loads(keys, {"late_s": LATE_S})
        return [
            RegionLoad(region, int(buckets), int(late), int(running), self._slots)
            for region, (buckets, late, running) in zip(regions, rows, strict=True)
        ]

    def bucket_states(self) -> dict[str, int]:
        """Count the buckets in each state of ``buckets.selectors.State``, by its name.

        That class says the rule; a test there holds this form of it against the others.
        """

        def read(r: Any) -> tuple[list[str], list[str]]:
            return read_regions(r), list(r.hkeys(redis_keys.REVISIONS))

        regions, managed = self._connection.run(read)
        states = dict.fromkeys(_SCHEDULED, 0)
        for region in regions:
            for state, number in zip(_SCHEDULED, self._count_states_of(region), strict=True):
                states[state] += number
        states["lost"] = 0
        for names in _batches(managed):
            keys = [f(name) for name in names for f in (redis_keys.bucket, redis_keys.config)]
            states["lost"] += int(self._count_lost(keys, {}))
        return states | {"paused": max(0, len(managed) - sum(states.values()))}

    def _count_states_of(self, region: str) -> list[int]:
        keys = [redis_keys.due(region), redis_keys.running(region)]
        scheduled: list[str] = self._connection.run(lambda r: r.zrange(keys[0], 0, -1))
        counts = [0] * len(_SCHEDULED)
        for names in _batches(scheduled):
            args = {"buckets": names, "late_s": LATE_S}
            found = self._count_states([*keys, *map(redis_keys.bucket, names)], args)
            counts = [count + int(number) for count, number in zip(counts, found, strict=True)]
        return counts

    def history(self, bucket: str) -> list[ScanRecord]:
        """Read a bucket's last passes and looks, the oldest first."""

        def read(r: Any) -> list[list[str]]:
            pipe = r.pipeline(transaction=False)
            pipe.lrange(redis_keys.history(bucket), 0, -1)
            pipe.lrange(redis_keys.look_history(bucket), 0, -1)
            lists: list[list[str]] = pipe.execute()
            return lists

        passes, looks = self._connection.run(read)
        records = [ScanRecord(*json.loads(text)) for text in passes]
        records += [replace(ScanRecord(*json.loads(text)), kind="look") for text in looks]
        return sorted(records, key=lambda record: record.at)

    def events_today(self, buckets: Iterable[str]) -> dict[str, int]:
        """Count the events of each bucket that were announced since midnight UTC."""
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

    def requests(self, buckets: Iterable[str]) -> dict[str, DailyRequests]:
        """Count what was sent for each bucket, up to a second ago."""
        return self._requests(buckets, redis_keys.requests_of_day)

    def endpoint_requests(self, endpoints: Iterable[str]) -> dict[str, DailyRequests]:
        """Count what was sent to each endpoint, up to a second ago."""
        return self._requests(endpoints, redis_keys.endpoint_requests_of_day)

    def all_requests_today(self) -> dict[str, Requests]:
        """Count what was sent to every endpoint since midnight UTC."""

        def read(r: Any) -> dict[str, str]:
            day = redis_keys.endpoint_requests_of_day(int(server_time(r) // 86400))
            return dict(r.hgetall(day))

        found: dict[str, dict[RequestKind, int]] = defaultdict(dict)
        for field, number in self._connection.run(read).items():
            kind, _, endpoint = field.partition(" ")
            if kind in set(RequestKind):
                found[endpoint][RequestKind(kind)] = int(number)
        return dict(found)

    def _requests(
        self, names: Iterable[str], key_of: Callable[[int], str]
    ) -> dict[str, DailyRequests]:
        asked = list(names)
        fields = [f"{kind} {name}" for name in asked for kind in RequestKind]

        def read(r: Any) -> list[list[str | None]]:
            today = int(server_time(r) // 86400)
            pipe = r.pipeline(transaction=False)
            pipe.hmget(key_of(today), fields)
            pipe.hmget(key_of(today - 1), fields)
            found: list[list[str | None]] = pipe.execute()
            return found

        rows = self._connection.run(read) if fields else [[], []]
        today, yesterday = (_by_name(asked, row) for row in rows)
        return {name: DailyRequests(today[name], yesterday[name]) for name in asked}

    def sent_today(self, bucket: str, endpoint: str) -> tuple[int, int]:
        """Implements `ports.RequestCounts`."""

        def read(r: Any) -> list[list[str | None]]:
            day = int(server_time(r) // 86400)
            pipe = r.pipeline(transaction=False)
            pipe.hmget(redis_keys.requests_of_day(day), [f"{k} {bucket}" for k in RequestKind])
            pipe.hmget(
                redis_keys.endpoint_requests_of_day(day), [f"{k} {endpoint}" for k in RequestKind]
            )
            found: list[list[str | None]] = pipe.execute()
            return found

        of_bucket, of_endpoint = self._connection.run(read)
        return sum(int(n or 0) for n in of_bucket), sum(int(n or 0) for n in of_endpoint)


def _by_name(names: Sequence[str], numbers: Sequence[str | None]) -> dict[str, Requests]:
    """Read the numbers of all kinds of requests of the first name, of the second one and so on."""
    rest = iter(numbers)
    rows = ((name, list(zip(RequestKind, rest, strict=False))) for name in names)
    return {name: {kind: int(number) for kind, number in row if number} for name, row in rows}


def _batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """Cut names into batches that make commits wait for none of them for long."""
    return (names[at : at + _AT_ONCE] for at in range(0, len(names), _AT_ONCE))


def _age_s(notification: str | None, *, now: float) -> float | None:
    """Compute how long ago a notification was queued; None without one that says so."""
    try:
        return max(0.0, now - float(json.loads(notification or "")["detection_time"]))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
