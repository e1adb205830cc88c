"""Counters of all processes, in one Redis hash, and the documented `/metrics` object from them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from scanning.core import redis_keys
from scanning.identity import this_process

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scanning.adapters.redis.connection import RedisConnection
    from scanning.config.settings import EngineSettings

_COUNTERS = (
    "total_scans",
    "failed_scans",
    "total_objects_scanned",
    "total_new_objects",
    "total_updated_objects",
    "total_detected_objects",
    "total_deleted_objects",
    "errors",
    "list_calls",
    "segments_unchanged",
    "segments_compared",
    "wakeups",
)
_OF_CLIENTS = ("cache_hits", "cache_misses", "evictions", "unrecognised_bodies")
# A process that has reported nothing for so long is gone, and its S3 clients with it.
_PROCESS_GONE_S = 120.0


class ClientCacheReport:
    """Adds one process's S3 client cache to the shared counters; call it now and then."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._reported = dict.fromkeys(_OF_CLIENTS, 0)
        self._process = this_process()

    def send(self, cache: Mapping[str, int], *, vault_age_s: float | None = None) -> None:
        """Add to the sums; ``vault_age_s``: since the last read of the vault, if any."""
        new = {name: cache[name] - before for name, before in self._reported.items()}
        now = time.time()
        vault = "" if vault_age_s is None else f"{now - vault_age_s:.0f}"

        def write(r: Any) -> None:
            # Worker processes are replaced now and then, for years.
            gone = [
                p
                for p, report in r.hgetall(redis_keys.CLIENTS).items()
                if not _lives(report, now=now)
            ]
            pipe = r.pipeline()
            for name, number in new.items():
                pipe.hincrby(redis_keys.STATS, name, number)
            if gone:
                pipe.hdel(redis_keys.CLIENTS, *gone)
            pipe.hset(
                redis_keys.CLIENTS, self._process, f"{cache['total_clients']}:{now:.0f}:{vault}"
            )
            pipe.execute()

        self._connection.run(write)
        self._reported = {name: cache[name] for name in self._reported}


def read(connection: RedisConnection, conf: EngineSettings) -> dict[str, Any]:
    """Read the five documented sections. Raises RedisUnavailable."""
    queue_name, high_water = conf.redis.queue_name, conf.queue.high_water

    def ask(r: Any) -> tuple[Any, ...]:
        pipe = r.pipeline(transaction=False)
        pipe.hgetall(redis_keys.STATS)
        pipe.hgetall(redis_keys.CLIENTS)
        pipe.llen(queue_name)
        pipe.hkeys(redis_keys.REVISIONS)
        stats, clients, queue_length, buckets = pipe.execute()
        times = r.mget([redis_keys.last_scan(name) for name in buckets]) if buckets else []
        return stats, clients, queue_length, len(buckets), len(times) - times.count(None)

    stats, clients, queue_length, total, scanned = connection.run(ask)
    return {
        "scan_stats": _scan_stats(stats),
        "client_cache": {
            **{name: int(stats.get(name, 0)) for name in _OF_CLIENTS},
            **_of_processes(clients.values(), now=time.time()),
        },
        "redis": {
            "queue_length": queue_length,
            "queue_name": queue_name,
            "queue_high_water": high_water,
            "queue_full": queue_length >= high_water,
        },
        "sentinel": connection.sentinel_view(),
        "buckets": {"total": total, "scanned": scanned},
    }


def counted(connection: RedisConnection) -> dict[str, int]:
    """Read every counter (`core/metrics/counters.py`) since ever. Raises RedisUnavailable."""
    stored = connection.run(lambda r: r.hgetall(redis_keys.STATS))
    return {field: int(number) for field, number in stored.items() if field != "last_scan_time"}


def _scan_stats(stored: Mapping[str, str]) -> dict[str, Any]:
    numbers: dict[str, Any] = {name: int(stored.get(name, 0)) for name in _COUNTERS}
    at = stored.get("last_scan_time")
    total = numbers["total_scans"]
    numbers["last_scan_time"] = float(at) if at else None
    numbers["success_rate"] = (total - numbers["failed_scans"]) / total if total else 1.0
    return numbers


def _of_processes(reports: Any, *, now: float) -> dict[str, Any]:
    """Count living processes' S3 clients, and find the age of their oldest vault snapshot."""
    living = [text.split(":") for text in reports if _lives(text, now=now)]
    vault_read_at = [float(parts[2]) for parts in living if len(parts) > 2 and parts[2]]
    return {
        "total_clients": sum(int(parts[0]) for parts in living),
        "vault_snapshot_age_s": max(0.0, now - min(vault_read_at)) if vault_read_at else None,
    }


def _lives(report: str, *, now: float) -> bool:
    return now - float(report.split(":")[1]) < _PROCESS_GONE_S
