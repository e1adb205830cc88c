"""What watching costs, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from buckets.formatting import NOTHING, format_money, format_requests
from buckets.health.costs import costs_of
from scanning import wiring
from scanning.core.request_costs import RequestKind

if TYPE_CHECKING:
    from buckets.health.costs import Costs, Forecast
    from buckets.models import Bucket

_DAYS_A_MONTH = 30


def sent_today(costs: Costs) -> str:
    """Write what was sent since midnight UTC, with its price where there is one."""
    if costs.sent is None:
        return NOTHING
    return format_requests(costs.sent.today) + _priced(costs.cost_today)


def a_day(forecast: Forecast | None) -> str:
    """Write what is to be expected, by what it is for."""
    if forecast is None:
        return "not known before the first scan"
    requests = forecast.requests
    heads = requests.get(RequestKind.METADATA, 0) + requests.get(RequestKind.WITNESS, 0)
    probes = requests.get(RequestKind.BUCKET, 0)
    most = "at most " if forecast.is_most else ""
    parts = [f"passes {most}{requests.get(RequestKind.LIST, 0):,} LIST"]
    parts += [f"objects {heads:,} HEAD"] if heads else []
    parts += [f"probes {probes:,} HEAD"] if probes else []
    if forecast.cost is None:
        return ", ".join(parts)
    month = format_money(forecast.cost * _DAYS_A_MONTH, _currency())
    return f"{', '.join(parts)}{_priced(forecast.cost)}, {month} in {_DAYS_A_MONTH} days"


def forecast_of(bucket: Bucket, *, objects: int | None) -> str:
    """Write what a bucket would take a day with so many objects, stored or not, and its budget."""
    conf = wiring.conf()
    pages = f"each {conf.page_size:,} take a LIST request in each pass"
    if objects is None:
        return f"Enter about how many objects there are: {pages}."
    costs = costs_of([bucket], objects=objects)[bucket.name]
    text = f"With {objects:,} objects, a day: {a_day(costs.forecast)}."
    total = costs.forecast.total if costs.forecast else 0
    if costs.budget and total > costs.budget:
        text += f" That is more than the budget of {costs.budget:,}: passes would come less often."
    return text


def budget(costs: Costs) -> str:
    """Write a budget, and how much of it is left."""
    if costs.total_today is None:
        return f"{costs.budget:,} a day"
    return f"{costs.budget:,} a day, {max(0, costs.budget - costs.total_today):,} left today"


def money(cost: float | None) -> str:
    """Write an amount; "" where nobody set a price."""
    return "" if cost is None else format_money(cost, _currency())


def _priced(cost: float | None) -> str:
    return "" if cost is None else f"; {money(cost)}"


def _currency() -> str:
    return wiring.conf().requests.currency
