"""The overview as lines of at most 80 columns."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

from buckets.formatting import format_duration, format_number, format_requests
from buckets.health.overview import rate_per_s
from buckets.pages import costs as costs_in_words
from scanning import wiring
from scanning.core.texts import printable
from scanning.core.types import EventType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from buckets.health.alerts import Alert
    from buckets.health.overview import Overview
    from scanning.core.metrics.telemetry import EndpointLoad, Percentiles, RegionLoad, Telemetry

    Colour = Callable[[str], str]

WIDTH = 80
REGIONS_SHOWN = 30
_LABEL = 10
_REGION = 40


def lines(seen: Overview, now: datetime, *, bad: Colour, good: Colour) -> Iterator[str]:
    """Write the report line by line; ``bad`` and ``good`` may colour, but words say it already."""
    telemetry = seen.telemetry
    by = f", scheduled by {telemetry.leader}" if telemetry and telemetry.leader else ""
    yield f"bucketwatch, {now:%Y-%m-%d %H:%M:%S} UTC{by}"[:WIDTH]
    yield ""
    yield from _buckets(seen)
    if telemetry:
        yield from _numbers(telemetry, now)
        yield from _requests(seen)
        yield from _regions(telemetry.regions)
        yield from _endpoints(seen.endpoints)
        yield ""
    if not seen.attention:
        yield good("All is well: nothing needs attention.")
        return
    yield bad(f"NEEDS ATTENTION: {len(seen.attention)}")
    for one in seen.attention:
        yield from _attention(one, bad)


def _buckets(seen: Overview) -> Iterator[str]:
    numbers = {"total": seen.total}
    numbers |= {state.name.lower(): number for state, number in seen.buckets.items()}
    if not seen.telemetry:
        del numbers["late"]  # only Redis knows
    widths = {name: max(len(name), len(f"{n:,}")) for name, n in numbers.items()}
    cells = "  ".join(f"{name:>{widths[name]}}" for name in numbers)
    yield f"{'BUCKETS':<{_LABEL}}  {cells}"
    cells = "  ".join(f"{number:>{widths[name]},}" for name, number in numbers.items())
    yield f"{'':<{_LABEL}}  {cells}"
    yield ""


def _numbers(telemetry: Telemetry, now: datetime) -> Iterator[str]:
    hour = telemetry.last_hour
    yield _row("QUEUE", _queue(telemetry))
    sums = (f"{sum(getattr(m, kind) for m in hour):,} {kind}" for kind in EventType)
    yield _row("LAST HOUR", ", ".join(sums))
    scans, failed = sum(m.scans for m in hour), sum(m.failed for m in hour)
    yield _row("SCANS", f"{scans:,}, {failed:,} of them failed")
    objects, calls = (rate_per_s(hour, n, now=now.timestamp()) for n in ("objects", "list_calls"))
    yield _row("RATE", f"{format_number(objects)} objects/s, {format_number(calls)} LIST/s")
    yield _row("LATENESS", _spread(telemetry.lateness))
    yield _row("LAG", _spread(telemetry.lag))


def _requests(seen: Overview) -> Iterator[str]:
    cost = costs_in_words.money(seen.cost_today)
    text = format_requests(seen.sent_today) + (f"; {cost}" if cost else "")
    yield from wrap(
        _row("TODAY", f"{text} (UTC)"), WIDTH, subsequent_indent=" " * (_LABEL + len("  "))
    )


def _queue(telemetry: Telemetry) -> str:
    age = telemetry.queue_oldest_s
    oldest = "" if age is None else f", the oldest for {format_duration(age)}"
    length, most = telemetry.queue_length, wiring.conf().queue.high_water
    verb = "waits" if length == 1 else "wait"
    return f"{length:,} {verb}{oldest}; scanning pauses from {most:,} on"


def _spread(spread: Percentiles) -> str:
    if spread.p50 is None or spread.p95 is None:
        return "nothing in the last hour"
    return f"half within {format_duration(spread.p50)}, 95 % within {format_duration(spread.p95)}"


def _regions(regions: Sequence[RegionLoad]) -> Iterator[str]:
    if not regions:
        return
    yield ""
    yield f"{'REGION':<{_REGION}}{'buckets':>10}{'late':>10}{'running':>10}{'slots':>10}"
    for load in sorted(regions, key=lambda load: (-load.late, load.region))[:REGIONS_SHOWN]:
        yield (
            f"{_cut(load.region, _REGION):<{_REGION}}{load.buckets:>10,}{load.late:>10,}"
            f"{load.running:>10,}{load.slots:>10,}"
        )
    if len(regions) > REGIONS_SHOWN:
        yield f"and {len(regions) - REGIONS_SHOWN} more"


def _endpoints(endpoints: Sequence[EndpointLoad]) -> Iterator[str]:
    """List the endpoints that are not asked as usual."""
    if all(one.state == "normal" for one in endpoints):
        return
    yield ""
    yield f"{'ENDPOINT':<{_REGION}}{'state':>10}{'requests/s':>20}"
    for one in endpoints:
        if one.state != "normal":
            most = f"at most {one.list_per_s:,.1f}" if one.state == "slowed" else "probes only"
            yield f"{_cut(one.endpoint, _REGION):<{_REGION}}{one.state:>10}{most:>20}"


def _attention(one: Alert, bad: Colour) -> Iterator[str]:
    yield ""
    first, *more = _wrapped(f"! {one.kind.upper()}: {one.title}", "  ")
    yield bad(first)
    yield from map(bad, more)
    yield from _wrapped(f"  {one.reason}", "  ")
    yield from _wrapped(f"  -> {one.next_step}", "     ")


def _wrapped(text: str, indent: str) -> list[str]:
    return wrap(printable(text), WIDTH, subsequent_indent=indent)


def _row(label: str, text: str) -> str:
    return f"{label:<{_LABEL}}  {text}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
