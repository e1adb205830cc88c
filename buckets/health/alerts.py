"""What an operator has to look at now, with the reason and the next step, in words.

The dashboard and ``manage.py status`` show the same list from here. It is short however many
buckets there are: what has one cause is one line, with some of its buckets as examples.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from django.db.models import Count, F, Window
from django.db.models.functions import Coalesce, RowNumber
from django.utils import timezone
from django.utils.text import capfirst

from buckets import selectors
from buckets.formatting import (
    as_sentence,
    format_duration,
    format_time_of_day,
    join_some,
    pluralize,
)
from buckets.health.costs import affordable_interval_s, costs_at, costs_of
from buckets.models import Bucket, Outbox, VaultRemoval
from scanning import engine, wiring
from scanning.core.endpoints import endpoint_name
from scanning.core.errors import StateLost
from scanning.core.remedies import REMEDIES, remedy_for
from scanning.core.scan_warnings import EXPLAINED, WarningKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from buckets.health.costs import Costs
    from scanning.core.errors import RedisUnavailable
    from scanning.core.metrics.telemetry import EndpointLoad, RegionLoad, Telemetry

EXAMPLES = 3
LIMIT_PER_KIND = 10
# Changes are mirrored and removals done within seconds, unless something is away.
WAITS = timedelta(minutes=1)
QUEUE_FILLING = 0.8
QUEUE_OLD_S = 3600.0


class AlertKind(StrEnum):
    """What is wrong, the worst first."""

    REDIS_AWAY = "Redis away"
    NO_MONITOR = "nothing is scheduled"
    QUEUE_FULL = "queue full"
    LOST = "forgotten by Redis"
    ENDPOINT_DEAD = "endpoint away"
    FAILING = "failing"
    HELD = "held"
    LATE = "late"
    SCAN_WARNING = "odd listing"
    BUDGET = "budget runs short"
    REDIS_AT_RISK = "Redis may lose data"
    QUEUE_FILLING = "queue filling up"
    QUEUE_UNREAD = "queue unread"
    NOT_MIRRORED = "changes wait for Redis"
    VAULT_REMOVALS = "removals wait for the vault"
    NO_WEBHOOK = "no webhook"


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing to look at. ``bucket`` if it concerns one only, else ``count`` says how many.

    ``error_class`` is that of a failing bucket, or of several that fail alike.
    """

    kind: AlertKind
    title: str
    reason: str
    next_step: str
    bucket: str | None = None
    count: int = 1
    error_class: str = ""


def alerts(telemetry: Telemetry, endpoints: Sequence[EndpointLoad]) -> list[Alert]:
    """List what to look at now, the worst first; empty if all is well."""
    found = [
        *_redis_alerts(telemetry),
        *_dead_endpoint_alerts(endpoints),
        *_redis_risk_alerts(),
        *_database_alerts(),
        *_budget_alerts(),
    ]
    worst_first = list(AlertKind)
    return sorted(found, key=lambda one: worst_first.index(one.kind))


def alerts_without_redis(problem: RedisUnavailable) -> list[Alert]:
    """List the same while Redis is away, which is then the worst."""
    return [_redis_away_alert(problem), *_database_alerts()]


# --- in Redis


def _redis_away_alert(exc: RedisUnavailable) -> Alert:
    return Alert(
        AlertKind.REDIS_AWAY,
        "Redis is away",
        f"{as_sentence(str(exc))} Nothing is scanned or announced meanwhile; nothing is lost.",
        "Start Redis, or correct the REDIS_ settings.",
    )


def _redis_alerts(telemetry: Telemetry) -> Iterator[Alert]:
    # Regions are only known once a monitor has led.
    if not telemetry.leader and (telemetry.regions or selectors.any_is_active()):
        yield Alert(
            AlertKind.NO_MONITOR,
            "Nothing is scheduled",
            "No monitor holds the lead, so no bucket is scanned.",
            "Start `manage.py runmonitor` on one host at least, and look into its log.",
        )
    yield from _queue_alerts(telemetry)
    late = [region for region in telemetry.regions if region.late]
    late.sort(key=lambda region: -region.late)
    yield from map(_late_alert, late[:LIMIT_PER_KIND])


