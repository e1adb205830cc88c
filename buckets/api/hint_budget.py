"""How many hints a client may give in a minute.

Counted in Django's default cache, which lives in this process: each host has the budget for itself.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from django.conf import settings
from django.core.cache import cache
from rest_framework.exceptions import Throttled

if TYPE_CHECKING:
    from buckets.models import ApiClient

_MINUTE_S = 60


def spend(client: ApiClient, *, number: int) -> None:
    """Count hints of a client. Raises Throttled if the minute's budget was used up before them."""
    budget = settings.SITE.hints_per_minute
    if not budget:
        return
    minute, second = divmod(time.time(), _MINUTE_S)
    key = f"hints:{client.pk}:{minute:.0f}"
    cache.add(key, 0, timeout=2 * _MINUTE_S)
    if cache.incr(key, number) - number >= budget:
        problem = f"This client may give {budget} hints a minute (HINTS_PER_MINUTE)."
        raise Throttled(wait=_MINUTE_S - second, detail=problem)
