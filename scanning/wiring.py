"""The one place that builds adapters; each once per process, anew in a forked child.

What is *impatient* is for somebody who waits in front of a page: it gives up at once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from django.conf import settings

from scanning.adapters.redis.bucket_configs import BucketCache, BucketConfigStore
from scanning.adapters.redis.bucket_status import BucketStatusStore
from scanning.adapters.redis.cleanup import Cleanup
from scanning.adapters.redis.connection import RedisConnection
from scanning.adapters.redis.endpoint_profiles import RedisEndpointProfiles
from scanning.adapters.redis.leases import RedisLeases
from scanning.adapters.redis.losses import RedisContinuity
from scanning.adapters.redis.pacing import RedisEndpointHealth
from scanning.adapters.redis.recent_events import RecentEvents
from scanning.adapters.redis.schedule import ScheduleStore
from scanning.adapters.redis.state import RedisStateStore
from scanning.adapters.redis.telemetry import TelemetryStore
from scanning.adapters.s3.storage import S3ClientCache, S3Storage
from scanning.adapters.vault import infisical, local
from scanning.adapters.vault.snapshot import CredentialSnapshot
from scanning.config import active
from scanning.config.settings import RedisSection
from scanning.core.errors import (
    BucketwatchError,
    CredentialsRejected,
)
from scanning.pacing.registry import EndpointRegistry
from scanning.scan.context import ScanSettings
from scanning.scan.heartbeat import LeaseHeartbeat

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from scanning.config.settings import EngineSettings
    from scanning.core.types import BucketConfig, KeyPair
    from scanning.ports import Storage, Vault

T = TypeVar("T")

PROBE_S = 5.0

conf = active.conf
ensure_django = active.ensure_django

_built: dict[tuple[int, str], Any] = {}
# Scan threads ask for the same things at the same moment. One builder may call another.
_building = threading.RLock()


def _after_fork() -> None:
    global _building  # noqa: PLW0603 - another thread of the parent may have held it
    _building = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)


def _once(build: Callable[[], T]) -> Callable[[], T]:
    # Keyed by process: sockets, locks and threads do not survive a fork.
    @wraps(build)
    def built() -> T:
        key = (os.getpid(), build.__name__)
        if key not in _built:
            with _building:
                if key not in _built:
                    _built[key] = build()
        result: T = _built[key]
        return result

    return built


def reset() -> None:
    """Forget what was built, so that changed settings count (tests; after a fork)."""
    of_this_process: Engine | None = _built.get((os.getpid(), "engine"))
    _built.clear()
    if of_this_process is not None:
        of_this_process.endpoints.close()


@dataclass(frozen=True, slots=True)
class Engine:
    """What scans and schedules share of one Redis."""

    connection: RedisConnection
    configuration: BucketConfigStore
    leases: RedisLeases
    states: RedisStateStore
    heartbeat: LeaseHeartbeat
    endpoints: EndpointRegistry


def engine_over(client: redis.Redis | Mapping[str, Any], scanning: EngineSettings) -> Engine:
    """The engine on somebody's own Redis client (the documented `BucketScanner` brings one).

    Of the older monitor's ``{"master": …, "slave": …}`` the master is used: a client, or what the
    YAML file may say of it.
    """
    if isinstance(client, Mapping):
        master = client["master"]
        if isinstance(master, str | Mapping):
            named = RedisSection.model_validate({"master": master})
            return _engine(RedisConnection(named), scanning)
        return engine_over(master, scanning)
    if _own_client(client):
        return engine()
    return _engine(RedisConnection.over(client, scanning.redis), scanning)


def _own_client(client: redis.Redis) -> bool:
    return client is connection().client


@_once
def connection() -> RedisConnection:
    return RedisConnection(conf().redis)


@_once
def interactive_connection() -> RedisConnection:
    """For answers that must come quickly, also when Redis is away: web pages and probes."""
    return RedisConnection(conf().redis, patience_s=0.0, answer_s=1.5)


@_once
def engine() -> Engine:
    return _engine(connection(), conf())


def _engine(link: RedisConnection, scanning: EngineSettings) -> Engine:
    leases = RedisLeases(link)
    # A probe is one request that may time out, and a scan around it.
    probe_s = scanning.storage.connect_timeout + scanning.storage.read_timeout + PROBE_S
    return Engine(
        connection=link,
        configuration=BucketConfigStore(link),
        leases=leases,
        states=RedisStateStore(link, scanning),
        heartbeat=LeaseHeartbeat(leases),
        endpoints=EndpointRegistry(
            RedisEndpointHealth(link),
            scanning.endpoint_limits,
            probe_s=probe_s,
            profiles=RedisEndpointProfiles(link),
        ),
    )


@_once
def bucket_configs() -> BucketConfigStore:
    return BucketConfigStore(connection())


@_once
def bucket_cache() -> BucketCache:
    return BucketCache(bucket_configs())


@_once
def interactive_bucket_configs() -> BucketConfigStore:
    """For the mirror on save: an operator does not wait for Redis, the outbox does."""
    return BucketConfigStore(interactive_connection())


@_once
def schedule() -> ScheduleStore:
    return ScheduleStore(connection())


@_once
def interactive_schedule() -> ScheduleStore:
    return ScheduleStore(interactive_connection())


@_once
def continuity() -> RedisContinuity:
    return RedisContinuity(connection())


@_once
def interactive_continuity() -> RedisContinuity:
    return RedisContinuity(interactive_connection())


@_once
def cleanup() -> Cleanup:
    return Cleanup(connection(), conf().redis)


@_once
def bucket_status() -> BucketStatusStore:
    return BucketStatusStore(connection())


@_once
def interactive_bucket_status() -> BucketStatusStore:
    return BucketStatusStore(interactive_connection())


@_once
def recent_events() -> RecentEvents:
    return RecentEvents(interactive_connection())


@_once
def interactive_states() -> RedisStateStore:
    """For looking at what is known, in front of a page."""
    return RedisStateStore(interactive_connection(), conf())


@_once
def replay_states() -> RedisStateStore:
    """For replays: half of the queue stays free for what happens meanwhile."""
    scanning = conf()
    half = scanning.queue.model_copy(update={"high_water": max(1, scanning.queue.high_water // 2)})
    return RedisStateStore(connection(), scanning.model_copy(update={"queue": half}))


@_once
def interactive_endpoint_health() -> RedisEndpointHealth:
    return RedisEndpointHealth(interactive_connection())


@_once
def interactive_endpoint_profiles() -> RedisEndpointProfiles:
    return RedisEndpointProfiles(interactive_connection())


@_once
def followed_events() -> RecentEvents:
    """For somebody who follows them, and waits for those to come."""
    return RecentEvents(RedisConnection(conf().redis, patience_s=1.0))


@_once
def client_cache() -> S3ClientCache:
    return S3ClientCache(conf())


def preload() -> None:
    """Load what every worker needs, S3's description above all: children forked later share it."""
    S3ClientCache(conf()).get_client("s3.invalid", "none", "none")
    interactive_connection().health()
    reset()


