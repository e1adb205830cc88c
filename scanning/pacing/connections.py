"""Connections to one endpoint, of a limit that all processes share."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING

from scanning.core.errors import Throttled
from scanning.pacing.health import is_overtaken

if TYPE_CHECKING:
    from collections.abc import Callable

    from scanning.pacing.context import PacingContext

_ASK_AGAIN_S = 0.1
# Connections are asked for in so many parts of the limit: not each one by itself.
_PARTS = 50


class ConnectionShare:
    """This process's share of an endpoint's connections. Safe for threads.

    Who needs more than was granted calls ``request``, which asks all processes for a number of
    connections and calls `grant`. Without a limit (0) nothing is counted, and nobody waits.
    """

    def __init__(
        self, endpoint: str, limit: int, context: PacingContext, request: Callable[[int], None]
    ) -> None:
        self.limit = limit
        self._endpoint, self._context, self._request = endpoint, context, request
        self._changed = threading.Condition()
        self._in_use = self._peak = self._granted = 0
        self._granted_at = 0.0
        self._requested_at = float("-inf")

    @property
    def granted(self) -> int:
        return self._granted

    def acquire(self) -> None:
        """Take one connection. Raises Throttled if none comes free in time."""
        if not self.limit:
            return
        give_up_at = time.monotonic() + self._context.max_wait_s
        while not self._take():
            now = time.monotonic()
            if now > give_up_at:
                raise Throttled(
                    f"{self._endpoint}: the {self.limit} requests at once that "
                    "limits.endpoints (LIMITS_ENDPOINTS), or the endpoint's own limits, allow are "
                    "under way"
                )
            if self._may_request(now):
                self._request(self._in_parts(self._in_use + 1))
            else:
                with self._changed:
                    if self._in_use >= self._granted:
                        self._changed.wait(_ASK_AGAIN_S)
            self._context.wait(0)

    def release(self) -> None:
        if not self.limit:
            return
        with self._changed:
            self._in_use -= 1
            self._changed.notify()

    def grant(self, connections: int, at: float) -> None:
        """Set how many connections this process has, unless a later grant overtook this one."""
        with self._changed:
            if not is_overtaken(at, self._granted_at):
                self._granted, self._granted_at = connections, at
            self._changed.notify_all()

    def begin_demand(self) -> int:
        """Return how many to ask for before the first request for a while."""
        return max(self._granted, self._in_parts(1)) if self.limit else 0

    def take_demand(self) -> int:
        """Return how many were needed at once since the last call, in whole parts."""
        with self._changed:
            peak, self._peak = self._peak, self._in_use
        return self._in_parts(peak)

    def _take(self) -> bool:
        with self._changed:
            if self._in_use >= self._granted:
                return False
            self._in_use += 1
            self._peak = max(self._peak, self._in_use)
            return True

    def _may_request(self, now: float) -> bool:
        """Let one thread ask, the others wait for what it gets."""
        with self._changed:
            if now - self._requested_at < _ASK_AGAIN_S:
                return False
            self._requested_at = now
            return True

    def _in_parts(self, connections: int) -> int:
        part = max(1, self.limit // _PARTS)
        return math.ceil(connections / part) * part
