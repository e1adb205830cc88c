"""What probes go by, and what they saw (`core/probing.py`).

    {bucket hash}    what the last look or pass saw of the bucket, and whether its scans wait
    probes           bucket -> "objects:bytes moved_at", "none moved_at" where none are told;
                     moved_at is "" before they were seen moving

Only the prober of the monitor that leads writes here, for people; it can be lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scanning.core import redis_keys
from scanning.core.metrics import counters
from scanning.core.probing import (
    PROBED_FIELDS,
    LastProbe,
    ProbedBucket,
    parse_probed,
)
from scanning.core.totals import Totals

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from scanning.adapters.redis.connection import RedisConnection

_NONE = "none"


class ProbeStore:
    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    def read(self, buckets: Sequence[str]) -> dict[str, ProbedBucket]:
        """Read what probes of these buckets have to know, in one round trip."""

        def ask(r: Any) -> list[list[str | None]]:
            pipe = r.pipeline(transaction=False)
            for name in buckets:
                pipe.hmget(redis_keys.bucket(name), PROBED_FIELDS)
            rows: list[list[str | None]] = pipe.execute()
            return rows

        rows = self._connection.run(ask) if buckets else []
        return {name: parse_probed(row) for name, row in zip(buckets, rows, strict=True)}

    def record(self, seen: Mapping[str, LastProbe], results: Mapping[str, int]) -> None:
        """Note what probes saw anew, and count how they ended: result -> number."""

        def write(r: Any) -> None:
            pipe = r.pipeline()
            if seen:
                pipe.hset(redis_keys.PROBES, mapping={n: _text(s) for n, s in seen.items()})
            for result, number in results.items():
                pipe.hincrby(redis_keys.STATS, f"{counters.PROBES}{result}", number)
            pipe.execute()

        if seen or results:
            self._connection.run(write)

    def last(self, buckets: Sequence[str] = ()) -> dict[str, LastProbe]:
        """Read what probes saw of these buckets last, of all if none are named."""

        def ask(r: Any) -> dict[str, str | None]:
            if not buckets:
                return dict(r.hgetall(redis_keys.PROBES))
            return dict(zip(buckets, r.hmget(redis_keys.PROBES, buckets), strict=True))

        return {name: _parsed(text) for name, text in self._connection.run(ask).items() if text}

    def forget(self, buckets: Collection[str]) -> None:
        if buckets:
            self._connection.run(lambda r: r.hdel(redis_keys.PROBES, *buckets))


def _text(seen: LastProbe) -> str:
    totals = _NONE if seen.totals is None else str(seen.totals)
    return f"{totals} {'' if seen.moved_at is None else format(seen.moved_at, '.3f')}"


def _parsed(text: str) -> LastProbe:
    totals, _, moved_at = text.partition(" ")
    return LastProbe(Totals.read(totals), float(moved_at) if moved_at else None)
