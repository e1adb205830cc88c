"""How each bucket's last scan ended, read from its hash; the end of a scan writes it (`leases.py`).

…:bw:bucket:{name}     hash         status of the last scan, among others
…:bw:status_changes    sorted set   bucket whose status is yet to be stored -> when it changed
…:bw:changed_status    set          the same, as hosts of an earlier version write it

Nobody takes a change away before its status is stored, nor then if the status changed again
meanwhile: whoever is killed on the way, or gets no answer, leaves it to the next one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scanning.core import redis_keys, scan_warnings
from scanning.core.types import BucketStatus, EventType, ScanCounts, ScanResult

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scanning.adapters.redis.connection import RedisConnection

# KEYS: status_changes, changed_status.  ARGV: most.  Returns bucket, time of change, …, the oldest
# first.  What hosts of an earlier version noted counts as changed now.
_CHANGED = """
local now = redis.call('TIME')
now = now[1] .. '.' .. string.format('%06d', now[2])
for _, bucket in ipairs(redis.call('SPOP', KEYS[2], ARGV[1])) do
  redis.call('ZADD', KEYS[1], now, bucket)
end
return redis.call('ZRANGE', KEYS[1], 0, ARGV[1] - 1, 'WITHSCORES')
"""

# KEYS: status_changes.  ARGV: bucket, time of change, ….  What has another time now stays.
_FORGET = """
for i = 1, #ARGV, 2 do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) == ARGV[i + 1] then
    redis.call('ZREM', KEYS[1], ARGV[i])
  end
end
return 1
"""


class BucketStatusStore:
    """How the last scans ended, for whoever shows it; changes are remembered until stored."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._changed = connection.script(_CHANGED)
        self._forget = connection.script(_FORGET)

    def changed(self, most: int = 1000) -> dict[str, str]:
        """Up to ``most`` buckets whose status has yet to be stored, with when it changed."""
        flat = self._changed([redis_keys.STATUS_CHANGES, redis_keys.CHANGED_STATUS], [most])
        return dict(zip(map(str, flat[::2]), map(str, flat[1::2]), strict=True))

    def read(self, names: Sequence[str]) -> list[BucketStatus]:
        """How these buckets' last scans ended, in the order of ``names``."""
        return self._connection.run(lambda r: _read(r, names))

    def last_results(self, names: Sequence[str]) -> list[ScanResult]:
        """The last scan of each of these buckets, as far as it is remembered.

        ``started_at`` of one that failed is when it failed. Never scanned buckets are left out.
        """

        def read(r: Any) -> list[dict[str, str]]:
            pipe = r.pipeline(transaction=False)
            for name in names:
                pipe.hgetall(redis_keys.bucket(name))
            found: list[dict[str, str]] = pipe.execute()
            return found

        rows = zip(names, self._connection.run(read), strict=True)
        return [result for name, fields in rows if (result := _result(name, fields))]

    def forget(self, stored: Mapping[str, str]) -> None:
        """Note that statuses read after ``changed`` are stored; what changed since is kept."""
        self._forget(
            [redis_keys.STATUS_CHANGES], [text for pair in stored.items() for text in pair]
        )


def _read(r: Any, names: Sequence[str]) -> list[BucketStatus]:
    pipe = r.pipeline(transaction=False)
    for name in names:
        pipe.hgetall(redis_keys.bucket(name))
    return [_status(name, fields) for name, fields in zip(names, pipe.execute(), strict=True)]


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
        next_scan_at=number("next_scan_at"),
        generation=int(number("generation") or 0),
        commit=int(number("commit") or 0),
        commit_at=number("commit_at"),
        lost_since=number("lost_since"),
        warnings=scan_warnings.from_json(fields.get("warnings")),
    )


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
