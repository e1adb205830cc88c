"""How buckets stand: how their last scans ended, the schedule, the pass that is under way.

The end of a scan writes it into the bucket's hash, and notes the bucket in ``status_changes``
(`lua/finish_scan.lua`). Nobody takes a change away before its status is stored, nor then if the
status changed again meanwhile: whoever is killed on the way, or gets no answer, leaves it to the
next one.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from scanning.core import redis_keys, scan_warnings
from scanning.core.explain import LookedAt, ScheduleStatus
from scanning.core.metrics.telemetry import PassUnderWay
from scanning.core.types import BucketStatus, EventType, ScanCounts, ScanResult

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scanning.adapters.redis.connection import RedisConnection
    from scanning.core.types import BucketConfig


_OF_SCHEDULE = [
    *("error", "held_missing", "held_moved"),
    *("complete", "scan_at", "changed_at", "pass_due", "looked_at"),
]


class BucketStatusStore:
    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._changed = connection.load_script("changed_statuses")
        self._forget = connection.load_script("forget_statuses")

    def changed(self, limit: int = 1000) -> dict[str, str]:
        """Name up to ``limit`` buckets whose status has yet to be stored, with when it changed."""
        keys = [redis_keys.STATUS_CHANGES, redis_keys.CHANGED_STATUS]
        flat = self._changed(keys, {"limit": limit})
        return dict(zip(map(str, flat[::2]), map(str, flat[1::2]), strict=True))

    def read(self, names: Sequence[str]) -> list[BucketStatus]:
        """Tell how these buckets' last scans ended, in the order of ``names``."""
        return [_status(name, fields) for name, fields in self._hashes(names)]

    def last_results(self, names: Sequence[str]) -> list[ScanResult]:
        """Tell the last scan of each of these buckets, as far as it is remembered.

        ``started_at`` of one that failed is when it failed. Never scanned buckets are left out.
        """
        results = (_result(name, fields) for name, fields in self._hashes(names))
        return [result for result in results if result]

    def _hashes(self, names: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
        def read(r: Any) -> list[dict[str, str]]:
            pipe = r.pipeline(transaction=False)
            for name in names:
                pipe.hgetall(redis_keys.bucket(name))
            found: list[dict[str, str]] = pipe.execute()
            return found

        return list(zip(names, self._connection.run(read), strict=True))

    def schedule_status(
        self, bucket: BucketConfig, *, queue_name: str, now: float
    ) -> ScheduleStatus:
        """Tell in one round trip whether and when a bucket is scanned, and what is in its way."""

        def read(r: Any) -> list[Any]:
            pipe = r.pipeline(transaction=False)
            pipe.hexists(redis_keys.REVISIONS, bucket.name)
            pipe.sismember(redis_keys.CLEARING, bucket.name)
            pipe.zscore(redis_keys.running(bucket.region), bucket.name)
            pipe.zscore(redis_keys.due(bucket.region), bucket.name)
            pipe.hmget(redis_keys.bucket(bucket.name), _OF_SCHEDULE)
            pipe.llen(queue_name)
            answers: list[Any] = pipe.execute()
            return answers

        managed, clearing, lease, due_at, fields, queue_length = self._connection.run(read)
        error, held_missing, held_moved, complete, scan_at, changed_at, pass_due, looked_at = fields
        is_complete = complete == str(bucket.generation)  # else it was of another bucket
        last_pass_at = float(scan_at) if scan_at and is_complete else None
        return ScheduleStatus(
            is_managed=bool(managed),
            is_clearing=bool(clearing),
            is_running=lease is not None and lease > now,
            due_at=due_at,
            error=error or "",
            held_missing=int(held_missing or 0),
            held_moved=int(held_moved or 0),
            queue_length=queue_length,
            last_pass_at=last_pass_at,
            last_look=_looked_at(looked_at),
            pass_due=float(pass_due) if pass_due else None,
            quiet_s=last_pass_at - float(changed_at) if last_pass_at and changed_at else None,
        )

    def pass_under_way(self, bucket: str) -> PassUnderWay | None:
        """Tell how far the unfinished pass over a bucket has come; None without one."""
        text = self._connection.run(lambda r: r.hget(redis_keys.bucket(bucket), "progress"))
        if not text:
            return None
        progress: dict[str, Any] = json.loads(text)
        return PassUnderWay(began=float(progress["began"]), listed=int(progress["listed"]))

    def being_cleared(self) -> list[str]:
        """Name the removed buckets of which something is still in Redis."""
        return self._connection.run(lambda r: sorted(map(str, r.smembers(redis_keys.CLEARING))))

    def forget(self, stored: Mapping[str, str]) -> None:
        """Note that statuses read after ``changed`` are stored; what changed since is kept."""
        self._forget([redis_keys.STATUS_CHANGES], {"stored": dict(stored)})


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
        held_moved_since=number("held_moved_since"),
        held_moved=int(number("held_moved") or 0),
        next_scan_at=number("next_scan_at"),
        generation=int(number("generation") or 0),
        commit=int(number("commit") or 0),
        commit_at=number("commit_at"),
        lost_since=number("lost_since"),
        warnings=scan_warnings.from_json(fields.get("warnings")),
    )


def _looked_at(text: str | None) -> LookedAt | None:
    if not text:
        return None
    at, ranges = json.loads(text)
    return LookedAt(float(at), tuple((after, until) for after, until in ranges))


def _result(name: str, fields: dict[str, str]) -> ScanResult | None:
    if fields.get("error_at"):
        return ScanResult(
            bucket=name,
            started_at=float(fields["error_at"]),
            duration_s=0.0,
            counts=ScanCounts(),
            complete=False,
            error=fields.get("error", ""),
            error_class=fields.get("error_class", ""),
        )
    if not fields.get("scan_at"):
        return None
    began, objects = float(fields["scan_at"]), int(fields.get("objects") or 0)
    kinds = {str(kind): int(fields.get(kind) or 0) for kind in EventType}
    return ScanResult(
        bucket=name,
        started_at=began,
        duration_s=float(fields.get("duration_s") or 0.0),
        counts=ScanCounts(objects=objects, **kinds),
        began=began,
        listed=objects,
    )
