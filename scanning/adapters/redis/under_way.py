"""What takes long and is not done yet: passes over large buckets, clearing after removals."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from scanning.core import redis_keys
from scanning.core.metrics.telemetry import PassUnderWay

if TYPE_CHECKING:
    from scanning.adapters.redis.connection import RedisConnection


def pass_over(connection: RedisConnection, bucket: str) -> PassUnderWay | None:
    """How far the unfinished pass over a bucket has come; None without one."""
    text = connection.run(lambda r: r.hget(redis_keys.bucket(bucket), "progress"))
    if not text:
        return None
    progress: dict[str, Any] = json.loads(text)
    return PassUnderWay(began=float(progress["began"]), listed=int(progress["listed"]))


def being_cleared(connection: RedisConnection) -> list[str]:
    """The removed buckets of which something is still in Redis, by name."""
    return connection.run(lambda r: sorted(map(str, r.smembers(redis_keys.CLEARING))))
