"""How each bucket's last scan ended, read from its hash; the end of a scan writes it (`leases.py`).

…:bw:bucket:{name}     hash   status of the last scan, among others
…:bw:changed_status    set    buckets whose status somebody has yet to read
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scanning.core import keys
from scanning.core.types import BucketStatus, EventType, ScanCounts, ScanResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scanning.adapters.redis_connection import RedisConnection


class RedisStatuses:
    """How the last scans ended, for whoever shows it; what has changed is remembered until read."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    def drain(self, most: int = 1000) -> list[BucketStatus]:
        """Up to ``most`` statuses that changed since the last drain; each is given once."""

        def take(r: Any) -> list[BucketStatus]:
            return _read(r, [str(name) for name in r.spop(keys.CHANGED_STATUS, most) or []])

        return self._connection.run(take)

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
                pipe.hgetall(keys.bucket(name))
            found: list[dict[str, str]] = pipe.execute()
            return found

        rows = zip(names, self._connection.run(read), strict=True)
        return [result for name, fields in rows if (result := _result(name, fields))]

    def give_back(self, names: list[str]) -> None:
        """Make ``names`` part of the next drain again: whoever took them could not keep them."""
        if names:
            self._connection.run(lambda r: r.sadd(keys.CHANGED_STATUS, *names))


def _read(r: Any, names: Sequence[str]) -> list[BucketStatus]:
    pipe = r.pipeline(transaction=False)
    for name in names:
        pipe.hgetall(keys.bucket(name))
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
        commit_at=number("commit_at"),
        lost_since=number("lost_since"),
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