@_once
def probing_clients() -> S3ClientCache:
    """For somebody who waits in front of a page: one try, and short time-outs."""
    storage = conf().storage
    short = storage.model_copy(
        update={
            "connect_timeout": min(storage.connect_timeout, PROBE_S),
            "read_timeout": min(storage.read_timeout, PROBE_S),
        }
    )
    return S3ClientCache(conf().model_copy(update={"storage": short}), most=10, attempts=1)


@_once
def vault() -> Vault:
    site = settings.SITE
    if site.uses_infisical:
        return infisical.open_infisical_vault(site)
    return embedded_vault()


def embedded_vault() -> Vault:
    return local.open_local_vault(settings.DATA_DIR, vault_key())


def vault_key() -> str | None:
    """The key of the embedded vault, if one is configured."""
    key = settings.SITE.vault_key
    return key.get_secret_value() if key else None


@_once
def credentials() -> CredentialSnapshot:
    return CredentialSnapshot(vault())


def with_keys(bucket: BucketConfig, use: Callable[[KeyPair], T]) -> T:
    """What ``use`` makes of the bucket's key pair.

    Where S3 refuses it, it may have been rotated since our snapshot: look once more, try once more.
    """
    pair = credentials().get(bucket.credential)
    try:
        return use(pair)
    except CredentialsRejected:
        fresh = credentials().reload().get(bucket.credential)
        if fresh == pair:
            raise
        return use(fresh)


def vault_age_s() -> float | None:
    """How long ago this process read the vault; None if it never could."""
    try:
        return credentials().age_s()
    except BucketwatchError:  # every scan says so
        return None


def storage(
    clients: S3ClientCache, bucket: BucketConfig, pair: KeyPair, endpoints: EndpointRegistry
) -> Storage:
    """A bucket whose requests wait their turn."""
    endpoints.register_pool(clients)
    limiter = endpoints.limiter_for(bucket.endpoint)
    return S3Storage(clients, bucket, pair, limiter=limiter, profiles=endpoints.profiles)


def interactive_storage(bucket: BucketConfig, pair: KeyPair) -> S3Storage:
    """The same for somebody who waits in front of a page: at once, and short time-outs."""
    return S3Storage(probing_clients(), bucket, pair, profiles=interactive_endpoint_profiles())


@_once
def telemetry_store() -> TelemetryStore:
    return TelemetryStore(interactive_connection(), conf())


def scan_settings(scanning: EngineSettings) -> ScanSettings:
    """What the configuration says to a scan."""
    return ScanSettings(
        page_size=scanning.page_size,
        lanes=scanning.scan.lanes,
        slice_s=scanning.scan.time_slice,
        strings=scanning.redis.object_states,
        ttl_s=scanning.redis.ttl,
        mass_share=scanning.deletions.mass_share,
        mass_minimum=scanning.deletions.mass_minimum,
        second_look_s=scanning.deletions.second_look,
    )