def _dead_endpoint_alerts(endpoints: Sequence[EndpointLoad]) -> Iterator[Alert]:
    dead = [one for one in endpoints if one.state == "dead"]
    for one in dead[:LIMIT_PER_KIND]:
        yield Alert(
            AlertKind.ENDPOINT_DEAD,
            f"{one.endpoint} does not answer",
            f"{as_sentence(one.why)} Its buckets wait; it is tried again every few seconds.",
            "Nothing, if it is short: its buckets are scanned as soon as it answers. Else check "
            "the network between, and the provider's status page.",
        )
    if (more := len(dead) - LIMIT_PER_KIND) > 0:
        yield Alert(
            AlertKind.ENDPOINT_DEAD,
            f"{more} endpoints more do not answer",
            "So many at once hint at this side of the network.",
            "Check name resolution and the way out of the hosts that scan.",
            count=more,
        )


def _redis_risk_alerts() -> Iterator[Alert]:
    for warning in engine.redis_health().warnings:
        yield Alert(
            AlertKind.REDIS_AT_RISK,
            "Redis may lose data",
            f"{warning.risk}.",
            f"{capfirst(warning.remedy)}.",
        )


def _queue_alerts(telemetry: Telemetry) -> Iterator[Alert]:
    length, most = telemetry.queue_length, wiring.conf().queue.high_water
    oldest_s = telemetry.queue_oldest_s or 0.0
    if length >= most:
        yield Alert(
            AlertKind.QUEUE_FULL,
            "The notification queue is full",
            f"{length:,} notifications wait; scanning pauses from {most:,} on. Nothing is lost.",
            "Start or mend the queue's consumers, or raise QUEUE_HIGH_WATER if Redis has the "
            "memory for it.",
            count=length,
        )
    elif length >= QUEUE_FILLING * most:
        yield Alert(
            AlertKind.QUEUE_FILLING,
            "The notification queue fills up",
            f"{length:,} notifications wait; scanning pauses from {most:,} on.",
            "See whether the queue's consumers keep up; start more of them.",
            count=length,
        )
    elif oldest_s >= QUEUE_OLD_S:
        yield Alert(
            AlertKind.QUEUE_UNREAD,
            "The notification queue is not being read",
            f"Its oldest notification has waited for {oldest_s / 3600:.0f} h.",
            "Start or mend the queue's consumers.",
            count=length,
        )


def _late_alert(region: RegionLoad) -> Alert:
    reason, next_step = _why_late(region)
    return Alert(
        AlertKind.LATE,
        f"{pluralize(region.late, 'bucket')} in {region.region} {_are(region.late)} late",
        f"Due, and not being scanned: {reason}.",
        next_step,
        count=region.late,
    )


def _why_late(region: RegionLoad) -> tuple[str, str]:
    """Return the reason and the next step."""
    if not region.running:
        reason = "no worker takes this region's buckets"
        return reason, (
            "Start `manage.py runworkers` (or runmonitor without --no-workers), and see whether "
            "--regions leaves this region out."
        )
    if region.running >= region.slots:
        reason = f"all {region.slots} slots of the region are taken"
        return reason, (
            "Raise PARALLEL_RATE_LIMIT_PER_REGION if the provider allows it, or lengthen polling "
            "intervals."
        )
    reason = f"{region.running} of {region.slots} slots are taken, and workers do not fill them"
    return reason, "Raise PARALLEL_MAX_WORKERS, or run workers on another host."


def _budget_alerts() -> Iterator[Alert]:
    """Name the buckets whose passes wait for a budget, each with its numbers if they are few."""
    stretched = engine.stretched_buckets()
    if not stretched:
        return
    rows = selectors.monitored(stretched.keys())
    buckets = list(rows[: LIMIT_PER_KIND + 1])
    if len(buckets) > LIMIT_PER_KIND:
        number = rows.count()
        names = join_some([bucket.name for bucket in buckets], limit=EXAMPLES)
        yield Alert(
            AlertKind.BUDGET,
            f"{pluralize(number, 'bucket')}: budgets of requests make passes rarer",
            f"Among them {names} What changes there is announced later.",
            "Raise the requests a day of these buckets or of their endpoints, or lengthen their "
            "polling intervals.",
            count=number,
        )
        return
    costs, shared = costs_of(buckets), costs_at(selectors.endpoints_of(buckets))
    for bucket in buckets:
        there = shared.get(endpoint_name(bucket.endpoint))
        yield _budget_alert(bucket, costs[bucket.name], there, until=stretched[bucket.name])


