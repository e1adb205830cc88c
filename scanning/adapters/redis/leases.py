"""Who scans what: the sets of due and of running buckets of each region, and the bucket hashes.

The running set is the region's slots and the bucket locks in one, so that they cannot disagree.
The fence of a claim is larger than any before it, also after a failover that forgot some claims,
because it follows the server's clock. Every commit checks it (`state.py`).
"""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, Any

from scanning.adapters.redis.schedule import epoch_s, server_time
from scanning.adapters.redis.telemetry import SCANS_KEPT, history_entry
from scanning.core import redis_keys, scan_warnings, schedule
from scanning.core.metrics import counters
from scanning.core.texts import MOST_MESSAGE, clean
from scanning.core.types import Claim, EventType, LookRequest

if TYPE_CHECKING:
    from scanning.adapters.redis.connection import RedisConnection
    from scanning.core.totals import Totals
    from scanning.core.types import BucketConfig, ScanResult

logger = logging.getLogger(__name__)

LEASE_S = 15.0
# Of what a look listed, for whoever asks about a key; hints may have named more.
_RANGES_KEPT = 100


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
        stretched: bool = False,
    ) -> None:
        now = claim.redis_time(time.monotonic())
        keys = [
            redis_keys.running(claim.region),
            redis_keys.bucket(claim.bucket),
            redis_keys.due(claim.region),
            redis_keys.STATUS_CHANGES,
            redis_keys.last_scan(claim.bucket),
            redis_keys.STATS,
            (redis_keys.look_history if result.is_look else redis_keys.history)(claim.bucket),
            redis_keys.minute(int(now // 60)),
            redis_keys.STRETCHED,
        ]
        late_s = max(0.0, result.started_at - claim.scheduled_at)
        args = {
            "bucket": claim.bucket,
            "fence": claim.fence,
            "generation": claim.generation,
            "next_due": None if next_due is None else f"{next_due:.6f}",
            "ok": result.ok,
            "is_look": result.is_look,
            "keys_looked_at": len(claim.look.keys) if claim.look else 0,
            "began": repr(result.began) if result.is_complete_pass else None,
            "commit": result.commit,
            "broke_off_at": claim.commit if broke_off and not result.is_look else None,
            "is_stretched": stretched,
            "history_entry": history_entry(result),
            "history_kept": SCANS_KEPT,
            "counters": counters.of_scan(result, late_s=late_s),
            "fields": _status_fields(claim, result)
            | _next_try(next_due, failures)
            | _last_change(claim, result)
            | _looked_at(result),
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
    bucket, fence, generation, commit, scheduled, offset, *row = row
    expires, failures, now, objects, changed, *look = row
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
        objects=int(objects) if objects else None,
        taken_at=float(now),
        arrived_s=time.monotonic(),
        changed_at=epoch_s(changed),
        look=_look_request(*look) if look else None,
    )


def _look_request(pass_due: str, keys: str) -> LookRequest:
    return LookRequest(tuple(json.loads(keys)), float(pass_due))


def _status_fields(claim: Claim, result: ScanResult) -> dict[str, str]:
    """Build fields of the bucket hash; one that broke off leaves those of the last whole pass."""
    fields = {
        "error": clean(result.error, MOST_MESSAGE),
        "error_class": result.error_class,
        "error_at": "" if result.ok else repr(result.started_at + result.duration_s),
    }
    totals = result.totals
    if result.is_look:
        return fields | ({"totals": _text(totals.last)} if totals else {})
    if not result.ok and result.commit is None:
        return fields
    fields["stuck"] = ""
    if not result.complete:
        so_far = scan_warnings.as_json(result.warnings)
        before = _text(totals.before) if totals else ""
        fields |= {"progress": result.progress, "ahead": result.ahead}
        return fields | {"pass_warnings": so_far, "totals_before": before}
    if totals:
        fields |= {"totals": _text(totals.last), "totals_apart": _text(totals.apart)}
    return (
        fields
        | {
            "progress": result.progress if result.again else "",
            "ahead": "",
            "pass_warnings": "",
            "totals_before": "",
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


def _text(totals: Totals | None) -> str:
    return "" if totals is None else str(totals)


def _next_try(next_due: float | None, failures: int) -> dict[str, str]:
    return {
        "next_scan_at": "" if next_due is None else f"{next_due:.3f}",
        "failures": str(failures or ""),
    }


def _last_change(claim: Claim, result: ScanResult) -> dict[str, str]:
    at = schedule.last_change(claim, result)
    return {} if at is None else {"changed_at": repr(at)}


def _looked_at(result: ScanResult) -> dict[str, str]:
    ranges = result.ranges[:_RANGES_KEPT]
    return {"looked_at": json.dumps([result.started_at, ranges])} if ranges else {}


def _held_fields(result: ScanResult) -> dict[str, str]:
    held, storm = result.held, result.held_times
    fields = {"held_since": "", "held_missing": "", "released": ""}
    # What was released stays if somebody did so after this scan began.
    if held is not None:
        fields = {"held_since": repr(held.since), "held_missing": str(held.missing)}
    if storm is not None:
        return fields | {"held_moved_since": repr(storm.since), "held_moved": str(storm.moved)}
    return fields | {"held_moved_since": "", "held_moved": "", "released_moved": ""}
