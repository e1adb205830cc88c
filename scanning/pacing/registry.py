"""The S3 endpoints that this process asks; what processes share is in `EndpointHealthStore`.

A request of an endpoint that has no limits and answers well costs a few locks and additions here.
Where there are limits, connections are leased in parts of the limit, and where an endpoint
throttled us moments to ask are reserved in batches, so that a listing asks Redis once for several
pages. One thread a process reports its usage once a second, and learns how the endpoints answer.
"""

from __future__ import annotations

import logging
import threading
import weakref
from typing import TYPE_CHECKING, Protocol

from scanning.core import pacing
from scanning.core.endpoints import endpoint_name
from scanning.pacing.context import PacingContext
from scanning.pacing.limiter import EndpointLimiter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scanning.core.pacing import EndpointLimits
    from scanning.ports import EndpointHealthStore, EndpointProfileStore

logger = logging.getLogger(__name__)

REPORT_S = 1.0
_CLOSE_S = 1.0


class ConnectionPool(Protocol):
    """Connections to endpoints that are kept open between requests."""

    def trim(self, endpoint: str, limit: int) -> None:
        """Close idle connections to an endpoint until there are at most so many."""

    def end_overdue(self) -> None:
        """End the requests whose answers take too long."""


class EndpointRegistry:
    """The limiters of a process, by endpoint; see `PacingContext` for the two durations."""

    def __init__(
        self,
        store: EndpointHealthStore,
        rules: Sequence[tuple[str, EndpointLimits]] = (),
        *,
        probe_s: float = 40.0,
        max_wait_s: float = 5.0,
        profiles: EndpointProfileStore | None = None,
    ) -> None:
        self.store, self.profiles = store, profiles
        self._context = PacingContext(
            store, probe_s, max_wait_s, trim=self._trim, ensure_reporting=self._ensure_reporting
        )
        self._closing = self._context.closing
        self._rules = rules
        self._limiters: dict[str, EndpointLimiter] = {}
        self._pools: weakref.WeakSet[ConnectionPool] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def limiter_for(self, endpoint: str) -> EndpointLimiter:
        """Return the limiter of a bucket's endpoint, however the bucket writes it."""
        name = endpoint_name(endpoint)
        limits = pacing.find_limits(name, self._rules)
        if self.profiles:
            limits = self.profiles.read(name).limits(limits)
        with self._lock:
            limiter = self._limiters.get(name)
            # Somebody set other limits: requests that are under way end by the old ones.
            if limiter is None or limiter.limits != limits:
                usage = limiter.usage if limiter else None
                limiter = EndpointLimiter(self._context, name, limits, usage)
                self._limiters[name] = limiter
        return limiter

    def register_pool(self, pool: ConnectionPool) -> None:
        """Trim a pool, and end its overdue requests, for as long as it is referred to."""
        self._pools.add(pool)

    def report_requests(self) -> None:
        """Report at once what was sent: this process may end before the next report is due."""
        for limiter in list(self._limiters.values()):
            limiter.report_requests()

    def close(self) -> None:
        """Interrupt all that wait, and report no more: this process is stopping."""
        self._closing.set()
        thread = self._thread
        if thread is not None:
            thread.join(_CLOSE_S)

    def _trim(self, endpoint: str, limit: int) -> None:
        for pool in list(self._pools):
            pool.trim(endpoint, limit)

    def _ensure_reporting(self) -> None:
        """Start the thread that reports, unless it runs; it ends when no endpoint is active."""
        with self._lock:
            if self._thread is None and not self._closing.is_set():
                thread = threading.Thread(target=self._report, name="endpoint-usage", daemon=True)
                thread.start()  # may fail: then the next request tries again
                self._thread = thread

    def _report(self) -> None:
        while not self._closing.wait(REPORT_S):
            try:
                for pool in list(self._pools):
                    pool.end_overdue()
                for limiter in list(self._limiters.values()):
                    limiter.report_usage()
            except Exception:
                # Without this thread the connections of this process would be given away.
                logger.exception("an error in bucketwatch while reporting the use of endpoints")
            with self._lock:
                limiters = self._limiters.values()
                if not any(one.is_active or one.usage.has_report for one in limiters):
                    self._thread = None
                    return
