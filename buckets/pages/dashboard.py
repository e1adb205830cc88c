"""What the dashboard shows, made from the overview: numbers in words, charts, rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from django.db.models import Count
from django.urls import reverse

from buckets import selectors
from buckets.formatting import join_some, pluralize
from buckets.health.alerts import AlertKind
from buckets.health.overview import Overview, overview
from buckets.models import Bucket
from buckets.pages import costs as costs_in_words
from buckets.pages import telemetry as telemetry_page
from buckets.selectors import State
from scanning import engine, wiring
from scanning.core.endpoints import endpoint_name
from scanning.core.errors import RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from buckets.health.alerts import Alert
    from buckets.pages.charts import Chart
    from scanning.adapters.redis.recent_events import RecentEvent
    from scanning.core.metrics.telemetry import EndpointLoad, RegionLoad

RECENT = 15
_NAMED = 3
_URGENT = 6  # are shown at once, the rest behind a click
# What is well, then the worst first.
_SHOWN_STATES = sorted(selectors.WORST_FIRST, key=lambda state: state is not State.WATCHED)
_LINKED = {
    AlertKind.LOST: State.LOST,
    AlertKind.FAILING: State.FAILING,
    AlertKind.HELD: State.HELD,
    AlertKind.LATE: State.LATE,
}


@dataclass(frozen=True, slots=True)
class Tile:
    """How many buckets are in a state, and where they are listed."""

    state: State
    number: int
    url: str
    word: str

    @property
    def kind(self) -> str:
        return self.state.name.lower()


@dataclass(frozen=True, slots=True)
class Todo:
    """One thing to look at, with the page where something can be done about it."""

    about: Alert
    kind: str
    url: str


@dataclass(frozen=True, slots=True)
class RegionRow:
    """``pace`` is the slowest of its endpoints, None if all may be asked freely."""

    load: RegionLoad
    failing: int
    url: str
    pace: EndpointLoad | None = None

    @property
    def filled(self) -> float:
        return min(100.0, 100.0 * self.load.running / self.load.slots) if self.load.slots else 0.0


@dataclass(frozen=True, slots=True)
class Dashboard:
    seen: Overview
    tiles: Sequence[Tile]
    todo: Sequence[Todo]
    readings: Sequence[telemetry_page.Reading]
    charts: Sequence[Chart]
    regions: Sequence[RegionRow]
    recent: Sequence[RecentEvent]
    under_way: Sequence[str] = ()

    @property
    def urgent(self) -> Sequence[Todo]:
        return self.todo[:_URGENT]

    @property
    def further(self) -> Sequence[Todo]:
        return self.todo[_URGENT:]

    @property
    def verdict(self) -> str:
        """The state of everything, in one sentence."""
        number = len(self.todo)
        if not self.seen.total:
            return "No bucket is watched yet"
        if number:
            return f"{pluralize(number, 'thing')} {'needs' if number == 1 else 'need'} attention"
        on_time, new = self.seen.buckets[State.WATCHED], self.seen.buckets[State.WAITING]
        if new and not on_time:
            return f"{pluralize(new, 'bucket')} {'waits' if new == 1 else 'wait'} for a first scan"
        return f"All is well: {pluralize(on_time, 'bucket')} on time"


def dashboard() -> Dashboard:
    """Ask Redis and the database, a few times each. Raises what the database raises."""
    seen = overview()
    telemetry = seen.telemetry
    return Dashboard(
        seen=seen,
        tiles=_tiles(seen),
        todo=_todo(seen.attention),
        readings=_readings(seen),
        charts=telemetry_page.notification_charts(telemetry) if telemetry and seen.total else (),
        regions=region_rows(telemetry.regions, seen.endpoints) if telemetry else (),
        recent=_recent() if telemetry else (),
        under_way=list(_under_way()),
    )


def _readings(seen: Overview) -> list[telemetry_page.Reading]:
    if not (seen.telemetry and seen.total):
        return []
    requests = telemetry_page.requests_today(
        seen.telemetry, seen.sent_today, costs_in_words.money(seen.cost_today)
    )
    return [*telemetry_page.readings(seen.telemetry), requests]


def _tiles(seen: Overview) -> list[Tile]:
    # Whether a bucket is late only Redis knows.
    words_for = {} if seen.telemetry else {State.WATCHED: "fine when last seen"}
    return [
        Tile(state, seen.buckets[state], list_url(state=state), words_for.get(state, state.value))
        for state in _SHOWN_STATES
        if state is not State.LOST or seen.buckets[state]
    ]


def list_url(*, state: State | None = None, region: str = "", error: str = "") -> str:
    filters = {"state": state.name.lower() if state else "", "region": region, "error": error}
    query = urlencode({name: value for name, value in filters.items() if value})
    return f"{reverse('admin:buckets_bucket_changelist')}?{query}"


def _todo(found: Sequence[Alert]) -> list[Todo]:
    names = [one.bucket for one in found if one.bucket]
    pks = dict(Bucket.objects.filter(name__in=names).values_list("name", "pk"))
    return [Todo(one, _symbol(one.kind), _where(one, pks)) for one in found]


def _symbol(kind: AlertKind) -> str:
    state = _LINKED.get(kind)
    return state.name.lower() if state else "warning"


def _where(one: Alert, pks: Mapping[str, int]) -> str:
    if one.bucket and one.bucket in pks:
        return reverse("admin:buckets_bucket_overview", args=[pks[one.bucket]])
    if one.kind not in _LINKED:
        return ""
    return list_url(state=_LINKED[one.kind], error=one.error_class)


# --- regions and events


def region_rows(loads: Sequence[RegionLoad], paces: Sequence[EndpointLoad]) -> list[RegionRow]:
    """Make one row a region, regions with trouble first."""
    failing = dict(
        selectors.in_state(Bucket.objects.order_by(), State.FAILING)
        .values_list("region")
        .annotate(Count("pk"))
    )
    slowest = _slowest(paces)
    rows = [
        RegionRow(
            load,
            failing.get(load.region, 0),
            list_url(region=load.region),
            slowest.get(load.region),
        )
        for load in loads
    ]
    return sorted(rows, key=lambda row: (-row.load.late, -row.failing, row.load.region))


def _slowest(paces: Sequence[EndpointLoad]) -> dict[str, EndpointLoad]:
    """Find the worst endpoint of each region that has slowed or dead ones."""
    slowed = {one.endpoint: one for one in paces if one.state != "normal"}
    if not slowed:
        return {}
    worst: dict[str, EndpointLoad] = {}
    for region, endpoint in Bucket.objects.order_by().values_list("region", "endpoint").distinct():
        pace = slowed.get(endpoint_name(endpoint))
        if pace and (region not in worst or pace.state == "dead"):
            worst[region] = pace
    return worst


def _under_way() -> Iterator[str]:
    """Work that takes a while, in sentences; what takes too long is among what needs attention."""
    if changed := selectors.buckets_waiting_for_redis():
        yield f"Changes of {pluralize(changed, 'bucket')} are on their way to the scanner."
    if removals := selectors.vault_removals():
        yield f"{pluralize(removals, 'removal')} from the vault under way."
    try:
        cleared = engine.being_cleared()
    except RedisUnavailable:
        return
    if cleared:
        number = pluralize(len(cleared), "removed bucket")
        yield f"What Redis knew of {number} is being cleared: {join_some(cleared, limit=_NAMED)}"


def _recent() -> list[RecentEvent]:
    try:
        return wiring.interactive().recent_events.read(limit=RECENT).events
    except RedisUnavailable:
        return []
