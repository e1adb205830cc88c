"""What a Redis server puts at risk or refuses as it is set up, in sentences for operators.

INFO tells most of it, as CONFIG is forbidden on many hosted servers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError, ResponseError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import redis

NO_CLUSTER = "Redis Cluster is not supported: a commit needs one keyspace"


@dataclass(frozen=True, slots=True)
class RedisWarning:
    """``risk`` is what may be lost or is refused, ``remedy`` what an operator can do about it."""

    risk: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.risk}; {self.remedy}"


_ENOUGH_REPLICAS = 2
_UNKNOWN = RedisWarning(
    "Whether Redis may lose data cannot be checked",
    "let our user run INFO (ACL SETUSER … +info)",
)
_CLUSTER = RedisWarning(NO_CLUSTER, "name a server that is none in REDIS_URL or REDIS_HOST")


def warnings_of(client: redis.Redis, *, has_sentinel: bool) -> tuple[RedisWarning, ...]:
    """Find the risks in Redis's settings and state; never raises."""
    try:
        info: Mapping[str, Any] = client.info()
    except ResponseError:
        return (_UNKNOWN,)
    except RedisError:
        return ()
    found = [_CLUSTER] if info.get("cluster_enabled") else []
    found += [*_refused_writes(info, has_sentinel=has_sentinel)]
    found += [*_evictions(info), *_persistence(client, info)]
    return (*found, *(_replicas(info) if has_sentinel else ()))


def _refused_writes(info: Mapping[str, Any], *, has_sentinel: bool) -> Iterator[RedisWarning]:
    """Explain why nothing is scanned although Redis answers; Sentinel soon leaves a replica."""
    if info.get("role") == "slave" and not has_sentinel:
        yield RedisWarning(
            "Redis is a replica and takes no writes, so nothing is scanned",
            "name the master in REDIS_URL or REDIS_HOST, or use Sentinel",
        )
    policy, limit = info.get("maxmemory_policy", "noeviction"), info.get("maxmemory", 0)
    if policy == "noeviction" and limit and info.get("used_memory", 0) >= limit:
        yield RedisWarning(
            f"Redis is full (maxmemory, {info.get('maxmemory_human', limit)}) and refuses writes, "
            "so nothing is scanned",
            "give it more, or see whether consumers read the queue",
        )


def _evictions(info: Mapping[str, Any]) -> Iterator[RedisWarning]:
    policy, limit = info.get("maxmemory_policy", "noeviction"), info.get("maxmemory", 0)
    if policy == "noeviction" or not limit:
        return
    if policy.startswith("volatile-"):
        lost = "the documented object states of unchanged objects"
    else:
        lost = "what is known of objects, and notifications that wait in the queue"
    yield RedisWarning(
        f"maxmemory-policy is {policy}: a full Redis drops {lost}", "set it to noeviction"
    )


def _persistence(client: redis.Redis, info: Mapping[str, Any]) -> Iterator[RedisWarning]:
    save = "" if info.get("aof_enabled", 0) else _save_points(client)
    if info.get("aof_enabled", 0) or save:
        return
    what = (
        "appendonly is off, and whether save is set cannot be checked: without either"
        if save is None
        else "appendonly is off and save is empty:"
    )
    yield RedisWarning(
        f"{what} a restart of Redis loses what is known of objects, and notifications that wait in "
        "the queue",
        "set appendonly to yes",
    )


def _save_points(client: redis.Redis) -> str | None:
    """Read when snapshots are made; None if we may not know."""
    try:
        answer = client.config_get("save")
    except RedisError:
        return None
    return answer.get("save")


def _replicas(info: Mapping[str, Any]) -> Iterator[RedisWarning]:
    if info.get("role") != "master":
        return
    online = sum(
        isinstance(value, dict) and value.get("state") == "online"
        for name, value in info.items()
        if name.startswith("slave") and name.removeprefix("slave").isdecimal()
    )
    if online < _ENOUGH_REPLICAS:
        yield RedisWarning(
            f"The master has {online} replicas online: after a failover there may be none left, "
            "and its data are then on one host",
            f"run at least {_ENOUGH_REPLICAS}",
        )
    # Redis tells this only while both settings are in force.
    if "min_slaves_good_slaves" not in info:
        yield RedisWarning(
            "min-replicas-to-write is 0: a master that was cut off goes on taking writes, which "
            "are lost after the failover",
            "set min-replicas-to-write to 1 and min-replicas-max-lag to 2 on every node",
        )
