"""Who scans what: the sets of due and of running buckets of each region, and the bucket hashes.

The running set is the region's slots and the bucket locks in one, so that they cannot disagree.
The fence of a claim is larger than any before it, also after a failover that forgot some claims,
because it follows the server's clock. Every commit checks it (`state.py`).
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from scanning.adapters.redis.schedule import server_time
from scanning.adapters.redis.telemetry import SCANS_KEPT, history_entry
from scanning.core import redis_keys, scan_warnings
from scanning.core.metrics import counters
from scanning.core.texts import MOST_MESSAGE, clean
from scanning.core.types import Claim, EventType

if TYPE_CHECKING:
    from scanning.adapters.redis.connection import RedisConnection
    from scanning.core.types import BucketConfig, ScanResult

logger = logging.getLogger(__name__)

LEASE_S = 15.0


class RedisLeases:
    """Implements `ports.Leases`."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._find_due = connection.load_script("find_due")
        self._claim_due = connection.load_script("claim_due")
        self._claim_bucket = connection.load_script("claim_bucket")
        self._renew = connection.load_script("renew_lease")
        self._release = connection.load_script("release_claim")
        self._finish = connection.load_script("finish_scan")

    def claim_due(self, region: str, *, limit: int, slots: int) -> list[Claim]:
        keys = [
            redis_keys.due(region),
            redis_keys.running(region),
            redis_keys.CLEARING,
            redis_keys.TRUSTED,
        ]
        claims: list[Claim] = []
        while True:
            find = {"limit": limit - len(claims), "slots": slots, "lease_s": LEASE_S}
            if not (found := self._find_due(keys, find)):
                return claims
            take = {"buckets": found, "slots": slots, "lease_s": LEASE_S}
            rows = self._claim_due([*keys, *map(redis_keys.bucket, found)], take)
            claims += [_claim(region, row) for row in rows]
            if len(rows) == len(found):
                return claims
            # Another process took some of them meanwhile: there may be others.

    def claim(self, bucket: BucketConfig, *, slots: int) -> Claim | None:
        keys = [
            redis_keys.running(bucket.region),
            redis_keys.CLEARING,
            redis_keys.bucket(bucket.name),
        ]
        args = {"bucket": bucket.name, "slots": slots, "lease_s": LEASE_S}
        rows = self._claim_bucket(keys, args)
        return _claim(bucket.region, rows[0]) if rows else None

    def renew(self, claim: Claim) -> bool:
        keys = [redis_keys.running(claim.region), redis_keys.bucket(claim.bucket)]
        args = {"bucket": claim.bucket, "fence": claim.fence, "lease_s": LEASE_S}
        return bool(self._renew(keys, args))

    def finish(
        self,
        claim: Claim,
        result: ScanResult,
        *,
        next_due: float | None,
        failures: int = 0,
        broke_off: bool = False,
    ) -> None:
        now = claim.redis_time(time.monotonic())
        keys = [
            redis_keys.running(claim.region),
            redis_keys.bucket(claim.bucket),
            redis_keys.due(claim.region),
            redis_keys.STATUS_CHANGES,
            redis_keys.last_scan(claim.bucket),
            redis_keys.STATS,
            redis_keys.history(claim.bucket),
            redis_keys.minute(int(now // 60)),
        ]
        late_s = max(0.0, result.started_at - claim.scheduled_at)
        args = {
            "bucket": claim.bucket,
            "fence": claim.fence,
            "generation": claim.generation,
            "next_due": None if next_due is None else f"{next_due:.6f}",
            "began": repr(result.began) if result.complete and not result.again else None,
            "commit": result.commit,
            "broke_off_at": claim.commit if broke_off else None,
            "history_entry": history_entry(result),
            "history_kept": SCANS_KEPT,
            "counters": counters.of_scan(result, late_s=late_s),
            "fields": _status_fields(claim, result) | _next_try(next_due, failures),
        }
        ended = self._finish(keys, args)
        if ended != "ok":
            logger.debug("%s: how its scan ended was not recorded: %s", claim.bucket, ended)

    def release(self, claim: Claim) -> None:
        keys = [redis_keys.running(claim.region), redis_keys.bucket(claim.bucket)]
        self._release(keys, {"bucket": claim.bucket, "fence": claim.fence})

    def running(self, region: str) -> list[str]:
        def ask(r: Any) -> list[str]:
            return list(r.zrangebyscore(redis_keys.running(region), server_time(r), "+inf"))

        return self._connection.run(ask)

    def next_due_in_s(self, region: str) -> float | None:
        def ask(r: Any) -> float | None:
            now = server_time(r)
            pipe = r.pipeline(transaction=False)
            pipe.zrangebyscore(redis_keys.running(region), now, "+inf")
            pipe.zrange(redis_keys.due(region), 0, 0, withscores=True)
            pipe.exists(redis_keys.TRUSTED)
            running, head, is_trusted = pipe.execute()
            if not is_trusted:
                return None
            if head and head[0][0] in running:
                head = r.zrange(redis_keys.due(region), 0, len(running), withscores=True)
            waiting = [score for name, score in head if name not in running]
            return float(waiting[0]) - now if waiting else None

        return self._connection.run(ask)


def _claim(region: str, row: list[str]) -> Claim:
    bucket, fence, generation, commit, scheduled, offset, expires, failures, now = row
    return Claim(
        bucket=bucket,
        region=region,
        fence=int(fence),
        generation=int(generation),
        scheduled_at=float(scheduled),
        offset_s=float(offset) if offset else None,
        expires_at=float(expires),
        commit=int(commit),
        failures=int(failures),
        taken_at=float(now),
        arrived_s=time.monotonic(),
    )


def _status_fields(claim: Claim, result: ScanResult) -> dict[str, str]:
    """Build fields of the bucket hash; one that broke off leaves those of the last complete one."""
    fields = {
        "error": clean(result.error, MOST_MESSAGE),
        "error_class": result.error_class,
        "error_at": "" if result.ok else repr(result.started_at + result.duration_s),
    }
    if not result.ok and result.commit is None:
        return fields
    fields["stuck"] = ""
    if not result.complete:
        so_far = scan_warnings.as_json(result.warnings)
        pass_fields = {"progress": result.progress, "ahead": result.ahead}
        return fields | pass_fields | {"pass_warnings": so_far}
    return (
        fields
        | {
            "progress": result.progress if result.again else "",
            "ahead": "",
            "pass_warnings": "",
            "complete": "" if result.again else str(claim.generation),
            "scan_at": repr(result.began),
            "duration_s": f"{result.duration_s:.3f}",
            "objects": str(result.listed),
            "changes": str(result.counts.changes),
            **{str(kind): str(getattr(result.counts, kind)) for kind in EventType},
            "lag_s": f"{max(0.0, result.started_at - claim.scheduled_at):.3f}",
            "warnings": scan_warnings.as_json(result.warnings),
        }
        | _held_fields(result)
    )


def _next_try(next_due: float | None, failures: int) -> dict[str, str]:
    return {
        "next_scan_at": "" if next_due is None else f"{next_due:.3f}",
        "failures": str(failures or ""),
    }


def _held_fields(result: ScanResult) -> dict[str, str]:
    held = result.held
    if held is None:
        return {"held_since": "", "held_missing": "", "released": ""}
    return {
        "held_since": repr(held.since),
        "held_missing": str(held.missing),
        # "released" stays if the deletion was confirmed after this scan began.
    }
