"""How endpoints answer, shared by all processes through Redis (`core/pacing.py` has the rules).

All keys of an endpoint expire: what is lost is only learnt again.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from scanning.adapters.redis.schedule import server_time
from scanning.core import redis_keys
from scanning.core.metrics import counters
from scanning.core.metrics.telemetry import EndpointLoad
from scanning.core.pacing import (
    HEALTHY,
    EndpointHealth,
    allowed_per_s,
    drop_recovered_rate,
    state_of,
)
from scanning.identity import this_process
from scanning.ports import EndpointStatus, RequestReport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scanning.adapters.redis.connection import RedisConnection
    from scanning.core.request_costs import RequestKind
    from scanning.core.types import Claim
    from scanning.ports import EndpointUsage

# A process that has not reported its usage for so long has no connections any more.
USAGE_S = 30
_KEEP_PACE_S = 600
_KEEP_WAITING_S = 86400
# Endpoints are shown for so long after they were asked last.
SHOWN_S = 3600
# When a dead endpoint answers, its buckets are due over so many seconds, at most so far apart.
_SPREAD_S, _APART_S = 5.0, 0.05
# So many of those that wait for a dead endpoint try it, one after the other; the rest come after
# so many seconds by themselves, should nobody have called them.
_TRIERS, _BY_THEMSELVES_S = 3, 60.0


class RedisEndpointHealth:
    """Implements `ports.EndpointHealthStore`, and shows people how endpoints answer."""

    def __init__(self, connection: RedisConnection, *, process: str = "") -> None:
        self._connection = connection
        self._share_usage = connection.load_script("share_usage")
        self._replace = connection.load_script("replace_health")
        self._reserve = connection.load_script("reserve_slots")
        self._postpone = connection.load_script("postpone_claims")
        self._process = process or this_process()
        self._clock_ahead_s: float | None = None

    def share_usage(self, usage: EndpointUsage) -> EndpointStatus:
        now_s, report = self._redis_time(), usage.report or RequestReport(self._process, 0)
        keys = [
            redis_keys.pace_use(usage.endpoint),
            redis_keys.pace(usage.endpoint),
            redis_keys.PACES,
            redis_keys.STATS,
            redis_keys.pace_failed_at(usage.endpoint),
            redis_keys.minute(int(now_s // 60)),
            redis_keys.request_report(usage.endpoint, report.reporter),
            redis_keys.endpoint_profile(usage.endpoint),
            redis_keys.requests_of_day(int(now_s // 86400)),
            redis_keys.endpoint_requests_of_day(int(now_s // 86400)),
        ]
        kinds: Counter[RequestKind] = Counter()
        for (_, kind), number in report.sent.items():
            kinds[kind] += number
        args = {
            "process": self._process,
            "endpoint": usage.endpoint,
            "sent_per_s": f"{usage.sent_per_s:.3f}",
            "connections": usage.connections,
            "limit": usage.limit,
            "kept_s": USAGE_S,
            "shown_s": SHOWN_S,
            "number": report.number or None,
            "counters": counters.of_requests(
                kinds, throttled=report.throttled, unanswered=report.unanswered
            ),
            "sent": {f"{kind} {name}": number for (name, kind), number in report.sent.items()},
            "kinds": {str(kind): number for kind, number in kinds.items()},
        }
        granted, others_per_s, text, failed_at, now = self._share_usage(keys, args)
        self._clock_ahead_s = float(now) - time.monotonic()
        return EndpointStatus(
            _parse(text, failed_at), float(now), int(granted), float(others_per_s)
        )

    def update(
        self, endpoint: str, change: Callable[[EndpointHealth, float], EndpointHealth]
    ) -> EndpointStatus:
        names = [redis_keys.pace(endpoint), redis_keys.pace_failed_at(endpoint)]
        while True:
            stored, now = self._connection.run(lambda r: (r.mget(names), server_time(r)))
            before = _parse(*stored)
            after = drop_recovered_rate(change(before, now), now=now)
            if after == before:
                return EndpointStatus(after, now)
            news = ""
            if before.is_dead != after.is_dead:
                news = "died" if after.is_dead else "revived"
            waiting = self._waiting(endpoint) if news == "revived" else []
            keys = [*names, redis_keys.pace_waiting(endpoint)]
            for member in waiting:
                bucket, region = member.split(" ", 1)
                keys += [redis_keys.bucket(bucket), redis_keys.due(region)]
            args = {
                "expected": [text or "" for text in stored],
                "replaced_by": _format(after),
                "kept_s": _KEEP_PACE_S,
                "news": news,
                "waiting": waiting,
                "spread_s": _SPREAD_S,
                "apart_s": _APART_S,
            }
            if self._replace(keys, args):
                return EndpointStatus(after, now)

    def _waiting(self, endpoint: str) -> list[str]:
        key = redis_keys.pace_waiting(endpoint)
        return self._connection.run(lambda r: list(r.zrange(key, 0, -1)))

    def _redis_time(self) -> float:
        """Tell the time by the clock of Redis, as it was when Redis last answered here."""
        if self._clock_ahead_s is None:
            self._clock_ahead_s = self._connection.run(server_time) - time.monotonic()
        return time.monotonic() + self._clock_ahead_s

    def reserve(
        self, endpoint: str, *, count: int, spacing_s: float, max_wait_s: float
    ) -> float | None:
        args = {"count": count, "spacing_s": spacing_s, "max_wait_s": max_wait_s}
        wait_s = self._reserve([redis_keys.pace_slots(endpoint)], args)
        return float(wait_s) if wait_s else None

    def postpone_until_answer(
        self, claims: Sequence[Claim], endpoint: str, *, until: float
    ) -> None:
        self._postpone_claims(claims, until, endpoint)

    def postpone(self, claims: Sequence[Claim], *, until: float) -> None:
        self._postpone_claims(claims, until, "")

    def _postpone_claims(self, claims: Sequence[Claim], until: float, endpoint: str) -> None:
        region = claims[0].region
        keys = [
            redis_keys.due(region),
            redis_keys.running(region),
            redis_keys.pace_waiting(endpoint),
            *(redis_keys.bucket(claim.bucket) for claim in claims),
        ]
        args = {
            "due_at": until,
            "claims": [
                [claim.bucket, claim.fence, f"{claim.scheduled_at:.6f}"] for claim in claims
            ],
            "must_wait": bool(endpoint),
            "region": region,
            "kept_s": _KEEP_WAITING_S,
            "triers": _TRIERS,
            "others_come_s": _BY_THEMSELVES_S,
        }
        self._postpone(keys, args)

    def list_loads(self) -> list[EndpointLoad]:
        """Return the endpoints that were asked lately, by name."""

        def read(r: Any) -> tuple[list[str], list[str | None], float]:
            now = server_time(r)
            names = sorted(map(str, r.zrangebyscore(redis_keys.PACES, now - SHOWN_S, "+inf")))
            return names, r.mget([redis_keys.pace(name) for name in names]) if names else [], now

        names, texts, now = self._connection.run(read)
        return [_load(name, _parse(text), now) for name, text in zip(names, texts, strict=True)]


def _load(endpoint: str, health: EndpointHealth, now: float) -> EndpointLoad:
    state, per_s = state_of(health, now=now), allowed_per_s(health, now=now)
    return EndpointLoad(
        endpoint=endpoint,
        state=state,
        list_per_s=per_s if state == "slowed" else 0.0,
        wait_until=health.wait_until if health.is_dead else None,
        why=health.why if health.is_dead else "",
    )


def _format(health: EndpointHealth) -> tuple[str, str]:
    """Write JSON of what differs from a healthy endpoint, and ``failed_at``; '' for nothing.

    ``failed_at`` stands beside: hosts of the version before cannot read JSON that has it.
    """
    differing = {k: v for k, v in asdict(health).items() if v != getattr(HEALTHY, k)}
    failed_at = differing.pop("failed_at", "")
    return json.dumps(differing) if differing else "", str(failed_at)


def _parse(text: str | None, failed_at: str | None = None) -> EndpointHealth:
    """Read a pace; ignore members that a later version may write."""
    if not text:
        return HEALTHY
    written = {"failed_at": float(failed_at or 0), "buckets": ()} | json.loads(text)
    written["buckets"] = tuple(written["buckets"])
    return EndpointHealth(
        **{field.name: written[field.name] for field in fields(HEALTHY) if field.name in written}
    )