def _budget_alert(bucket: Bucket, costs: Costs, there: Costs | None, *, until: float) -> Alert:
    """Make one of what the bucket costs, and what ``there``, at its endpoint."""
    interval = format_duration(wiring.conf().defaults.interval_s(bucket.polling_interval))
    budgets, pays_for = [], ""
    if costs.budget:
        budgets.append(
            f"{costs.total_today or 0:,} of its {costs.budget:,} requests a day were sent"
        )
        longer = format_duration(affordable_interval_s(bucket, costs.budget))
        pays_for = f" to {longer} or more, which the budget pays for"
    if there and there.budget:
        shared = f"{there.budget:,} that the buckets of its endpoint share"
        budgets.append(f"{there.total_today or 0:,} of the {shared}")
    return Alert(
        AlertKind.BUDGET,
        f"{bucket.name}: its budget of requests makes passes rarer",
        f"The next one is at {format_time_of_day(until)} UTC, not {interval} after the last: "
        f"{' and '.join(budgets)}. What changes there is announced later.",
        f"Lengthen its polling interval{pays_for}, or raise the requests a day.",
        bucket.name,
    )


# --- in the database


def _database_alerts() -> Iterator[Alert]:
    yield from _lost_alerts()
    yield from _failing_alerts()
    yield from _held_alerts()
    yield from _warning_alerts()
    waiting_since = timezone.now() - WAITS
    changes = Outbox.objects.filter(created_at__lt=waiting_since)
    if number := changes.values("bucket").distinct().count():
        yield Alert(
            AlertKind.NOT_MIRRORED,
            f"Changes of {pluralize(number, 'bucket')} have not reached the scanner",
            "They are saved, and are written to Redis by the monitor that leads.",
            "See that Redis answers and that `manage.py runmonitor` is running.",
            count=number,
        )
    if number := VaultRemoval.objects.filter(created_at__lt=waiting_since).count():
        yield Alert(
            AlertKind.VAULT_REMOVALS,
            f"The vault still holds {number} {'entry' if number == 1 else 'entries'} to be removed",
            "Their last user is gone; the vault could not be told yet.",
            "See that the vault answers, and that its settings let bucketwatch delete entries.",
            count=number,
        )
    if wiring.conf().ready.require_webhook and selectors.lacks_webhook():
        yield Alert(
            AlertKind.NO_WEBHOOK,
            "No bucket has a webhook URL",
            "/ready answers 503: a site without any usually forgot it.",
            "Enter a webhook URL at a bucket, or set READY_REQUIRE_WEBHOOK=false if the queue's "
            "consumers need none.",
        )


def _lost_alerts() -> Iterator[Alert]:
    lost = selectors.in_state(Bucket.objects.all(), selectors.State.LOST)
    number = lost.count()
    if not number:
        return
    names = ", ".join(lost.order_by("name").values_list("name", flat=True)[:EXAMPLES])
    yield Alert(
        AlertKind.LOST,
        f"Redis forgot {pluralize(number, 'bucket')}",
        "It was emptied, or restored from an old backup. Nothing is scanned or announced of "
        f"{names}{' and others' if number > EXAMPLES else ''} meanwhile.",
        REMEDIES[StateLost].next_step,
        names if number == 1 else None,
        count=number,
    )


