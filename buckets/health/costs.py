"""What watching costs: forecasts of buckets and endpoints, and money."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from buckets.models import Bucket, Endpoint
from scanning import engine, wiring
from scanning.core import request_costs
from scanning.core.endpoint_profile import Fact, TotalsSource
from scanning.core.endpoints import endpoint_name
from scanning.core.errors import RedisUnavailable
from scanning.core.request_costs import DailyRequests, RequestKind, WatchPlan

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from scanning.core.request_costs import RequestPrices, Requests

_NOTHING = DailyRequests({}, {})


@dataclass(frozen=True, slots=True)
class Forecast:
    """Requests a day, and what they cost; ``cost`` is None where nobody set a price.

    ``is_most``: they are fewer while nothing changes, as the polling interval grows.
    """

    requests: Requests
    cost: float | None
    is_most: bool = False

    @property
    def total(self) -> int:
        return sum(self.requests.values())


@dataclass(frozen=True, slots=True)
class Costs:
    """What a bucket or an endpoint costs.

    ``sent`` is None while Redis is away, ``forecast`` while nobody knows how many objects there
    are. ``budget`` is for a day, 0 for none.
    """

    sent: DailyRequests | None
    prices: RequestPrices
    forecast: Forecast | None
    budget: int = 0

    @property
    def cost_today(self) -> float | None:
        return self.prices.of(self.sent.today) if self.prices and self.sent else None

    @property
    def total_today(self) -> int | None:
        return sum(self.sent.today.values()) if self.sent else None


def costs_of(buckets: Sequence[Bucket], *, objects: int | None = None) -> dict[str, Costs]:
    """Say what buckets cost, by name; ``objects`` is how many there are, if not as counted."""
    try:
        sent = engine.requests(bucket.name for bucket in buckets)
    except RedisUnavailable:
        sent = {}
    prices = prices_at(bucket.endpoint for bucket in buckets)
    return {
        bucket.name: Costs(
            sent.get(bucket.name),
            prices[endpoint_name(bucket.endpoint)],
            forecast_of(
                bucket,
                sent=sent.get(bucket.name, _NOTHING),
                prices=prices[endpoint_name(bucket.endpoint)],
                objects=objects,
            ),
            wiring.conf().requests.budget(bucket.requests_per_day),
        )
        for bucket in buckets
    }


def costs_at(endpoints: Sequence[Endpoint]) -> dict[str, Costs]:
    """Say what endpoints cost, by name: what their buckets cost, but for HEADs of objects."""
    try:
        sent = engine.endpoint_requests(endpoint.name for endpoint in endpoints)
    except RedisUnavailable:
        sent = {}
    expected = _expected_at({endpoint.name for endpoint in endpoints})
    found = {}
    for endpoint in endpoints:
        prices = wiring.conf().requests.prices(endpoint.request_price)
        heads = sent.get(endpoint.name, _NOTHING)
        requests = dict(expected[endpoint.name])
        for kind in (RequestKind.METADATA, RequestKind.WITNESS):
            requests[kind] = heads.per_day(kind)
        found[endpoint.name] = Costs(
            sent.get(endpoint.name),
            prices,
            Forecast(requests, prices.of(requests) if prices else None),
            endpoint.requests_per_day or 0,
        )
    return found


def _expected_at(names: set[str]) -> dict[str, Counter[RequestKind]]:
    """Add up the forecasts of all monitored buckets at some endpoints; unknown ones have a page."""
    expected: dict[str, Counter[RequestKind]] = {name: Counter() for name in names}
    for bucket in Bucket.objects.filter(monitoring_enabled=True).only(
        "endpoint",
        "object_count",
        "polling_interval",
        "probe_interval",
        "fetch_metadata",
        "notifications_enabled",
    ):
        name = endpoint_name(bucket.endpoint)
        if name in expected:
            expected[name].update(request_costs.forecast(_plan(bucket, bucket.object_count or 0)))
    return expected


def forecast_of(
    bucket: Bucket,
    *,
    prices: RequestPrices,
    sent: DailyRequests = _NOTHING,
    objects: int | None = None,
) -> Forecast | None:
    """Say what a bucket takes a day, stored or not; None while its objects are not known."""
    known = bucket.object_count if objects is None else objects
    if known is None:
        return None
    requests = request_costs.forecast(_plan(bucket, known, sent))
    intervals = wiring.conf().polling_intervals(bucket.polling_interval, bucket.polling_longest)
    return Forecast(requests, prices.of(requests) if prices else None, intervals.may_grow)


def _plan(bucket: Bucket, objects: int, sent: DailyRequests = _NOTHING) -> WatchPlan:
    conf = wiring.conf()
    probes = conf.probe_plan(bucket.probe_interval, own_polling_s=bucket.polling_interval)
    profile = wiring.interactive().endpoint_profiles.read(endpoint_name(bucket.endpoint))
    is_probed = profile.value(Fact.TOTALS) != TotalsSource.NONE and probes.is_worth_it(
        objects, page_size=conf.page_size
    )
    wants_metadata = bucket.fetch_metadata and bucket.notifications_enabled
    return WatchPlan(
        objects=objects,
        polling_s=conf.defaults.interval_s(bucket.polling_interval),
        probe_s=probes.every_s if is_probed else 0.0,
        metadata_per_day=sent.per_day(RequestKind.METADATA) if wants_metadata else 0,
        witness_per_day=sent.per_day(RequestKind.WITNESS),
        page_size=conf.page_size,
    )


def affordable_interval_s(bucket: Bucket, budget: int) -> float:
    """Say which polling interval of a bucket a budget pays for."""
    objects, page_size = bucket.object_count or 0, wiring.conf().page_size
    requests = request_costs.pass_requests(objects, page_size=page_size)
    return request_costs.affordable_interval_s(budget, pass_requests=requests)


def prices_at(endpoints: Iterable[str]) -> dict[str, RequestPrices]:
    """Find the prices at endpoints, however buckets write them, by `endpoint_name`."""
    names = set(map(endpoint_name, endpoints))
    own = dict(Endpoint.objects.filter(name__in=names).values_list("name", "request_price"))
    return {name: wiring.conf().requests.prices(own.get(name, "")) for name in names}


def cost_of(sent: Mapping[str, Requests]) -> float | None:
    """Turn requests, by endpoint, into money; None where nobody set a price."""
    prices = prices_at(sent)
    if not any(prices.values()):
        return None
    return sum(prices[endpoint].of(requests) for endpoint, requests in sent.items())
