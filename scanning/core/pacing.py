"""How fast S3 endpoints are asked, and when what failed is tried again.

    EndpointLimits   what an endpoint allows: LIST requests a second in one bucket, requests at once
    Slots            moments to send at, reserved in small batches so that all keep a rate together
    EndpointHealth   how an endpoint answers: held back once it throttled us (additive increase,
                     multiplicative decrease), dead once it gave several buckets in a row no answer
    back-off         when a bucket whose scan failed is scanned again

``jitter`` is a random number from 0 to 1. Times are epoch seconds by one clock: Redis's.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

# --- limits

_MOST_PARTS = 2


@dataclass(frozen=True, slots=True)
class EndpointLimits:
    """0: no limit."""

    list_per_s: float = 0.0
    connections: int = 0


def parse_limits(text: str) -> tuple[tuple[str, EndpointLimits], ...]:
    """Read ``host=LIST/connections, …``. Raises ValueError, saying what it takes."""
    return tuple(_limit(part) for part in map(str.strip, text.split(",")) if part)


def _limit(part: str) -> tuple[str, EndpointLimits]:
    pattern, _, numbers = part.rpartition("=")
    values = numbers.split("/")
    if not pattern or len(values) != _MOST_PARTS or not all(v.strip().isdecimal() for v in values):
        raise ValueError(
            "must be host=N/M with commas between: N LIST requests a second in one bucket, "
            "M requests at once, 0 for no limit, and * in the host for anything"
        )
    return pattern.strip().lower(), EndpointLimits(float(values[0]), int(values[1]))


def find_limits(endpoint: str, rules: Sequence[tuple[str, EndpointLimits]]) -> EndpointLimits:
    """Return the limits of the first rule that names the endpoint, with its port or without."""
    host = endpoint.rpartition(":")[0] or endpoint
    for pattern, limits in rules:
        if fnmatchcase(endpoint, pattern) or fnmatchcase(host, pattern):
            return limits
    return EndpointLimits()


# --- keeping a rate together

# How late a reserved slot may be used. Slots are so much further apart than the rate says, and
# therefore no second holds more requests than the rate, however late they were.
LATE_S = 0.1


def spacing_s(per_s: float) -> float:
    """Return the seconds between two slots at this rate."""
    return (1 + LATE_S) / per_s


def batch_size(per_s: float) -> int:
    """Count the slots to reserve at once: as many as can be used before they are too late."""
    return max(1, math.floor(LATE_S / spacing_s(per_s)))


class Slots:
    """A reserved batch of moments to send at, each for one request. Not safe for threads."""

    def __init__(self, first: float = 0.0, spacing: float = 0.0, count: int = 0) -> None:
        self._next, self._spacing, self._left = first, spacing, count

    def take(self, now: float) -> float | None:
        """Return when the next request may go; None once another batch is needed."""
        while self._left:
            at = self._next
            self._next += self._spacing
            self._left -= 1
            if at >= now - LATE_S:
                return max(at, now)
        return None


# --- how an endpoint answers

# Throttled: half the rate, at most once in this time (one jam is told of by many answers).
DECREASE, HOLD_S = 0.5, 1.0
SLOWEST_PER_S = 1.0
# The rate grows in RECOVERY_S by what was sent before it was throttled, or by this if that was
# little, and is held back no more at twice as much.
LEAST_FULL_PER_S, RECOVERY_S, FREE_AT = 10.0, 60.0, 2.0

# So many failures in a row, of so many buckets, make an endpoint dead. What fails within a moment
# counts once: a load balancer that drops its idle connections ends many requests together. It is
# shorter than the pause before a request is sent again, which then has its answer.
DEAD_FAILURES, DEAD_BUCKETS, MOMENT_S = 3, 2, 0.25
# Between probes: this, twice as long after each in vain, up to the longest. Short, because all
# its buckets wait for the one that succeeds.
FIRST_PROBE_S, LONGEST_PROBE_S = 1.0, 10.0


@dataclass(frozen=True, slots=True)
class EndpointHealth:
    """``rate`` is what all processes together may send a second as of ``since``; 0: any number.

    ``full`` was sent when it was throttled first. ``failures`` in a row, the last one at
    ``failed_at``, of ``buckets`` (the first few). A dead endpoint may be asked by ``probe`` alone,
    until ``wait_until``; by the next bucket that comes after that. ``why`` is the last failure, for
    people.
    """

    rate: float = 0.0
    since: float = 0.0
    full: float = 0.0
    failures: int = 0
    failed_at: float = 0.0
    buckets: tuple[str, ...] = ()
    probes: int = 0
    dead_since: float = 0.0
    wait_until: float = 0.0
    probe: str = ""
    why: str = ""

    @property
    def is_dead(self) -> bool:
        return self.dead_since > 0

    @property
    def is_failing(self) -> bool:
        return self.failures > 0


HEALTHY = EndpointHealth()


def allowed_per_s(health: EndpointHealth, *, now: float) -> float:
    """Return how many requests a second all processes together may send the endpoint."""
    if not health.rate or health.since > now + RECOVERY_S:  # the clock went back
        return math.inf
    rate = health.rate + health.full * max(0.0, now - health.since) / RECOVERY_S
    return math.inf if rate >= health.full * FREE_AT else rate


def state_of(health: EndpointHealth, *, now: float) -> Literal["normal", "slowed", "dead"]:
    if health.is_dead:
        return "dead"
    return "normal" if allowed_per_s(health, now=now) == math.inf else "slowed"


def is_just_throttled(health: EndpointHealth, *, now: float) -> bool:
    """Tell whether the rate was halved within `HOLD_S`: many answers tell of the same jam."""
    return health.rate > 0 and 0 <= now - health.since < HOLD_S


def record_throttling(
    health: EndpointHealth, *, now: float, sent_per_s: float, jitter: float
) -> EndpointHealth:
    """Allow half of what was sent, or allowed: it asked for fewer requests, or one timed out."""
    if health.is_dead or is_just_throttled(health, now=now):
        return health
    before = allowed_per_s(health, now=now)
    share = DECREASE * (0.9 + 0.2 * jitter)
    return replace(
        health,
        rate=max(SLOWEST_PER_S, min(before, sent_per_s) * share),
        since=now,
        full=max(sent_per_s, LEAST_FULL_PER_S) if before == math.inf else health.full,
    )


def record_failure(
    health: EndpointHealth, bucket: str, *, now: float, why: str, jitter: float
) -> EndpointHealth:
    """Count a request without any answer; several in a row make the endpoint dead."""
    if health.is_dead and bucket != health.probe:
        return health  # it was asked before the endpoint was found dead
    if health.is_dead:
        probes = health.probes + 1
        pause_s = min(FIRST_PROBE_S * 2**probes, LONGEST_PROBE_S) * (0.8 + 0.2 * jitter)
        return replace(health, probes=probes, probe="", wait_until=now + pause_s, why=why)
    several = tuple(dict.fromkeys([*health.buckets, bucket]))[:DEAD_BUCKETS]
    health = replace(health, buckets=several, why=why)
    if not 0 <= now - health.failed_at < MOMENT_S:
        health = replace(health, failures=health.failures + 1, failed_at=now)
    if health.failures < DEAD_FAILURES or len(several) < DEAD_BUCKETS:
        return health
    # No rate: when it answers again, its buckets come spread anyway.
    return EndpointHealth(
        failures=health.failures,
        buckets=several,
        dead_since=now,
        wait_until=now + FIRST_PROBE_S * (0.8 + 0.2 * jitter),
        why=why,
    )


def record_answer(health: EndpointHealth) -> EndpointHealth:
    """Make it neither dead nor failing. A rate that was throttled recovers with time."""
    return (
        EndpointHealth(rate=health.rate, since=health.since, full=health.full)
        if health.is_failing
        else health
    )


def claim_probe(health: EndpointHealth, bucket: str, *, now: float, for_s: float) -> EndpointHealth:
    """Let ``bucket`` ask a dead endpoint for so long, if it is time and nobody else does."""
    longest_s = max(for_s, LONGEST_PROBE_S)  # it is more if the clock went back
    if not health.is_dead or 0 < health.wait_until - now <= longest_s:
        return health
    return claim_probe_now(health, bucket, now=now, for_s=for_s)


def claim_probe_now(
    health: EndpointHealth, bucket: str, *, now: float, for_s: float
) -> EndpointHealth:
    """Let ``bucket`` ask a dead endpoint at once: somebody wants to know."""
    return replace(health, probe=bucket, wait_until=now + for_s) if health.is_dead else health


def allow_probe_now(health: EndpointHealth, *, now: float) -> EndpointHealth:
    """Let the next bucket that comes try a dead endpoint, unless one is trying it."""
    return replace(health, wait_until=now) if health.is_dead and not health.probe else health


def drop_recovered_rate(health: EndpointHealth, *, now: float) -> EndpointHealth:
    """Forget a rate that has recovered."""
    if health.rate and allowed_per_s(health, now=now) == math.inf:
        return replace(health, rate=0.0, since=0.0, full=0.0)
    return health


# --- sharing a region's slots


def max_scans(slots: int, *, idle_endpoints: int, endpoints: int) -> int:
    """Limit the region's slots that one of its ``endpoints`` may take: a stalled one not all.

    A quarter stays for the others, and a slot for each of those that run nothing now.
    """
    if endpoints < 2:
        return slots
    return max(1, slots - max(slots // 4, idle_endpoints))


# --- when a failed bucket is tried again

FIRST_BACK_OFF_S, FIRST_SLOW_S = 5.0, 60.0


def draw_jitter() -> float:
    return random.random()  # noqa: S311 - spreads what failed, or was slowed down, together


def equal_jitter(pause_s: float, jitter: float) -> float:
    """Shorten a pause by up to half."""
    return pause_s * (0.5 + 0.5 * jitter)


def back_off_s(failures: int, *, longest_s: float, jitter: float) -> float:
    """Return the wait after so many failed scans in a row, for what goes away by itself."""
    return equal_jitter(min(_doubled(FIRST_BACK_OFF_S, failures), longest_s), jitter)


def slow_poll_s(failures: int, *, interval_s: float, longest_s: float, jitter: float) -> float:
    """Return the wait after a failure that stays until somebody changes something.

    Not the longest time at once: keys that were half rotated are whole a moment later.
    """
    pause_s = min(_doubled(FIRST_SLOW_S, failures), longest_s) * (0.9 + 0.1 * jitter)
    return max(interval_s, pause_s)


def _doubled(first: float, times: int) -> float:
    return first * 2.0 ** min(max(times - 1, 0), 30)
