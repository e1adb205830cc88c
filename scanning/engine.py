"""The engine's door for pages, the API and commands: functions that return values."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from django.conf import settings

from scanning import wiring
from scanning.adapters import prometheus
from scanning.adapters.redis import connection, stats
from scanning.adapters.vault import local
from scanning.core import bucket_document, pacing
from scanning.core import explain as explain_rules
from scanning.core.endpoints import endpoint_name
from scanning.core.errors import (
    BucketwatchError,
    ConfigurationChanged,
    ConfigurationError,
    RedisUnavailable,
    UnknownBucket,
)
from scanning.core.types import EventType
from scanning.inspection import explain as explain_facts
from scanning.inspection.held import find_held_objects
from scanning.inspection.replay import Replay, ReplayContext

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from scanning.adapters.redis.bucket_configs import BucketConfigStore
    from scanning.adapters.redis.connection import RedisHealth
    from scanning.config.settings import EngineSettings
    from scanning.core.endpoint_profile import EndpointProfile
    from scanning.core.explain import Explanation
    from scanning.core.metrics.telemetry import (
        EndpointLoad,
        NextScan,
        PassUnderWay,
        ScanRecord,
        Telemetry,
    )
    from scanning.core.probing import LastProbe
    from scanning.core.replay import Selection
    from scanning.core.request_costs import DailyRequests, Requests
    from scanning.core.types import BucketConfig, KeyPair, ObjectState
    from scanning.inspection.held import HeldObjects
    from scanning.ports import Vault

# --- the installation


def one_wait() -> AbstractContextManager[None]:
    """Let this thread wait once for a Redis that hangs, however often it asks in the block."""
    return connection.one_wait()


def redis_health() -> RedisHealth:
    return wiring.interactive().connection.health()


def metrics() -> dict[str, Any]:
    """Read the documented `/metrics` object. Raises RedisUnavailable."""
    return stats.read(wiring.interactive().connection, wiring.conf())


def metrics_text(form: prometheus.Format) -> tuple[bytes, str]:
    """Write the metrics in a text format; returns its content type too. Needs no Redis."""
    store = wiring.interactive().telemetry
    try:
        measured = prometheus.Measured(
            counted=stats.counted(wiring.interactive().connection),
            documented=metrics(),
            telemetry=store.read(),
            states=store.bucket_states(),
            endpoints=(loads := endpoint_loads()),
            sent=wiring.interactive().endpoint_profiles.sent(load.endpoint for load in loads),
        )
    except RedisUnavailable:
        return prometheus.write(None, form, version=settings.VERSION)
    return prometheus.write(measured, form, version=settings.VERSION)


def telemetry() -> Telemetry:
    """Read what all processes on all hosts do. Raises RedisUnavailable."""
    return wiring.interactive().telemetry.read()


def scan_history(bucket: str) -> list[ScanRecord]:
    """List a bucket's last scans, the oldest first. Raises RedisUnavailable."""
    return wiring.interactive().telemetry.history(bucket)


def events_today(buckets: Iterable[str]) -> dict[str, int]:
    """Count the events of each bucket since midnight UTC. Raises RedisUnavailable."""
    return wiring.interactive().telemetry.events_today(buckets)


def next_scans(buckets: Mapping[str, str]) -> dict[str, NextScan]:
    """Tell when each bucket (name -> region) is scanned next. Raises RedisUnavailable."""
    return wiring.interactive().schedule.next_scans(buckets)


def quiet_times(buckets: Iterable[str]) -> dict[str, float]:
    """Tell for how long nothing had changed in buckets when their last passes began, seconds.

    Those of which that is not known are left out. Raises RedisUnavailable.
    """
    return wiring.interactive().schedule.quiet_times(buckets)


def late_buckets() -> frozenset[str]:
    """List buckets that should have been scanned by now. Raises RedisUnavailable."""
    return wiring.interactive().schedule.late()


def pass_under_way(bucket: str) -> PassUnderWay | None:
    """Report how far the unfinished pass over a bucket has come. Raises RedisUnavailable."""
    return wiring.interactive().bucket_status.pass_under_way(bucket)


def last_probe(bucket: str) -> LastProbe | None:
    """Tell what probes saw of a bucket last; None without any. Raises RedisUnavailable."""
    return wiring.interactive().probes.last([bucket]).get(bucket)


