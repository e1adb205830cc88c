"""The one place that builds adapters; each once per process, anew in a forked child."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
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
from scanning.adapters.redis.probes import ProbeStore
from scanning.adapters.redis.recent_events import RecentEvents
from scanning.adapters.redis.schedule import ScheduleStore
from scanning.adapters.redis.state import RedisStateStore
from scanning.adapters.redis.telemetry import TelemetryStore
from scanning.adapters.s3.storage import S3ClientCache, S3Storage
from scanning.adapters.vault import infisical, local
from scanning.adapters.vault.snapshot import CredentialSnapshot
from scanning.config import active
from scanning.config.settings import RedisSection
from scanning.core.errors import BucketwatchError, CredentialsRejected
from scanning.pacing.budgets import RequestBudgets
from scanning.pacing.limiter import UnlimitedEndpoint
from scanning.pacing.registry import EndpointRegistry
from scanning.scan.context import ScanSettings
from scanning.scan.heartbeat import LeaseHeartbeat

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from scanning.config.settings import EngineSettings
    from scanning.core.types import BucketConfig, KeyPair
    from scanning.ports import EndpointProfileStore, Storage, Vault

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
    of_this_process = _containers()
    _built.clear()
    for container in of_this_process:
        container.endpoints.close()
        container.connection.reconnect()  # leaves no idle connection open


def report_requests() -> None:
    """Have counted what this process sent to S3, before it ends."""
    for container in _containers():
        container.endpoints.report_requests()


def _containers() -> list[Container]:
    built = (_built.get((os.getpid(), name)) for name in ("background", "interactive"))
    return [container for container in built if container is not None]


class Container:
    """The adapters over one connection to Redis."""

    def __init__(self, connection: RedisConnection, conf: EngineSettings) -> None:
        self.connection = connection
        self.bucket_configs = BucketConfigStore(connection)
        self.bucket_cache = BucketCache(self.bucket_configs)
        self.bucket_status = BucketStatusStore(connection)
        self.schedule = ScheduleStore(connection)
        self.probes = ProbeStore(connection)
        self.leases = RedisLeases(connection)
        self.heartbeat = LeaseHeartbeat(self.leases)
        self.states = RedisStateStore(connection, conf)
        self.recent_events = RecentEvents(connection)
        self.telemetry = TelemetryStore(connection, conf)
        self.continuity = RedisContinuity(connection)
        self.cleanup = Cleanup(connection, conf.redis)
        self.endpoint_health = RedisEndpointHealth(connection)
        # A probe is one request that may time out, and a scan around it.
        probe_s = conf.storage.connect_timeout + conf.storage.read_timeout + PROBE_S
        self.endpoint_profiles = RedisEndpointProfiles(connection)
        self.endpoints = EndpointRegistry(
            self.endpoint_health,
            conf.endpoint_limits,
            probe_s=probe_s,
            profiles=self.endpoint_profiles,
        )
        self.budgets = RequestBudgets(conf.requests, self.endpoints, self.telemetry)


@_once
def background() -> Container:
    """Return the adapters of workers and commands, which wait for a Redis that fails over."""
    return Container(RedisConnection(conf().redis), conf())


@_once
def interactive() -> Container:
    """Return the adapters of pages, probes and ticks, which give up at once."""
    return Container(RedisConnection(conf().redis, patience_s=0.0, answer_s=1.5), conf())


def container_over(client: redis.Redis | Mapping[str, Any], conf: EngineSettings) -> Container:
    """Build on somebody's own Redis client (the documented `BucketScanner` brings one).

    Of the older monitor's ``{"master": …, "slave": …}`` the master is used: a client, or what the
    YAML file may say of it.
    """
    if isinstance(client, Mapping):
        master = client["master"]
        if isinstance(master, str | Mapping):
            named = RedisSection.model_validate({"master": master})
            return Container(RedisConnection(named), conf)
        return container_over(master, conf)
    if client is background().connection.client:
        return background()
    return Container(RedisConnection.over(client, conf.redis), conf)


def replay_states() -> RedisStateStore:
    """Build the states that replays commit to: half of the queue stays free for new events."""
    half = conf().queue.model_copy(update={"high_water": max(1, conf().queue.high_water // 2)})
    return RedisStateStore(background().connection, conf().model_copy(update={"queue": half}))


def followed_events() -> RecentEvents:
    """Build the events for somebody who follows them, and waits for the next ones."""
    return RecentEvents(RedisConnection(conf().redis, patience_s=1.0))


@_once
def client_cache() -> S3ClientCache:
    return S3ClientCache(conf())


def preload() -> None:
    """Load what every worker needs, S3's description above all: children forked later share it."""
    S3ClientCache(conf()).get_client("s3.invalid", "none", "none")
    interactive().connection.health()
    reset()


