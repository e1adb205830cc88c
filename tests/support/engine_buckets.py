"""Buckets as the control plane leaves them in Redis, for tests of the engine alone."""

from itertools import count
from typing import TYPE_CHECKING, Any

import redis

from scanning import wiring
from scanning.core import redis_keys
from scanning.core.metrics import counters
from scanning.core.types import BucketConfig, KeyPair, ScanCounts, ScanResult
from tests.support.servers import S3Account

if TYPE_CHECKING:
    from collections.abc import Callable

REGION = "us-test-1"

_revisions = count(1)


def document(
    name: str,
    *,
    region: str = REGION,
    endpoint: str = "s3.example.com",
    credential: str = "",
    generation: int = 1,
    interval: int | None = None,
    longest: int | None = None,
    probe_interval: int | None = None,
    budget: int | None = None,
    **members: Any,
) -> dict[str, Any]:
    """Make the JSON object of one bucket; ``members`` are added, or replace those above."""
    return {
        "name": name,
        "endpoint": endpoint,
        "status": "active",
        "bucketwatch": {
            "region": region,
            "credential": credential or name.upper().replace("-", "_"),
            "generation": generation,
            "polling_interval": interval,
            "polling_longest": longest,
            "probe_interval": probe_interval,
            "fetch_metadata": False,
            "requests_per_day": budget,
        },
    } | members


def trust() -> None:
    """Let buckets be claimed, as a monitor does that has compared Redis with the database."""
    wiring.background().connection.run(lambda r: r.set(redis_keys.TRUSTED, "checked"))


def put(name: str, *, notifications: bool = True, **given: Any) -> BucketConfig:
    """Write one managed bucket; each call is newer than the one before."""
    trust()
    store = wiring.background().bucket_configs
    store.put(name, document(name, **given), notifications=notifications, revision=next(_revisions))
    bucket = store.get(name)
    assert bucket is not None
    return bucket


def remove(name: str) -> None:
    wiring.background().bucket_configs.remove(name, revision=next(_revisions))


def put_real(s3: S3Account, name: str, **given: Any) -> BucketConfig:
    """Write one managed bucket of the S3 server, with its keys in the vault."""
    bucket = put(name, endpoint=s3.url, **given)
    wiring.vault().write(bucket.credential, KeyPair(s3.access_key, s3.secret_key))
    return bucket


def schedule(client: redis.Redis, bucket: BucketConfig, *, at: float = 1.0) -> None:
    """Make a bucket due, as the monitor does; its grid begins at the epoch."""
    client.zadd(redis_keys.due(bucket.region), {bucket.name: at})
    client.hset(redis_keys.bucket(bucket.name), "offset", "0")
    client.sadd(redis_keys.REGIONS, bucket.region)


def result(bucket: str, *, error: str = "", started_at: float = 1000.0) -> ScanResult:
    return ScanResult(
        bucket=bucket,
        started_at=started_at,
        duration_s=2.0,
        counts=ScanCounts(objects=10, pages=1, created=3, unchanged=4, compared=2),
        complete=not error,
        began=started_at,
        listed=10,
        error=error,
        error_class="StorageUnavailable" if error else "",
    )


def dump(client: redis.Redis) -> dict[str, Any]:
    """Read all that Redis holds, by key; each byte is one character.

    Without how fast endpoints are asked, and how often: whoever asks one has to say so.
    """
    options = client.connection_pool.connection_kwargs | {
        "decode_responses": True,
        "encoding": "latin-1",
    }
    pool = redis.ConnectionPool(connection_class=client.connection_pool.connection_class, **options)
    with redis.Redis.from_pool(pool) as exact:
        reads: dict[str, Callable[[Any], Any]] = {
            "string": exact.get,
            "hash": exact.hgetall,
            "set": exact.smembers,
            "list": lambda key: exact.lrange(key, 0, -1),
            "zset": lambda key: exact.zrange(key, 0, -1, withscores=True),
            "stream": exact.xrange,
        }
        names = [str(key) for key in exact.scan_iter()]
        found = {
            name: reads[str(exact.type(name))](name)
            for name in names
            if not name.startswith(_OF_REQUESTS)
        }
    hashes = (name for name, value in found.items() if isinstance(value, dict))
    for name in [name for name in hashes if name.startswith(_COUNTING)]:
        kept = {field: n for field, n in found[name].items() if not _is_of_requests(field)}
        found[name] = kept
    return {name: value for name, value in found.items() if value}


_OF_REQUESTS = (redis_keys.PACE_PREFIX, redis_keys.PACES, redis_keys.REQUESTS_PREFIX)
_COUNTING = (redis_keys.STATS, redis_keys.MINUTE_PREFIX, redis_keys.endpoint_profile(""))


def _is_of_requests(field: str) -> bool:
    return field in counters.REQUESTS.values() or field.startswith("sent:")