def being_cleared() -> list[str]:
    """List removed buckets that Redis still holds something of. Raises RedisUnavailable."""
    return wiring.interactive().bucket_status.being_cleared()


def requests(buckets: Iterable[str]) -> dict[str, DailyRequests]:
    """Count what was sent for each bucket, today and yesterday. Raises RedisUnavailable."""
    return wiring.interactive().telemetry.requests(buckets)


def endpoint_requests(endpoints: Iterable[str]) -> dict[str, DailyRequests]:
    """Count what was sent to each endpoint, today and yesterday. Raises RedisUnavailable."""
    return wiring.interactive().telemetry.endpoint_requests(endpoints)


def all_requests_today() -> dict[str, Requests]:
    """Count what was sent to every endpoint since midnight UTC. Raises RedisUnavailable."""
    return wiring.interactive().telemetry.all_requests_today()


def stretched_buckets() -> dict[str, float]:
    """Tell until when passes of buckets wait for their budgets. Raises RedisUnavailable."""
    return wiring.interactive().schedule.stretched()


def endpoint_loads() -> list[EndpointLoad]:
    """Report how the endpoints asked lately may be asked now. Raises RedisUnavailable."""
    return wiring.interactive().endpoint_health.list_loads()


def endpoint_profiles(endpoints: Iterable[str]) -> dict[str, EndpointProfile]:
    """Read what is known of endpoints, by `endpoint_name`. Raises RedisUnavailable."""
    return wiring.interactive().endpoint_profiles.read_all(endpoints)


def endpoint_limits(endpoint: str) -> pacing.EndpointLimits:
    """Say what the configuration allows at an endpoint of which nobody set limits."""
    return pacing.find_limits(endpoint, wiring.conf().endpoint_limits)


def expected_objects(buckets: Iterable[BucketConfig]) -> int | None:
    """Count the objects that the last scans of buckets saw; None if one was never scanned.

    Raises RedisUnavailable.
    """
    known = wiring.background().bucket_status.read([bucket.name for bucket in buckets])
    if any(status.last_scan_at is None for status in known):
        return None
    return sum(status.objects for status in known)


# --- one bucket


def scan_now(name: str, region: str, endpoint: str) -> None:
    """Make a scheduled bucket due, and have it tried also where its endpoint is dead.

    Raises RedisUnavailable.
    """
    scan_all_now([(name, region, endpoint)])


def scan_all_now(buckets: Iterable[tuple[str, str, str]]) -> None:
    """Make many buckets due: name, region and endpoint of each."""
    rows = list(buckets)
    for endpoint in {endpoint_name(endpoint) for *_, endpoint in rows}:
        wiring.interactive().endpoint_health.update(
            endpoint, lambda health, now: pacing.allow_probe_now(health, now=now)
        )
    wiring.interactive().schedule.make_due({name: region for name, region, _ in rows})


