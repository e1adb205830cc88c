"""Which claims of a region are scanned now, so that a bad endpoint does not hold up the others."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from scanning.core import pacing
from scanning.core.endpoints import endpoint_name

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from scanning.core.types import BucketConfig, Claim
    from scanning.pacing.registry import EndpointRegistry
    from scanning.ports import Leases

# A bucket that would take too many of the region's slots is due again after so long.
_POSTPONE_S = 1.0


class Admission:
    """One region in one process, which runs ``threads`` scans at once of the region's ``slots``.

    A dead endpoint is asked by one bucket; its others wait without a slot until it answers. Where
    a region has several endpoints, none takes all slots, nor all threads: it may stall.
    """

    def __init__(
        self,
        region: str,
        registry: EndpointRegistry,
        leases: Leases,
        configured: Callable[[Sequence[str]], Mapping[str, BucketConfig]],
        *,
        endpoints: Collection[str],
        slots: int,
        threads: int,
    ) -> None:
        """Take all ``endpoints`` of a region that has several; ``configured`` knows buckets."""
        self._region, self._registry, self._leases = region, registry, leases
        self._configured = configured
        self._endpoints = frozenset(endpoints)
        self._slots, self._threads = slots, threads
        self._here: Counter[str] = Counter()
        self._scanned_at: dict[str, str] = {}
        self._lock = threading.Lock()

    def admit(self, claims: Sequence[Claim], buckets: Mapping[str, BucketConfig]) -> list[Claim]:
        """Return the claims to scan, and postpone the others. Claims of unknown buckets pass."""
        endpoints = _endpoints_of(buckets)
        by_endpoint: dict[str, list[Claim]] = defaultdict(list)
        for claim in claims:
            by_endpoint[endpoints.get(claim.bucket, "")].append(claim)
        unknown = by_endpoint.pop("", [])
        admitted: list[Claim] = []
        for endpoint, its_claims in by_endpoint.items():
            admitted += self._unless_dead(endpoint, its_claims)
        if len(self._endpoints) > 1:
            admitted = self._within_shares(admitted, endpoints)
        admitted = unknown + admitted
        with self._lock:
            for claim in admitted:
                endpoint = endpoints.get(claim.bucket, "")
                self._scanned_at[claim.bucket] = endpoint
                self._here[endpoint] += 1
        return admitted

    def ended(self, claim: Claim) -> None:
        with self._lock:
            self._here[self._scanned_at.pop(claim.bucket)] -= 1

    def _unless_dead(self, endpoint: str, claims: list[Claim]) -> list[Claim]:
        limiter = self._registry.limiter_for(endpoint)
        if not limiter.health().is_dead:
            return claims
        admitted = [claims[0]] if limiter.claim_probe(claims[0].bucket) else []
        health = limiter.health()
        if not health.is_dead:
            return claims
        if waiting := claims[len(admitted) :]:
            until = min(health.wait_until, limiter.now() + pacing.LONGEST_PROBE_S)
            self._registry.store.postpone_until_answer(waiting, endpoint, until=until)
        return admitted

    def _within_shares(self, claims: Sequence[Claim], endpoints: Mapping[str, str]) -> list[Claim]:
        running = self._running()
        here = self._here + Counter(endpoints[claim.bucket] for claim in claims)
        admitted: list[Claim] = []
        postponed: list[Claim] = []
        for claim in reversed(claims):  # what is due longest keeps its place
            endpoint = endpoints[claim.bucket]
            is_over = running[endpoint] > self._share(self._slots, endpoint, running)
            if is_over or here[endpoint] > self._share(self._threads, endpoint, here):
                postponed.append(claim)
                running[endpoint] -= 1
                here[endpoint] -= 1
            else:
                admitted.append(claim)
        if postponed:
            limiter = self._registry.limiter_for(endpoints[postponed[0].bucket])
            self._registry.store.postpone(postponed, until=limiter.now() + _POSTPONE_S)
        return admitted[::-1]

    def _running(self) -> Counter[str]:
        """Count the scans of each endpoint, on all hosts."""
        names = self._leases.running(self._region)
        endpoints = _endpoints_of(self._configured(names))
        return Counter(endpoints.get(name, "") for name in names)

    def _share(self, slots: int, endpoint: str, running: Mapping[str, int]) -> int:
        idle = sum(not running.get(other) for other in self._endpoints - {endpoint})
        return pacing.max_scans(slots, idle_endpoints=idle, endpoints=len(self._endpoints))


def _endpoints_of(buckets: Mapping[str, BucketConfig]) -> dict[str, str]:
    return {name: endpoint_name(b.endpoint) for name, b in buckets.items()}