@_once
def probing_clients() -> S3ClientCache:
    """Build clients for pages that somebody waits for, and for probes: one try, short time-outs."""
    storage = conf().storage
    short = storage.model_copy(
        update={
            "connect_timeout": min(storage.connect_timeout, PROBE_S),
            "read_timeout": min(storage.read_timeout, PROBE_S),
        }
    )
    return S3ClientCache(conf().model_copy(update={"storage": short}), limit=10, attempts=1)


@_once
def vault() -> Vault:
    site = settings.SITE
    if site.uses_infisical:
        return infisical.open_infisical_vault(site)
    return embedded_vault()


def embedded_vault() -> Vault:
    return local.open_local_vault(settings.DATA_DIR, vault_key())


def vault_key() -> str | None:
    """Return the key of the embedded vault, if one is configured."""
    key = settings.SITE.vault_key
    return key.get_secret_value() if key else None


@_once
def credentials() -> CredentialSnapshot:
    return CredentialSnapshot(vault())


def with_keys(bucket: BucketConfig, use: Callable[[KeyPair], T]) -> T:
    """Call ``use`` with the bucket's key pair.

    A pair that S3 refuses may have been rotated since our snapshot: read the vault, try once more.
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
    """Say how long ago this process read the vault; None if it never could."""
    try:
        return credentials().age_s()
    except BucketwatchError:  # every scan says so
        return None


def storage(
    clients: S3ClientCache,
    bucket: BucketConfig,
    pair: KeyPair,
    endpoints: EndpointRegistry,
    *,
    profiles: EndpointProfileStore | None = None,
) -> Storage:
    """Open a bucket whose requests wait for their permits.

    Without ``profiles`` what its endpoint shows is shared with all processes.
    """
    endpoints.register_pool(clients)
    limiter = endpoints.limiter_for(bucket.endpoint)
    return S3Storage(
        clients, bucket, pair, limiter=limiter, profiles=profiles or endpoints.profiles
    )


def interactive_storage(bucket: BucketConfig, pair: KeyPair) -> S3Storage:
    """Open a bucket for somebody who waits in front of a page: at once, and short time-outs."""
    profiles = interactive().endpoint_profiles
    limiter = UnlimitedEndpoint(interactive().endpoints.limiter_for(bucket.endpoint))
    return S3Storage(probing_clients(), bucket, pair, limiter=limiter, profiles=profiles)


def scan_settings(conf: EngineSettings) -> ScanSettings:
    """Pick what a scan needs of the configuration."""
    return ScanSettings(
        page_size=conf.page_size,
        lanes=conf.scan.lanes,
        slice_s=conf.scan.time_slice,
        baseline_margin_s=conf.scan.baseline_margin,
        strings=conf.redis.object_states,
        ttl_s=conf.redis.ttl,
        mass_share=conf.deletions.mass_share,
        mass_minimum=conf.deletions.mass_minimum,
        second_look_s=conf.deletions.second_look,
        confirm=conf.deletions.confirm,
        interval_s=conf.defaults.polling_interval,
        most_objects=conf.scan.most_objects,
        look_pass_gap_s=conf.look.pass_gap,
    )
