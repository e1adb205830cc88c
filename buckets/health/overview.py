"""The state of the whole installation, as the dashboard and ``manage.py status`` show it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from buckets import selectors
from buckets.health.alerts import alerts, alerts_without_redis
from buckets.health.costs import cost_of
from scanning import engine
from scanning.core.errors import RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from buckets.health.alerts import Alert
    from buckets.selectors import State
    from scanning.core.metrics.telemetry import EndpointLoad, Telemetry, TimeBucket
    from scanning.core.request_costs import RequestKind, Requests

_RATE_MINUTES = 5


@dataclass(frozen=True, slots=True)
class Overview:
    """``telemetry`` is None while Redis is away; ``attention`` says so then, and none is late.

    ``endpoints`` are those that were asked lately. ``sent_today`` are requests since midnight UTC;
    ``cost_today`` is None where nobody set a price.
    """

    buckets: Mapping[State, int]
    telemetry: Telemetry | None
    attention: Sequence[Alert]
    endpoints: Sequence[EndpointLoad] = ()
    sent_today: Requests = field(default_factory=dict)
    cost_today: float | None = None

    @property
    def total(self) -> int:
        return sum(self.buckets.values())


def overview() -> Overview:
    """Ask Redis once and the database a few times. Raises what the database raises."""
    try:
        telemetry, late = engine.telemetry(), engine.late_buckets()
        endpoints, sent = engine.endpoint_loads(), engine.all_requests_today()
    except RedisUnavailable as exc:
        without = alerts_without_redis(exc)
        return Overview(selectors.state_counts(late=()), None, without)
    needed = alerts(telemetry, endpoints)
    total: Counter[RequestKind] = Counter()
    for requests in sent.values():
        total.update(requests)
    states = selectors.state_counts(late=late)
    return Overview(states, telemetry, needed, endpoints, total, cost_of(sent))


def rate_per_s(minutes: Sequence[TimeBucket], counter: str, *, now: float) -> float:
    """Average over the last five minutes that are over; soon after a start, since that."""
    begun = next((n for n, minute in enumerate(minutes) if minute.list_calls), len(minutes) - 1)
    over = minutes[max(begun + 1, len(minutes) - 1 - _RATE_MINUTES) : -1]
    counted = over or minutes[begun:]
    span_s = sum(minute.span_s for minute in over) or max(1.0, now - minutes[begun].at)
    total: int = sum(getattr(minute, counter) for minute in counted)
    return total / span_s