def request_looks(
    buckets: Mapping[str, str], *, keys: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> set[str]:
    """Have buckets (name -> region) looked at now, first of all at ``keys`` (by bucket).

    Names the buckets that are scheduled. Raises RedisUnavailable.
    """
    return wiring.interactive().schedule.request_looks(buckets, keys=keys)


def first_keys(
    name: str, document: Mapping[str, Any], pair: KeyPair, *, limit: int
) -> tuple[str, ...]:
    """List the first keys of the bucket that a document describes; learn its endpoint's profile.

    Raises the errors of S3.
    """
    bucket = bucket_document.parse(name, document, notifications=True)
    source = wiring.interactive_storage(bucket, pair)
    page = source.page("", limit)
    keys = tuple(source.rows(page.entries).columns.keys)
    with suppress(BucketwatchError):  # it lists, which is what was asked
        source.learn_profile()
    return keys


def explain(name: str, key: str) -> Explanation:
    """Say what the next scan would find of one key, and why it would or would not be announced.

    Changes nothing, and does not wait long. Raises UnknownBucket and RedisUnavailable; a bucket
    that cannot be listed, or of which something is lost, is a part of the explanation.
    """
    bucket = _configured(name, wiring.interactive().bucket_configs)
    conf, now = wiring.conf(), time.time()
    facts = explain_facts.collect_facts(
        bucket,
        key,
        states=wiring.interactive().states,
        listed=lambda: wiring.with_keys(bucket, lambda pair: _listed(bucket, key, pair)),
        schedule=wiring.interactive().bucket_status.schedule_status(
            bucket, queue_name=conf.redis.queue_name, now=now
        ),
        now=now,
    )
    probe_s, has_totals = _probes_of(bucket, conf)
    return explain_rules.explain(
        replace(
            facts,
            queue_high_water=conf.queue.high_water,
            second_look_s=conf.deletions.second_look,
            baseline_margin_s=conf.scan.baseline_margin,
            intervals=conf.polling_intervals(bucket.polling_interval_s, bucket.polling_longest_s),
            probe_s=probe_s,
            has_totals=has_totals,
            most_objects=conf.scan.objects_limit(bucket.most_objects),
        )
    )


def _probes_of(bucket: BucketConfig, conf: EngineSettings) -> tuple[float, bool]:
    """Tell how often a bucket is probed, 0 for never, and whether it is told totals."""
    plan = conf.probe_plan(bucket.probe_interval_s, own_polling_s=bucket.polling_interval_s)
    store, last = wiring.interactive().probes, last_probe(bucket.name)
    has_totals = last is None or last.totals is not None
    is_probed = store.read([bucket.name])[bucket.name].is_probed(plan, page_size=conf.page_size)
    return plan.every_s if is_probed and (has_totals or plan.is_chosen) else 0.0, has_totals


def _listed(bucket: BucketConfig, key: str, pair: KeyPair) -> ObjectState | None:
    source = wiring.interactive_storage(replace(bucket, prefix=key), pair)
    return explain_facts.listed_of(source, key)


def held_objects(name: str) -> HeldObjects:
    """Look up which objects of a bucket are held; none where nothing is.

    Changes nothing. Raises UnknownBucket, StateDamaged, StateLost and RedisUnavailable.
    """
    adapters = wiring.interactive()
    return find_held_objects(adapters.states, _configured(name, adapters.bucket_configs))


def replay(
    name: str, chosen: Selection, *, id_: str, after: str = "", any_type: bool = False
) -> Replay:
    """Announce again what is known of a bucket; nothing happens before it is asked to.

    ``any_type``: as event types too that the bucket does not announce. Raises UnknownBucket,
    RedisUnavailable, and the errors of the vault.
    """
    first = _configured(name, wiring.background().bucket_configs)

    def bucket() -> BucketConfig:
        now = _configured(name, wiring.background().bucket_configs)
        if not now.notifications:
            raise ConfigurationChanged(f"{name}: its notifications are off: switch them on first")
        return replace(now, events=frozenset(EventType)) if any_type else now

    adapters, pair = wiring.background(), wiring.credentials().get(first.credential)
    context = ReplayContext(
        bucket=bucket,
        storage=wiring.storage(wiring.client_cache(), first, pair, adapters.endpoints),
        states=wiring.replay_states(),
        leases=adapters.leases,
        heartbeat=adapters.heartbeat,
        slots=wiring.conf().parallel.rate_limit_per_region,
    )
    return Replay(context, chosen, id_=id_, after=after)


def _configured(name: str, store: BucketConfigStore) -> BucketConfig:
    bucket = store.get(name)
    if bucket is None:
        raise UnknownBucket(f"{name}: Redis holds no configuration of this bucket that can be read")
    return bucket


# --- the vault


def rotate_vault_key() -> Path:
    """Give the embedded vault a new key; returns the file that holds it."""
    if settings.SITE.uses_infisical:
        raise ConfigurationError(
            "The keys are in Infisical, as the INFISICAL_ variables say: the embedded vault is "
            "not in use"
        )
    return local.rotate_key(settings.DATA_DIR, wiring.vault_key())


def both_vaults() -> tuple[Vault, Vault]:
    """Open the embedded vault and Infisical, to copy from one to the other.

    Raises ConfigurationError unless there are both.
    """
    if not settings.SITE.uses_infisical:
        raise ConfigurationError("Infisical is not configured: set the INFISICAL_ variables first")
    if not (settings.DATA_DIR / "vault.enc").exists():
        raise ConfigurationError(f"There is no embedded vault in {settings.DATA_DIR}")
    return wiring.embedded_vault(), wiring.vault()
