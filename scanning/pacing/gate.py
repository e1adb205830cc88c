"""One S3 endpoint as this process asks it: who may send a request now, and what became of those."""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from scanning.core import pacing
from scanning.core.errors import BucketwatchError, StorageUnavailable, Throttled
from scanning.core.pacing import HEALTHY, EndpointHealth, EndpointLimits
from scanning.pacing.slots import SlotReservations
from scanning.ports import EndpointStatus, EndpointUsage

if TYPE_CHECKING:
    from collections.abc import Callable

    from scanning.pacing.registry import EndpointRegistry

logger = logging.getLogger(__name__)

# An endpoint that was not asked for so long gives its connections back.
IDLE_S = 30.0
# What was learnt longer ago is asked again before the next request.
_STALE_S = 3.0
_LOOK_AGAIN_S = 0.1
# Connections are asked for in so many parts of the limit, and turns forgotten after so long.
_PARTS = 50
_FORGET_TURNS_S = 10.0
# A rate is not measured over less.
_MEASURE_S = 1.0
# Answers of Redis that overtook each other are no further apart.
_OVERTAKES_S = 5.0


class EndpointLimiter:
    """One endpoint, as this process asks it. Safe for threads."""

    def __init__(self, gates: EndpointRegistry, endpoint: str, limits: EndpointLimits) -> None:
        self.endpoint = endpoint
        self._gates, self._paces, self._limits = gates, gates.paces, limits
        self._lock = threading.Condition()
        self._in_flight = self._peak = self._granted = 0
        self._granted_at = 0.0
        self._throttled = self._unanswered = 0
        # Of this process: what was sent since then, and a second before that.
        self._sent, self._sent_per_s = 0, 0.0
        self._counts_from = time.monotonic()
        self._told_at = self._asked_at = self._used_at = float("-inf")
        self._learning = threading.Lock()
        self._is_deaf = False
        self._standing = EndpointStatus(HEALTHY, time.time())
        self._clock_offset = time.time() - time.monotonic()
        self._turns: dict[str, SlotReservations] = {}

    # --- asking

    def turn(self, bucket: str, *, lists: bool) -> Permit:
        """A context in which ``bucket`` sends one request; entering it waits for its turn.

        Entering raises StorageUnavailable while the endpoint is dead, and Throttled if the turn
        would come too late.
        """
        return Permit(self, bucket, lists=lists)

    def enter(self, bucket: str, *, lists: bool) -> None:
        pace = self.look()
        if pace is not HEALTHY:
            self._heed(pace, bucket)
        if lists and self._limits.list_per_s:
            self._turns_of(bucket, self._limits.list_per_s).wait()
        with self._lock:
            if self._limits.connections:
                self._wait_for_a_connection()
            self._sent += 1
            self._in_flight += 1
            self._peak = max(self._peak, self._in_flight)

    def wait(self, seconds: float) -> None:
        """Pause between two tries. Raises Interrupted when this process is stopping."""
        self._gates.wait(seconds)

    def leave(self) -> None:
        with self._lock:
            self._in_flight -= 1
            self._lock.notify()

    def answered(self) -> None:
        """It answered, whatever it said."""
        # On the way of every page: mostly there is nothing to mend.
        if self._standing.pace.is_failing:
            self._change(lambda pace, _: pacing.answered(pace))

    def throttled(self) -> None:
        """It asked for fewer requests."""
        with self._lock:
            self._throttled += 1
        self._slow_down()

    def unanswered(self, bucket: str, why: str, *, timed_out: bool) -> None:
        """It did not answer at all; ``why`` is for people."""
        if self._gates.is_closing:
            return  # we may have ended it ourselves
        with self._lock:
            self._unanswered += 1
        if timed_out:
            self._slow_down()
        jitter = _jitter()
        self._change(lambda pace, now: pacing.failed(pace, bucket, now=now, why=why, jitter=jitter))

    # --- who may scan

    def look(self) -> EndpointHealth:
        """How the endpoint answers now."""
        if time.monotonic() - self._told_at > _STALE_S:
            self._learn()
        return self._standing.pace

    def refuses(self, bucket: str) -> bool:
        """Whether the endpoint is dead, and some other bucket is to try it."""
        pace = self._standing.pace
        return pace.is_dead and pace.probe != bucket

    def may_probe(self, bucket: str) -> bool:
        """Whether ``bucket`` is the one that asks a dead endpoint now, or it is not dead at all."""
        return self._probes(bucket, pacing.probed)

    def probe_now(self, bucket: str) -> None:
        """Let ``bucket`` ask a dead endpoint at once: somebody waits for what it says."""
        if self.look().is_dead:
            self._probes(bucket, pacing.probed_now)

    def _probes(self, bucket: str, probed: Callable[..., EndpointHealth]) -> bool:
        for_s = self._gates.probe_s
        pace = self._change(lambda pace, now: probed(pace, bucket, now=now, for_s=for_s))
        return not pace.is_dead or pace.probe == bucket

    def now(self) -> float:
        """The time that paces go by."""
        return time.monotonic() + self._clock_offset

    # --- what is shared

    @property
    def is_used(self) -> bool:
        return self._in_flight > 0 or time.monotonic() - self._used_at < IDLE_S

    def tell(self) -> None:
        """Tell of the last second's use, give back what is not needed, and learn."""
        if not (self._sent or self.is_used or self._granted):
            return
        with self._lock:
            now = time.monotonic()
            self._sent_per_s = self._sent / max(now - self._counts_from, _MEASURE_S)
            if self._sent:
                self._used_at = now
            self._sent, self._counts_from = 0, now
            wanted = self._part(self._peak) if self.is_used else 0
            self._peak = self._in_flight
            granted = self._granted
        if wanted < granted:
            self._gates.trim(self.endpoint, wanted)
        self._use(wanted)
        self._forget_turns()

    def _learn(self) -> None:
        """Ask how the endpoint stands, before the first request for a while."""
        with self._learning:
            if time.monotonic() - self._told_at > _STALE_S:
                self._used_at = time.monotonic()
                self._use(max(self._granted, self._part(1)))
        self._gates.watch()

    def _use(self, connections: int) -> None:
        limit = self._limits.connections
        with self._lock:
            use = EndpointUsage(
                endpoint=self.endpoint,
                sent_per_s=self._sent_per_s,
                connections=connections if limit else 0,
                limit=limit,
                throttled=self._throttled,
                unanswered=self._unanswered,
            )
            self._throttled = self._unanswered = 0
            self._told_at = time.monotonic()
        try:
            standing = self._paces.use(use)
        except BucketwatchError as exc:  # what is known serves on
            level = logging.DEBUG if self._is_deaf else logging.WARNING
            logger.log(level, "%s: its pace is not shared just now: %s", self.endpoint, exc)
            self._is_deaf = True
            return
        with self._lock:
            self._is_deaf = False
            if not _is_overtaken(standing.now, self._granted_at):
                self._granted, self._granted_at = standing.connections, standing.now
            self._stand(standing)
            self._lock.notify_all()

    def _change(self, change: Callable[[EndpointHealth, float], EndpointHealth]) -> EndpointHealth:
        try:
            standing = self._paces.change(self.endpoint, change)
        except BucketwatchError:  # what we have seen ourselves counts here
            standing = EndpointStatus(change(self._standing.pace, self.now()), self.now())
        with self._lock:
            self._stand(replace(standing, others_per_s=self._standing.others_per_s))
        return standing.pace

    def _stand(self, standing: EndpointStatus) -> None:
        """With the lock: see things so from now on."""
        before = self._standing
        if _is_overtaken(standing.now, before.now):
            return
        if standing.pace.is_dead != before.pace.is_dead:
            _log_transition(self.endpoint, standing.pace)
        is_free = standing.pace == HEALTHY
        self._standing = replace(standing, pace=HEALTHY) if is_free else standing
        self._clock_offset = standing.now - time.monotonic()

    def _slow_down(self) -> None:
        with self._lock:
            pace = self._standing.pace
            if pace.rate and 0 <= self.now() - pace.since < pacing.HOLD_S:
                return  # many answers tell of the same jam
            elapsed_s = time.monotonic() - self._counts_from
            sent_per_s = max(self._sent_per_s, self._sent / max(elapsed_s, _MEASURE_S))
            sent_per_s += self._standing.others_per_s
        jitter = _jitter()
        self._change(
            lambda pace, now: pacing.throttled(pace, now=now, sent_per_s=sent_per_s, jitter=jitter)
        )

    # --- waiting

    def _heed(self, pace: EndpointHealth, bucket: str) -> None:
        if self.refuses(bucket):
            raise StorageUnavailable(
                f"bucket {bucket} at {self.endpoint}: the endpoint does not answer ({pace.why}); "
                "its buckets wait until it does"
            )
        if pace.is_dead:
            return
        per_s = pacing.allowed(pace, now=self.now())
        if per_s < math.inf:
            self._turns_of("", per_s).wait()

    def _turns_of(self, bucket: str, per_s: float) -> SlotReservations:
        with self._lock:
            turns = self._turns.get(bucket)
            if turns is None:
                turns = self._turns[bucket] = SlotReservations(self._gates, self.endpoint, bucket)
        turns.per_s = per_s
        return turns

    def _forget_turns(self) -> None:
        before = time.monotonic() - _FORGET_TURNS_S
        with self._lock:
            for bucket in [b for b, turns in self._turns.items() if turns.used_at < before]:
                del self._turns[bucket]

    def _wait_for_a_connection(self) -> None:
        """With the lock. Raises Throttled if none comes free in time."""
        give_up_at = time.monotonic() + self._gates.most_wait_s
        while self._in_flight >= self._granted:
            now = time.monotonic()
            if now > give_up_at:
                raise Throttled(
                    f"{self.endpoint}: the {self._limits.connections} requests at once that "
                    "limits.endpoints (LIMITS_ENDPOINTS) allows are under way"
                )
            if now - self._asked_at >= _LOOK_AGAIN_S:
                self._asked_at = now
                self._ask_for_connections()
            else:
                self._lock.wait(_LOOK_AGAIN_S)
                self._gates.wait(0)

    def _ask_for_connections(self) -> None:
        wanted = self._part(self._in_flight + 1)
        self._lock.release()
        try:
            self._use(wanted)
        finally:
            self._lock.acquire()

    def _part(self, connections: int) -> int:
        """As many connections, in whole parts of the limit: not each one is asked for."""
        part = max(1, self._limits.connections // _PARTS)
        return math.ceil(connections / part) * part


class Permit:
    """See `Gate.turn`. A class, and not a generator: this is on the way of every page."""

    __slots__ = ("_bucket", "_gate", "_lists")

    def __init__(self, gate: EndpointLimiter, bucket: str, *, lists: bool) -> None:
        self._gate, self._bucket, self._lists = gate, bucket, lists

    def __enter__(self) -> Self:
        self._gate.enter(self._bucket, lists=self._lists)
        return self

    def __exit__(self, *_: object) -> None:
        self._gate.leave()


def _is_overtaken(now: float, last: float) -> bool:
    """Whether an answer of ``now`` comes after one that Redis gave later."""
    return -_OVERTAKES_S < now - last < 0


def _log_transition(endpoint: str, pace: EndpointHealth) -> None:
    if pace.is_dead:
        logger.warning(
            "%s does not answer (%s): it is asked by one bucket at a time, the others wait",
            endpoint,
            pace.why,
        )
    else:
        logger.info("%s answers again", endpoint)


def _jitter() -> float:
    return random.random()  # noqa: S311 - spreads what was slowed down together
