"""What watching costs in requests: what is to be expected, its price, and budgets for a day.

    pass        one LIST for each page of the bucket
    metadata    one HEAD for each object that appeared or changed, where the bucket wants it
    deletion    a HEAD for each object that is missing, and one more in a scan that misses any
    probe       one HEAD of the bucket

A budget that runs out makes the time between passes longer, and that between probes first; it never
ends a scan, and a bucket is passed over once a day whatever that costs. Days are of UTC.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

DAY_S: Final = 86_400.0
# A budget is at most so large.
MOST_REQUESTS: Final = 10**12
_MOST_PRICES: Final = 3


class RequestKind(StrEnum):
    """What a request to an S3 endpoint asks for; providers bill LIST and HEAD apart."""

    LIST = "list"
    METADATA = "head_metadata"
    WITNESS = "head_witness"
    BUCKET = "head_bucket"


# How many requests of each kind.
Requests = Mapping[RequestKind, int]


@dataclass(frozen=True, slots=True)
class DailyRequests:
    """What was sent since midnight UTC, and in the day before that."""

    today: Requests
    yesterday: Requests

    def per_day(self, kind: RequestKind) -> int:
        """Estimate the requests of a kind in a whole day: yesterday's, if there were any."""
        return self.yesterday.get(kind, 0) or self.today.get(kind, 0)


# --- money


@dataclass(frozen=True, slots=True)
class RequestPrices:
    """What 1,000 requests cost; providers bill HEAD of a bucket as one or the other."""

    list: float = 0.0
    head_object: float = 0.0
    head_bucket: float = 0.0

    def of(self, sent: Requests) -> float:
        prices = {
            RequestKind.LIST: self.list,
            RequestKind.METADATA: self.head_object,
            RequestKind.WITNESS: self.head_object,
            RequestKind.BUCKET: self.head_bucket,
        }
        return sum(number * prices[kind] for kind, number in sent.items()) / 1000

    def __bool__(self) -> bool:
        return self != RequestPrices()


def parse_prices(text: str) -> RequestPrices:
    """Read ``LIST[/HEAD[/HEAD of buckets]]``: one price is for all, the second for both HEADs.

    Raises ValueError, saying what it takes.
    """
    parts = [part.strip() for part in text.split("/")]
    try:
        prices = [float(part) for part in parts]
    except ValueError:
        prices = []
    is_right = all(math.isfinite(price) and price >= 0 for price in prices)
    if not prices or len(prices) > _MOST_PRICES or not is_right:
        raise ValueError(
            "must be the price of 1,000 requests, such as 0.005; or of LIST, of HEAD, and of HEAD "
            "of buckets if that is another one, with / between: 0.005/0.0004"
        )
    return RequestPrices(*prices, *[prices[-1]] * (_MOST_PRICES - len(prices)))


# --- forecasts


def pass_requests(objects: int, *, page_size: int = 1000) -> int:
    """Count the LIST requests of one pass. Lanes share them; each adds one at the most."""
    return max(1, math.ceil(objects / page_size))


@dataclass(frozen=True, slots=True)
class WatchPlan:
    """How a bucket is watched, or would be; ``probe_s`` 0: without probes.

    ``metadata_per_day`` and ``witness_per_day`` are HEADs of objects, as they were seen so far.
    """

    objects: int
    polling_s: float
    probe_s: float = 0.0
    metadata_per_day: int = 0
    witness_per_day: int = 0
    page_size: int = 1000


def forecast(plan: WatchPlan) -> dict[RequestKind, int]:
    """Say how many requests a day a bucket takes.

    Left out are retries, looks at what changed, and the two HEADs by which each pass of a bucket
    that is probed sees its totals.
    """
    probes = round(DAY_S / plan.probe_s) if plan.probe_s else 0
    requests = pass_requests(plan.objects, page_size=plan.page_size)
    return {
        RequestKind.LIST: round(DAY_S / plan.polling_s * requests),
        RequestKind.METADATA: plan.metadata_per_day,
        RequestKind.WITNESS: plan.witness_per_day,
        RequestKind.BUCKET: probes,
    }


# --- budgets


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be sent in a day, 0 for any number, and what was sent since midnight."""

    per_day: int
    spent: int

    @property
    def left(self) -> float:
        return self.per_day - self.spent if self.per_day else math.inf


def left_today(bucket: Budget, endpoint: Budget, *, pass_requests: int) -> float:
    """Say how many requests a bucket may still send today; less than 0 if it sent too many.

    An endpoint's budget is shared by its buckets as they used it so far, so that all of them are
    stretched alike; one that sent nothing yet counts as if it had been passed over once.
    """
    sent = max(bucket.spent, pass_requests)
    share = sent / max(endpoint.spent, sent)
    return min(bucket.left, endpoint.left * share)


def day_left_s(now: float) -> float:
    """Say how long it is until midnight."""
    return DAY_S - now % DAY_S


def pass_wait_s(left: float, *, pass_requests: int, day_left_s: float) -> float:
    """Say how long to wait for the next pass, so that what is left lasts until midnight.

    Until midnight at the longest: a budget that cannot pay one pass a day is overdrawn.
    """
    if left < pass_requests:
        return day_left_s
    return day_left_s * pass_requests / left


def probe_wait_s(left: float, *, pass_requests: int, polling_s: float, day_left_s: float) -> float:
    """Say how far apart probes have to be, so that passes need not be; infinite: none."""
    for_probes = left - pass_requests * day_left_s / polling_s
    return day_left_s / for_probes if for_probes >= 1 else math.inf


def affordable_interval_s(per_day: int, *, pass_requests: int) -> float:
    """Say which polling interval a budget pays for, without probes and HEADs."""
    return DAY_S * pass_requests / per_day
