"""One S3 endpoint as this process asks it: who may send a request now, and how those ended."""

from __future__ import annotations

import logging
import math
import threading
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Self

from scanning.core import pacing
from scanning.core.errors import BucketwatchError, StorageUnavailable
from scanning.core.pacing import HEALTHY, EndpointHealth, EndpointLimits
from scanning.core.request_costs import RequestKind
from scanning.pacing.connections import ConnectionShare
from scanning.pacing.health import HealthView
from scanning.pacing.slots import BucketSlots, EndpointSlots
from scanning.pacing.usage import UsageMeter
from scanning.ports import EndpointUsage

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from scanning.pacing.context import PacingContext

logger = logging.getLogger(__name__)

# What was learnt longer ago is asked again before the next request.
_STALE_S = 3.0
# A bucket's moments are forgotten when it was not listed for so long.
_FORGET_SLOTS_S = 10.0


class EndpointLimiter:
    """Lets requests to one endpoint pass when they may. Safe for threads."""

    def __init__(
        self,
        context: PacingContext,
        endpoint: str,
        limits: EndpointLimits,
        usage: UsageMeter | None = None,
    ) -> None:
        """Go on with the ``usage`` that a limiter with other limits measured."""
        self.endpoint, self.limits = endpoint, limits
        self._context, self._list_per_s = context, limits.list_per_s
        self.usage = usage or UsageMeter()
        self._health = HealthView(endpoint, context.store)
        self._connections = ConnectionShare(
            endpoint, limits.connections, context, self._share_usage
        )
        self._endpoint_slots = EndpointSlots(context, endpoint)
        self._bucket_slots: dict[str, BucketSlots] = {}
        self._bucket_slots_lock = threading.Lock()
        self._learning = threading.Lock()
        self._shared_at = float("-inf")
        self._is_cut_off = False

    # --- requests

    def acquire(self, bucket: str, kind: RequestKind) -> Permit:
        """Return a context in which ``bucket`` sends one request; entering it waits.

        The request counts, whatever comes of it.

        Entering raises StorageUnavailable while the endpoint is dead, and Throttled if the request
        would have to wait for too long.
        """
        return Permit(self, bucket, kind)

    def begin_request(self, bucket: str, kind: RequestKind) -> None:
        self._check_health(bucket)
        if kind is RequestKind.LIST and self._list_per_s:
            self._slots_of(bucket).wait(self._list_per_s)
        self._connections.acquire()
        self.usage.begin_request(bucket, kind)

    def count_request(self, bucket: str, kind: RequestKind) -> None:
        """Count a request that is sent past this limiter."""
        self.usage.count_request(bucket, kind)
        self._context.ensure_reporting()

    def end_request(self) -> None:
        self.usage.end_request()
        self._connections.release()

    def wait(self, seconds: float) -> None:
        """Pause between two tries. Raises Interrupted when this process is stopping."""
        self._context.wait(seconds)

    def record_answer(self) -> None:
        """Note that the endpoint answered, even with an error."""
        # On the way of every page: mostly there is nothing to mend.
        if self._health.current.is_failing:
            self._health.change(lambda health, _: pacing.record_answer(health))

    def record_throttling(self) -> None:
        """Note that the endpoint asked for fewer requests."""
        self.usage.count_throttled()
        self._slow_down()

    def record_failure(self, bucket: str, why: str, *, timed_out: bool) -> None:
        """Note that the endpoint gave no answer at all; ``why`` is for people."""
        if self._context.closing.is_set():
            return  # this process may have ended the request itself
        self.usage.count_unanswered()
        if timed_out:
            self._slow_down()
        jitter = pacing.draw_jitter()
        self._health.change(
            lambda health, now: pacing.record_failure(
                health, bucket, now=now, why=why, jitter=jitter
            )
        )

    def _check_health(self, bucket: str) -> None:
        """Wait while the endpoint is slowed down. Raises StorageUnavailable, Throttled."""
        health = self.health()
        if health is HEALTHY:
            return
        if self.blocks(bucket):
            raise StorageUnavailable(
                f"bucket {bucket} at {self.endpoint}: the endpoint does not answer ({health.why}); "
                "its buckets wait until it does"
            )
        if health.is_dead:
            return
        per_s = pacing.allowed_per_s(health, now=self.now())
        if per_s < math.inf:
            self._endpoint_slots.wait(per_s)

    def _slow_down(self) -> None:
        if pacing.is_just_throttled(self._health.current, now=self.now()):
            return
        sent_per_s = self.usage.peak_per_s() + self._health.others_per_s
        jitter = pacing.draw_jitter()
        self._health.change(
            lambda health, now: pacing.record_throttling(
                health, now=now, sent_per_s=sent_per_s, jitter=jitter
            )
        )

    def _slots_of(self, bucket: str) -> BucketSlots:
        with self._bucket_slots_lock:
            slots = self._bucket_slots.get(bucket)
            if slots is None:
                slots = self._bucket_slots[bucket] = BucketSlots(self._context)
            return slots

    # --- who may scan

    def health(self) -> EndpointHealth:
        """Return how the endpoint answers now; asks all processes if that is long ago."""
        if time.monotonic() - self._shared_at > _STALE_S:
            self._learn()
        return self._health.current

    def blocks(self, bucket: str) -> bool:
        """Tell whether the endpoint is dead, and ``bucket`` is not the one that tries it."""
        health = self._health.current
        return health.is_dead and health.probe != bucket

    def claim_probe(self, bucket: str) -> bool:
        """Have ``bucket`` try a dead endpoint, if it is time and no other one does.

        Return whether ``bucket`` may ask the endpoint now.
        """
        return self._claim_probe(bucket, pacing.claim_probe)

    def claim_probe_now(self, bucket: str) -> None:
        """Have ``bucket`` try a dead endpoint at once: somebody waits for the answer."""
        if self.health().is_dead:
            self._claim_probe(bucket, pacing.claim_probe_now)

    def _claim_probe(self, bucket: str, claim: Callable[..., EndpointHealth]) -> bool:
        for_s = self._context.probe_s
        health = self._health.change(
            lambda health, now: claim(health, bucket, now=now, for_s=for_s)
        )
        return not health.is_dead or health.probe == bucket

    def now(self) -> float:
        """Return the time by Redis's clock, as in `EndpointHealth`."""
        return self._health.now()

    # --- what processes share

    @property
    def is_active(self) -> bool:
        return self.usage.is_active

    def report_usage(self) -> None:
        """Report the last second, give back connections that are not needed, and learn."""
        if not (self.is_active or self._connections.granted or self.usage.has_report):
            return
        self.usage.measure()
        demand = self._connections.take_demand() if self.is_active else 0
        if demand < self._connections.granted:
            self._context.trim(self.endpoint, demand)
        self._share_usage(demand)
        self._forget_slots()

    def report_requests(self) -> None:
        """Report what was sent since the last report, if anything was."""
        if self.usage.has_report:
            self._share_usage(self._connections.granted)

    def _learn(self) -> None:
        """Ask for the endpoint's status, before the first request for a while."""
        with self._learning:
            if time.monotonic() - self._shared_at > _STALE_S:
                self.usage.mark_active()
                self._share_usage(self._connections.begin_demand())
        self._context.ensure_reporting()

    def _share_usage(self, connections: int) -> None:
        report = self.usage.begin_report()
        usage = EndpointUsage(
            endpoint=self.endpoint,
            sent_per_s=self.usage.sent_per_s,
            connections=connections,
            limit=self._connections.limit,
            report=report,
        )
        self._shared_at = time.monotonic()
        try:
            status = self._context.store.share_usage(usage)
        except BucketwatchError as exc:  # what is known serves on
            level = logging.DEBUG if self._is_cut_off else logging.WARNING
            logger.log(level, "%s: its pace is not shared just now: %s", self.endpoint, exc)
            self._is_cut_off = True
            return
        self._is_cut_off = False
        self.usage.end_report(report)
        self._health.set_status(status)
        self._connections.grant(status.connections, status.now)

    def _forget_slots(self) -> None:
        before = time.monotonic() - _FORGET_SLOTS_S
        with self._bucket_slots_lock:
            for bucket, slots in list(self._bucket_slots.items()):
                if slots.used_at < before:
                    del self._bucket_slots[bucket]


class Permit:
    """See `EndpointLimiter.acquire`. No generator: every page enters one."""

    __slots__ = ("_bucket", "_kind", "_limiter")

    def __init__(self, limiter: EndpointLimiter, bucket: str, kind: RequestKind) -> None:
        self._limiter, self._bucket, self._kind = limiter, bucket, kind

    def __enter__(self) -> Self:
        self._limiter.begin_request(self._bucket, self._kind)
        return self

    def __exit__(self, *_: object) -> None:
        self._limiter.end_request()


class UnlimitedEndpoint:
    """For somebody who waits in front of a page: lets requests pass, and records no answers.

    Requests are counted at ``limiter``, if there is one.
    """

    def __init__(self, limiter: EndpointLimiter | None = None) -> None:
        self._limiter = limiter

    def acquire(self, bucket: str, kind: RequestKind) -> AbstractContextManager[None]:
        if self._limiter is not None:
            self._limiter.count_request(bucket, kind)
        return nullcontext()

    def record_answer(self) -> None: ...

    def record_throttling(self) -> None: ...

    def record_failure(self, bucket: str, why: str, *, timed_out: bool) -> None: ...

    def blocks(self, bucket: str) -> bool:
        return False

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)


UNLIMITED = UnlimitedEndpoint()
