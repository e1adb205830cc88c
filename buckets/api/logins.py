"""A brake on guessing client secrets: failed log-ins per client and address, and per address.

Counted in Django's default cache, which lives in this process and needs no Redis.
"""

from __future__ import annotations

import hashlib

from django.core.cache import cache
from rest_framework.exceptions import Throttled

WINDOW_S = 60
FAILURES_PER_CLIENT = 10
# Sites behind one proxy share its address, so this only brakes guessing over many client ids.
FAILURES_PER_ADDRESS = 100


class Attempt:
    """One log-in. It counts as failed from the start, so that guesses in parallel count as well."""

    def __init__(self, *, client_id: str, address: str) -> None:
        pair = hashlib.sha256(f"{address} {client_id}".encode()).hexdigest()
        self._limits = {
            f"login:client:{pair}": FAILURES_PER_CLIENT,
            f"login:address:{address}": FAILURES_PER_ADDRESS,
        }

    def begin(self) -> None:
        """Raise Throttled (429) when there were too many failures within the last minute."""
        counts = {key: _count(key, 1) for key in self._limits}
        if any(counts[key] > limit for key, limit in self._limits.items()):
            raise Throttled(wait=WINDOW_S, detail="Too many failed log-ins.")

    def succeeded(self) -> None:
        for key in self._limits:
            _count(key, -1)


def _count(key: str, step: int) -> int:
    cache.add(key, 0, timeout=WINDOW_S)
    try:
        return int(cache.incr(key, step))
    except ValueError:  # it expired between the two commands
        return 0