def _failing_alerts() -> list[Alert]:
    """List the largest groups of one error first; small groups bucket by bucket."""
    failing = selectors.in_state(Bucket.objects.all(), selectors.State.FAILING)
    same_error = [F("last_error_class")]
    examples = (
        failing.annotate(
            rank=Window(RowNumber(), partition_by=same_error, order_by="name"),
            group_size=Window(Count("id"), partition_by=same_error),
        )
        .filter(rank__lte=EXAMPLES)
        .order_by("-group_size", "last_error_class", "name")
    )
    groups: dict[str, list[Bucket]] = {}
    for bucket in examples:
        groups.setdefault(bucket.last_error_class, []).append(bucket)
    return [found for group in groups.values() for found in _alerts_of_one_error(group)]


def _alerts_of_one_error(examples: Sequence[Bucket]) -> list[Alert]:
    remedy = remedy_for(examples[0].last_error_class)
    group_size: int = examples[0].group_size  # type: ignore[attr-defined]
    if group_size <= len(examples):
        return [
            Alert(
                AlertKind.FAILING,
                f"{bucket.name}: {remedy.meaning}",
                remedy.cut_from(bucket.last_error),
                remedy.next_step,
                bucket.name,
                error_class=bucket.last_error_class,
            )
            for bucket in examples
        ]
    names = ", ".join(bucket.name for bucket in examples)
    return [
        Alert(
            AlertKind.FAILING,
            f"{pluralize(group_size, 'bucket')}: {remedy.meaning}",
            f"Among them {names}. The first says: {remedy.cut_from(examples[0].last_error)}",
            remedy.next_step,
            count=group_size,
            error_class=examples[0].last_error_class,
        )
    ]


def _held_alerts() -> Iterator[Alert]:
    held = selectors.in_state(Bucket.objects.all(), selectors.State.HELD).order_by(
        Coalesce("held_since", "held_moved_since")
    )
    shown = list(held[:LIMIT_PER_KIND])
    for bucket in shown:
        if bucket.held_since:
            yield Alert(
                AlertKind.HELD,
                f"{bucket.name}: a mass deletion waits to be confirmed",
                f"{_missing(bucket.held_missing)} not listed any more. Nothing is announced of "
                "that yet; created and updated objects still are.",
                "See in S3 whether they were meant to go: if so, release the hold; if not, put "
                "them back, and the hold ends by itself.",
                bucket.name,
            )
        if bucket.held_moved_since:
            yield Alert(
                AlertKind.HELD,
                f"{bucket.name}: a storm of moved times waits for a choice",
                f"{pluralize(bucket.held_moved, 'object')} with the known ETag and size "
                f"{_have(bucket.held_moved)} another time. Nothing is announced of that yet; other "
                "changes still are.",
                "If they were not written again, but a clock or a server changed, take the new "
                "times silently; if they were, announce the updates.",
                bucket.name,
            )
    if len(shown) == LIMIT_PER_KIND and (more := held.count() - len(shown)):
        yield Alert(
            AlertKind.HELD,
            f"{pluralize(more, 'bucket')} more: mass deletions or moved times wait for a choice",
            "The longest held are shown above.",
            "Filter the list of buckets by state to see all of them.",
            count=more,
        )


def _warning_alerts() -> Iterator[Alert]:
    """Give one alert for each kind of warning, however many buckets have it."""
    buckets: dict[WarningKind, list[str]] = {}
    for bucket in selectors.with_scan_warnings():
        for warning in bucket.warnings:
            if warning.kind is WarningKind.LEFT_OUT and bucket.last_error_class:
                continue  # the bucket fails by that, and says so with numbers
            buckets.setdefault(warning.kind, []).append(bucket.name)
    for kind, names in buckets.items():
        explained = EXPLAINED[kind]
        only = names[0] if len(names) == 1 else None
        yield Alert(
            AlertKind.SCAN_WARNING,
            f"{only or pluralize(len(names), 'bucket')}: objects {explained.meaning}",
            "The rest is watched as usual. The page of the bucket names some of the keys"
            + (f". Among them {join_some(names, limit=EXAMPLES)}" if only is None else ""),
            explained.next_step,
            only,
            count=len(names),
        )


def _missing(number: int) -> str:
    was_known = "was known is" if number == 1 else "were known are"
    return f"{pluralize(number, 'object')} that {was_known}"


def _have(number: int) -> str:
    return "has" if number == 1 else "have"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"
