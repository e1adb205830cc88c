"""Telemetry as the dashboard shows it: readings in words, and charts."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from buckets.formatting import (
    format_duration,
    format_number,
    format_requests,
    format_time_of_day,
)
from buckets.health.overview import rate_per_s
from buckets.pages import charts
from scanning.core.types import EventType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scanning.core.metrics.telemetry import Percentiles, Telemetry, TimeBucket
    from scanning.core.request_costs import Requests

_TREND_MINUTES = 5
_TREND_SHARE, _TREND_LEAST = 0.1, 10


@dataclass(frozen=True, slots=True)
class Reading:
    """A number of now; ``more`` explains it, ``line`` is its last hour on a scale of ``top``."""

    name: str
    value: str
    more: str
    line: str = ""
    trend: str = ""


def readings(telemetry: Telemetry) -> list[Reading]:
    hour, now = telemetry.last_hour, time.time()
    lengths = [moment.queue_length for moment in hour]
    return [
        Reading(
            "Queue",
            format_number(telemetry.queue_length),
            _waiting(telemetry),
            _sparkline(lengths),
            _trend([length for length in lengths if length is not None]),
        ),
        Reading(
            "Objects a second",
            format_number(rate_per_s(hour, "objects", now=now)),
            f"{format_number(rate_per_s(hour, 'list_calls', now=now))} LIST calls a second",
            _sparkline([moment.objects for moment in hour[:-1]]),  # the last one is not over
        ),
        Reading(
            "Lateness of scans",
            format_duration(telemetry.lateness.p50),
            _within(telemetry.lateness),
        ),
        Reading(
            "Lag of notifications",
            format_duration(telemetry.lag.p50),
            _within(telemetry.lag),
        ),
    ]


def requests_today(telemetry: Telemetry, sent: Requests, cost: str) -> Reading:
    """Tell what was sent since midnight UTC, and its ``cost``; the line has LIST calls."""
    kinds = format_requests(sent)
    return Reading(
        "Requests today",
        format_number(sum(sent.values())),
        f"{kinds}; {cost}" if cost else kinds,
        _sparkline([moment.list_calls for moment in telemetry.last_hour[:-1]]),
    )


def _waiting(telemetry: Telemetry) -> str:
    if not telemetry.queue_length:
        return "nothing waits"
    if telemetry.queue_oldest_s is None:
        return "the oldest does not say since when"
    return f"oldest for {format_duration(telemetry.queue_oldest_s)}"


def _within(spread: Percentiles) -> str:
    if spread.p95 is None:
        return "none in the last hour"
    return f"half of them; 95 % within {format_duration(spread.p95)}"


def _sparkline(values: Sequence[int | None]) -> str:
    top = max((value for value in values if value is not None), default=0)
    return charts.line(values, top) if top else ""


def _trend(lengths: Sequence[int]) -> str:
    """Say how the queue grows: "up", "down" or "level"; "" while that cannot be said."""
    before, after = lengths[-2 * _TREND_MINUTES : -_TREND_MINUTES], lengths[-_TREND_MINUTES:]
    if len(before) < _TREND_MINUTES:
        return ""
    was, now = sum(before) / len(before), sum(after) / len(after)
    if abs(now - was) < max(_TREND_LEAST, was * _TREND_SHARE):
        return "level"
    return "up" if now > was else "down"


# --- charts


def notification_charts(telemetry: Telemetry) -> list[charts.Chart]:
    return [
        _notifications("the last hour", telemetry.last_hour, ("60 min ago", "30 min ago", "now")),
        _notifications("the last day", telemetry.last_day, ("24 h ago", "12 h ago", "now")),
    ]


def _notifications(
    span: str, moments: Sequence[TimeBucket], ticks: tuple[str, str, str]
) -> charts.Chart:
    """Draw notifications a minute by type, one column a moment."""
    minutes = [moment.span_s / 60 for moment in moments]
    rates = {
        kind.value: [
            getattr(moment, kind.value) / length
            for moment, length in zip(moments, minutes, strict=True)
        ]
        for kind in EventType
    }
    sums = [sum(column) for column in zip(*rates.values(), strict=True)]
    top = charts.round_up(max(sums, default=0.0))
    totals = {kind: sum(getattr(moment, kind) for moment in moments) for kind in rates}
    listed = ", ".join(f"{number:,} {kind}" for kind, number in totals.items())
    return charts.Chart(
        title=f"Notifications a minute in {span}",
        summary=f"Notifications in {span}: {listed}; at most {format_number(max(sums, default=0))} "
        "a minute.",
        series=tuple(
            charts.Series(kind, path, format_number(totals[kind]))
            for kind, path, _ in charts.stacked(rates.items(), top)
        ),
        columns=tuple(
            charts.Column(x, _column_label(moment, rates, x)) for x, moment in enumerate(moments)
        ),
        scale=charts.scale(top),
        ticks=ticks,
    )


def _column_label(moment: TimeBucket, rates: Mapping[str, Sequence[float]], x: int) -> str:
    parts = [f"{format_number(values[x])} {kind}" for kind, values in rates.items() if values[x]]
    return f"{format_time_of_day(moment.at)} UTC: {', '.join(parts) or 'none'}"
