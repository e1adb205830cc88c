"""The one place that builds adapters; each once per process, anew in a forked child."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import django
from django.apps import apps
from django.conf import settings

from scanning.adapters import stats, vault_infisical, vault_local
from scanning.adapters.clearing import Clearing
from scanning.adapters.configuration import ConfigurationStore, parse_document
from scanning.adapters.leases import RedisLeases, RedisStatuses
from scanning.adapters.recent_events import RecentEvents
from scanning.adapters.redis_connection import RedisConnection, RedisHealth
from scanning.adapters.s3 import S3ClientCache, S3Storage
from scanning.adapters.schedule_store import ScheduleStore
from scanning.adapters.state import RedisStates
from scanning.adapters.vault_snapshot import CredentialSnapshot
from scanning.core.errors import BucketwatchError, ConfigurationError
from scanning.heartbeat import LeaseHeartbeat
from scanning.scan import ScanSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import redis

    from scanning.conf import ScanningConf
    from scanning.core.addresses import AddressRules
    from scanning.core.types import BucketConfig, KeyPair
    from scanning.ports import Storage, Vault

P = ParamSpec("P")
T = TypeVar("T")

PROBE_S = 5.0

_built: dict[tuple[int, str], Any] = {}
# Scan threads ask for the same things at the same moment. One builder may call another.
_building = threading.RLock()


def _after_fork() -> None:
    global _building  # noqa: PLW0603 - another thread of the parent may have held it
    _building = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)


def ensure_django() -> None:
    """Make `MultiRegionMonitor` usable from a plain Python shell, as its documentation shows."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bucketwatch.settings")
    if not apps.ready:
        django.setup()


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
    _built.clear()


def conf() -> ScanningConf:
    result: ScanningConf = settings.SCANNING
    return result


@dataclass(frozen=True, slots=True)
class Engine:
    """What scans and schedules share of one Redis."""

    connection: RedisConnection
    leases: RedisLeases
    states: RedisStates
    heartbeat: LeaseHeartbeat


def engine_over(client: redis.Redis, scanning: ScanningConf) -> Engine:
    """The engine on somebody's own Redis client (the documented `BucketScanner` brings one)."""
    if _own_client(client):
        return engine()
    return _engine(RedisConnection.over(client, scanning.redis), scanning)


def _own_client(client: redis.Redis) -> bool:
    return client is connection().client


@_once
def connection() -> RedisConnection:
    return RedisConnection(conf().redis)


@_once
def impatient_connection() -> RedisConnection:
    """For answers that must come quickly, also when Redis is away: web pages and probes."""
    return RedisConnection(conf().redis, patience_s=0.0, answer_s=1.5)


@_once
def engine() -> Engine:
    return _engine(connection(), conf())


def _engine(link: RedisConnection, scanning: ScanningConf) -> Engine:
    leases = RedisLeases(link)
    return Engine(link, leases, RedisStates(link, scanning), LeaseHeartbeat(leases))


@_once
def configuration() -> ConfigurationStore:
    return ConfigurationStore(connection())


@_once
def impatient_configuration() -> ConfigurationStore:
    """For the mirror on save: an operator does not wait for Redis, the outbox does."""
    return ConfigurationStore(impatient_connection())


@_once
def schedule() -> ScheduleStore:
    return ScheduleStore(connection())


@_once
def impatient_schedule() -> ScheduleStore:
    return ScheduleStore(impatient_connection())


@_once
def clearing() -> Clearing:
    return Clearing(connection(), conf().redis)


@_once
def statuses() -> RedisStatuses:
    return RedisStatuses(connection())


@_once
def recent_events() -> RecentEvents:
    return RecentEvents(impatient_connection())


@_once
def client_cache() -> S3ClientCache:
    return S3ClientCache(conf())


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
        return vault_infisical.open_infisical_vault(site)
    key = site.vault_key.get_secret_value() if site.vault_key else None
    return vault_local.open_local_vault(settings.DATA_DIR, key)


def rotate_vault_key() -> Path:
    """Give the embedded vault a new key; returns the file that holds it."""
    site = settings.SITE
    if site.uses_infisical:
        raise ConfigurationError(
            "The keys are in Infisical, as the INFISICAL_ variables say: the embedded vault is "
            "not in use"
        )
    key = site.vault_key.get_secret_value() if site.vault_key else None
    return vault_local.rotate_key(settings.DATA_DIR, key)


@_once
def credentials() -> CredentialSnapshot:
    return CredentialSnapshot(vault())


def vault_age_s() -> float | None:
    """How long ago this process read the vault; None if it never could."""
    try:
        return credentials().age_s()
    except BucketwatchError:  # every scan says so
        return None


def storage(
    clients: S3ClientCache, bucket: BucketConfig, pair: KeyPair, scanning: ScanningConf
) -> Storage:
    return S3Storage(clients, bucket, pair, scanning)


def bucket_config(name: str, document: Mapping[str, Any], *, notifications: bool) -> BucketConfig:
    """The engine's view of a configuration document; what makes no sense raises."""
    return parse_document(name, document, notifications=notifications)


def first_keys(
    name: str, document: Mapping[str, Any], pair: KeyPair, *, most: int
) -> tuple[str, ...]:
    """The first keys of the bucket that a configuration document describes: one request.

    Raises the errors of S3.
    """
    bucket = bucket_config(name, document, notifications=True)
    source = storage(probing_clients(), bucket, pair, conf())
    page = source.page("", most)
    return tuple(source.rows(page.entries).keys)


def address_rules() -> AddressRules:
    """Which addresses buckets and webhooks may be at."""
    return conf().address_rules


def redis_health() -> RedisHealth:
    return impatient_connection().health()


def metrics() -> dict[str, Any]:
    """The documented `/metrics` object. Raises RedisUnavailable."""
    return stats.read(impatient_connection(), conf())


def scan_settings(scanning: ScanningConf) -> ScanSettings:
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
