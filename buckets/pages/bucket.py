"""What the page of one bucket shows: how it is, what was found in it, how its scans went."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from django.urls import reverse
from django.utils.html import format_html
from django.utils.text import capfirst

from buckets import selectors
from buckets.formatting import (
    NOTHING,
    format_ago,
    format_duration,
    format_number,
    format_time_of_day,
    join_some,
    pluralize,
)
from buckets.health.costs import costs_of
from buckets.pages import badges, charts
from buckets.pages import costs as costs_in_words
from buckets.pages.probes import probes_in_words
from buckets.selectors import State
from scanning import engine, wiring
from scanning.core.errors import RedisUnavailable, StateLost
from scanning.core.remedies import REMEDIES, remedy_for
from scanning.core.scan_warnings import EXPLAINED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from django.utils.safestring import SafeString

    from buckets.models import Bucket
    from scanning.adapters.redis.recent_events import RecentEvent
    from scanning.core.metrics.telemetry import NextScan, PassUnderWay, ScanRecord

RECENT = 20


@dataclass(frozen=True, slots=True)
class PageFact:
    name: str
    value: SafeString | str


@dataclass(frozen=True, slots=True)
class Callout:
    """Why the bucket is not simply on time, and what to do."""

    title: str
    reason: str
    next_step: str


@dataclass(frozen=True, slots=True)
class BucketPage:
    """``redis_problem`` is why next scan, charts and events are missing; "" if they are not."""

    state: State
    callout: Callout | None
    facts: Sequence[PageFact]
    charts: Sequence[charts.Chart] = ()
    failed_scans: str = ""
    events: Sequence[RecentEvent] = ()
    redis_problem: str = ""
    warnings: Sequence[Callout] = ()

    @property
    def kind(self) -> str:
        return self.state.name.lower()


def look_at(bucket: Bucket) -> BucketPage:
    """Ask the database and Redis. Raises what the database raises."""
    try:
        next_scan = engine.next_scans({bucket.name: bucket.region})[bucket.name]
        under_way = engine.pass_under_way(bucket.name)
        probes = PageFact("Probes", probes_in_words(bucket))
        events_today = engine.events_today([bucket.name])[bucket.name]
        quiet_s = engine.quiet_times([bucket.name]).get(bucket.name)
        history = engine.scan_history(bucket.name)
        events = wiring.interactive().recent_events.read(limit=RECENT, bucket=bucket.name).events
    except RedisUnavailable as exc:
        return BucketPage(
            state=selectors.state(bucket),
            callout=_callout(bucket, selectors.state(bucket)),
            facts=list(_facts(bucket)),
            redis_problem=str(exc),
            warnings=_warnings(bucket),
        )
    state = selectors.state(bucket, late=next_scan.is_late(now=time.time()))
    return BucketPage(
        state=state,
        callout=_callout(bucket, state),
        facts=[
            *_facts(bucket, next_scan, events_today, quiet_s),
            probes,
            *_progress(bucket, under_way),
        ],
        charts=_charts(history),
        failed_scans=_failed(history),
        events=events,
        warnings=_warnings(bucket),
    )


def next_scan_in_words(bucket: Bucket, next_scan: NextScan | None) -> str:
    if next_scan is None or not bucket.monitoring_enabled:
        return NOTHING
    if next_scan.running:
        return "scanning now"
    if next_scan.at is None:
        return "not scheduled yet"
    left = next_scan.at - time.time()
    if left > 0:
        return f"in {format_duration(math.ceil(left))}"
    return f"{format_duration(-left)} overdue" if next_scan.is_late(now=time.time()) else "due now"


# --- why it is as it is


def _callout(bucket: Bucket, state: State) -> Callout | None:
    match state:
        case State.FAILING:
            remedy = remedy_for(bucket.last_error_class)
            since = f" ({format_ago(bucket.last_error_at)})" if bucket.last_error_at else ""
            reason = remedy.cut_from(bucket.last_error) + since
            return Callout(capfirst(remedy.meaning), reason, remedy.next_step)
        case State.LOST:
            remedy = REMEDIES[StateLost]
            return Callout(
                remedy.meaning,
                f"Redis was emptied, or restored from an old backup; noticed "
                f"{format_ago(bucket.lost_since)}. Nothing is scanned or announced meanwhile.",
                remedy.next_step,
            )
        case State.HELD:
            return _missing(bucket) if bucket.held_since else _moved_times(bucket)
        case State.LATE:
            return Callout(
                "Due, and not being scanned",
                "No worker has taken it since it was due.",
                "The dashboard says why its region is late.",
            )
        case State.PAUSED:
            return Callout(
                "Monitoring is paused",
                "Nothing is scanned or announced. What changes meanwhile is found when it is "
                "resumed.",
                "Resume it when it should be watched again.",
            )
        case State.WAITING | State.WATCHED:
            return None


def _missing(bucket: Bucket) -> Callout:
    return Callout(
        f"{pluralize(bucket.held_missing, 'object')} missing: a mass deletion is held",
        f"Noticed {format_ago(bucket.held_since)}. Nothing is announced of them yet; other "
        "changes still are.",
        "See in S3 whether they were meant to go. If so, announce the deletions, or start "
        "over silently; if not, put them back, and the hold ends by itself.",
    )


def _moved_times(bucket: Bucket) -> Callout:
    objects = pluralize(bucket.object_count or bucket.held_moved, "object")
    return Callout(
        f"{bucket.held_moved:,} of {objects} with another time only: they are held",
        f"Noticed {format_ago(bucket.held_moved_since)}. ETags and sizes are as known. Nothing is "
        "announced of them yet; other changes still are.",
        "If they were not written again, but a clock or a server changed, take the new times "
        "silently; if they were, announce the updates. If the times come back, the hold ends by "
        "itself.",
    )


def _warnings(bucket: Bucket) -> list[Callout]:
    """Tell what the last complete scan warned of, with some of the keys."""
    found = [_moved_times(bucket)] if bucket.held_since and bucket.held_moved_since else []
    for warning in bucket.warnings:
        explained = EXPLAINED[warning.kind]
        title = f"{pluralize(warning.count, 'object')} {explained.meaning}"
        examples = join_some(warning.examples, limit=len(warning.examples))
        more = " and others" if warning.count > len(warning.examples) else ""
        found.append(Callout(title, f"{examples}{more}", explained.next_step))
    return found


# --- facts


def _facts(
    bucket: Bucket,
    next_scan: NextScan | None = None,
    events_today: int | None = None,
    quiet_s: float | None = None,
) -> Iterator[PageFact]:
    yield PageFact("Objects", format_number(bucket.object_count))
    yield PageFact("Events today", format_number(events_today))
    yield PageFact("Last scan", badges.moment(bucket.last_scan_at))
    yield PageFact("Duration", format_duration(bucket.last_scan_duration_s))
    yield PageFact("Next scan", next_scan_in_words(bucket, next_scan))
    yield PageFact("Polling interval", _interval(bucket, quiet_s))
    costs = costs_of([bucket])[bucket.name]
    yield PageFact("Requests today", costs_in_words.sent_today(costs))
    yield PageFact("Requests a day", costs_in_words.a_day(costs.forecast))
    if costs.budget:
        yield PageFact("Budget", costs_in_words.budget(costs))
    if bucket.bucket_name:
        yield PageFact("Name in S3", bucket.bucket_name)
    yield PageFact("Region", bucket.region)
    yield PageFact("Endpoint", bucket.endpoint)
    yield PageFact("Credential", _credential(bucket))
    yield PageFact("Notifications", _notifications(bucket))
    if bucket.prefix or bucket.suffix:
        yield PageFact("Keys", _keys(bucket))
    yield PageFact("Webhook", bucket.webhook_url or "none")
    if selectors.is_waiting_for_redis(bucket.name):
        yield PageFact("Last change", "has not reached the scanner yet")


def _progress(bucket: Bucket, under_way: PassUnderWay | None) -> Iterator[PageFact]:
    if under_way is None:
        return
    listed = pluralize(under_way.listed, "object")
    total = bucket.object_count or 0
    share = f" of about {total:,}" if total >= under_way.listed else ""
    began = format_ago(datetime.fromtimestamp(under_way.began, UTC))
    yield PageFact("Scan under way", f"{listed} listed{share}; it began {began}")


def _interval(bucket: Bucket, quiet_s: float | None) -> str:
    intervals = wiring.conf().polling_intervals(bucket.polling_interval, bucket.polling_longest)
    shortest = format_duration(intervals.shortest_s)
    shortest += "" if bucket.polling_interval else " (default)"
    if not intervals.may_grow:
        return shortest
    now = "" if quiet_s is None else f"; now {format_duration(intervals.choose(quiet_s))}"
    longest = format_duration(intervals.longest_s)
    return f"{shortest}, up to {longest} while nothing changes{now}"


def _credential(bucket: Bucket) -> SafeString:
    url = reverse("admin:buckets_credential_change", args=[bucket.credential_id])
    return format_html('<a href="{}">{}</a>', url, bucket.credential.name)


def _notifications(bucket: Bucket) -> str:
    if not bucket.notifications_enabled:
        return "off: what changes is not announced"
    return ", ".join(bucket.wanted_events) or "none wanted"


def _keys(bucket: Bucket) -> str:
    begin = f"beginning with “{bucket.prefix}”" if bucket.prefix else ""
    end = f"ending with “{bucket.suffix}”" if bucket.suffix else ""
    return ", ".join(filter(None, (begin, end)))


# --- the history of its scans


def _failed(history: Sequence[ScanRecord]) -> str:
    failed = sum(1 for record in history if record.error_class)
    return f"{failed} of {len(history)} failed" if failed else ""


def _charts(history: Sequence[ScanRecord]) -> list[charts.Chart]:
    """Draw passes, and what looks between them found."""
    passes = [record for record in history if record.kind == "pass"]
    if not passes:
        return []
    return [
        _chart("Duration", passes, lambda record: record.duration_s, format_duration, least=0.1),
        _chart("Objects", passes, lambda record: record.objects, format_number),
        _chart("Changes found", history, lambda record: record.changes, format_number),
    ]


def _chart(
    title: str,
    history: Sequence[ScanRecord],
    value: Callable[[ScanRecord], float],
    format_value: Callable[[float], str],
    *,
    least: float = 1.0,
) -> charts.Chart:
    """One column a scan; those that failed are marked, and have no value."""
    values = [0.0 if record.error_class else value(record) for record in history]
    top = charts.round_up(max(values), least=least)
    return charts.Chart(
        title=title,
        summary=f"{title} of the last {pluralize(len(history), 'scan')}: at most "
        f"{format_value(max(values))}, lately {format_value(values[-1])}.",
        series=(charts.Series("scans", charts.bars(values, top)),),
        columns=tuple(
            charts.Column(
                x,
                _column_label(record, format_value(values[x])),
                is_marked=bool(record.error_class),
            )
            for x, record in enumerate(history)
        ),
        scale=format_value(top),
        ticks=(_ago(history[0]), _ago(history[-1])),
    )


def _column_label(record: ScanRecord, value: str) -> str:
    outcome = f"failed: {remedy_for(record.error_class).meaning}" if record.error_class else value
    kind = ", look" if record.kind == "look" else ""
    return f"{format_time_of_day(record.at)} UTC{kind}: {outcome}"


def _ago(record: ScanRecord) -> str:
    return format_ago(datetime.fromtimestamp(record.at, UTC))
