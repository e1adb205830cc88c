"""How one bucket stands: schedule, last scan, queue; read in one round trip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scanning.core import redis_keys
from scanning.core.explain import ScheduleStatus

if TYPE_CHECKING:
    from scanning.adapters.redis.connection import RedisConnection
    from scanning.config.settings import EngineSettings
    from scanning.core.types import BucketConfig


def read(
    connection: RedisConnection, conf: EngineSettings, bucket: BucketConfig, *, now: float
) -> ScheduleStatus:
    """Raises RedisUnavailable."""

    def ask(r: Any) -> list[Any]:
        pipe = r.pipeline(transaction=False)
        pipe.hexists(redis_keys.REVISIONS, bucket.name)
        pipe.sismember(redis_keys.CLEARING, bucket.name)
        pipe.zscore(redis_keys.running(bucket.region), bucket.name)
        pipe.zscore(redis_keys.due(bucket.region), bucket.name)
        pipe.hmget(redis_keys.bucket(bucket.name), ["error", "held_missing"])
        pipe.llen(conf.redis.queue_name)
        answers: list[Any] = pipe.execute()
        return answers

    managed, clearing, lease, due_at, (error, held_missing), queue_length = connection.run(ask)
    return ScheduleStatus(
        is_managed=bool(managed),
        is_clearing=bool(clearing),
        is_running=lease is not None and lease > now,
        due_at=due_at,
        error=error or "",
        held_missing=int(held_missing or 0),
        queue_length=queue_length,
    )
