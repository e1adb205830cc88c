"""How endpoints stand: their buckets, their pace, their limits, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from buckets import selectors
from buckets.health.costs import costs_at
from scanning import engine
from scanning.core.endpoint_profile import EndpointProfile, Fact, KeyOrder
from scanning.core.errors import RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from buckets.health.costs import Costs
    from buckets.models import Endpoint
    from scanning.core.metrics.telemetry import EndpointLoad
    from scanning.core.pacing import EndpointLimits


@dataclass(frozen=True, slots=True)
class KnownFact:
    """A fact as adapters go by it; ``learnt`` is what the endpoint showed, set or not."""

    name: str
    value: str
    source: Literal["set", "learnt", "default"]
    learnt: str = ""
    learnt_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class EndpointOverview:
    """``load`` is None of an endpoint that was not asked lately, and while Redis is away."""

    endpoint: Endpoint
    buckets: int
    load: EndpointLoad | None
    limits: EndpointLimits
    facts: tuple[KnownFact, ...]
    asked_at: datetime | None
    costs: Costs

    @property
    def is_out_of_order(self) -> bool:
        """Tell whether the endpoint showed, or somebody says, that keys have another order."""
        return any(
            fact.name == Fact.KEY_ORDER and fact.value == KeyOrder.OTHER for fact in self.facts
        )


def endpoint_overviews(endpoints: Sequence[Endpoint]) -> list[EndpointOverview]:
    """Tell how these endpoints stand, in their order; without Redis, what the database knows."""
    names = [endpoint.name for endpoint in endpoints]
    try:
        profiles = engine.endpoint_profiles(names)
        loads = {load.endpoint: load for load in engine.endpoint_loads()}
    except RedisUnavailable:
        profiles, loads = {name: EndpointProfile() for name in names}, {}
    counts, costs = selectors.buckets_by_endpoint(), costs_at(endpoints)
    return [
        _overview(
            endpoint,
            profiles[endpoint.name],
            loads.get(endpoint.name),
            counts.get(endpoint.name, 0),
            costs[endpoint.name],
        )
        for endpoint in endpoints
    ]


def _overview(
    endpoint: Endpoint,
    profile: EndpointProfile,
    load: EndpointLoad | None,
    buckets: int,
    costs: Costs,
) -> EndpointOverview:
    # What is set is the row's: Redis may have yet to learn of it.
    profile = EndpointProfile(endpoint.settings, profile.learnt, profile.asked_at)
    return EndpointOverview(
        endpoint=endpoint,
        buckets=buckets,
        load=load,
        limits=profile.limits(engine.endpoint_limits(endpoint.name)),
        facts=tuple(_fact(profile, fact) for fact in Fact),
        asked_at=_moment(profile.asked_at),
        costs=costs,
    )


def _fact(profile: EndpointProfile, fact: Fact) -> KnownFact:
    learnt = profile.learnt.get(fact)
    is_set = bool(profile.set_value(fact))
    return KnownFact(
        name=fact.value,
        value=profile.effective(fact),
        source="set" if is_set else "learnt" if learnt else "default",
        learnt=learnt.value if learnt else "",
        learnt_at=_moment(learnt.at) if learnt else None,
    )


def _moment(at: float) -> datetime | None:
    return datetime.fromtimestamp(at, UTC) if at else None
