"""What buckets may still send today, by their budgets and those of their endpoints."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from scanning.core import request_costs
from scanning.core.endpoints import endpoint_name
from scanning.core.request_costs import Budget

if TYPE_CHECKING:
    from scanning.config.settings import RequestsSection
    from scanning.core.types import BucketConfig
    from scanning.pacing.registry import EndpointRegistry
    from scanning.ports import RequestCounts


class RequestBudgets:
    """Asks how much was sent only where there is a budget."""

    def __init__(
        self, conf: RequestsSection, endpoints: EndpointRegistry, counts: RequestCounts
    ) -> None:
        self._conf, self._endpoints, self._counts = conf, endpoints, counts

    def left_today(self, bucket: BucketConfig, *, pass_requests: int) -> float:
        """Say how many requests a bucket may still send; infinite without a budget.

        Raises RedisUnavailable.
        """
        endpoint = endpoint_name(bucket.endpoint)
        own = self._conf.budget(bucket.requests_per_day)
        shared = self._of_endpoint(endpoint)
        if not (own or shared):
            return math.inf
        sent, sent_there = self._counts.sent_today(bucket.name, endpoint)
        usage = self._endpoints.limiter_for(endpoint).usage
        return request_costs.left_today(
            Budget(own, sent + usage.unreported(bucket.name)),
            Budget(shared, sent_there + usage.unreported()),
            pass_requests=pass_requests,
        )

    def _of_endpoint(self, endpoint: str) -> int:
        profiles = self._endpoints.profiles
        return (profiles.read(endpoint).settings.requests_per_day or 0) if profiles else 0
