"""How one endpoint answers, as this process knows it."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from scanning.core.errors import BucketwatchError
from scanning.core.pacing import HEALTHY, EndpointHealth
from scanning.ports import EndpointStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from scanning.ports import EndpointHealthStore

logger = logging.getLogger(__name__)

# Answers of Redis that overtook each other are no further apart.
_OVERTAKES_S = 5.0


class HealthView:
    """The last status that was heard of; `current` is `HEALTHY` itself if nothing is wrong."""

    def __init__(self, endpoint: str, store: EndpointHealthStore) -> None:
        self._endpoint, self._store = endpoint, store
        self._lock = threading.Lock()
        self._status = EndpointStatus(HEALTHY, time.time())
        self._clock_offset_s = time.time() - time.monotonic()

    @property
    def current(self) -> EndpointHealth:
        return self._status.health

    @property
    def others_per_s(self) -> float:
        return self._status.others_per_s

    def now(self) -> float:
        """Return the time by the clock that all processes go by, Redis's."""
        return time.monotonic() + self._clock_offset_s

    def change(self, change: Callable[[EndpointHealth, float], EndpointHealth]) -> EndpointHealth:
        """Apply a rule to what is stored for all processes; without Redis, to what is known."""
        try:
            status = self._store.update(self._endpoint, change)
        except BucketwatchError:
            now = self.now()
            status = EndpointStatus(change(self.current, now), now)
        self.set_status(replace(status, others_per_s=self.others_per_s))
        return status.health

    def set_status(self, status: EndpointStatus) -> None:
        """Keep the status, unless a later one overtook it."""
        with self._lock:
            before = self._status
            if is_overtaken(status.now, before.now):
                return
            is_healthy = status.health == HEALTHY
            self._status = replace(status, health=HEALTHY) if is_healthy else status
            self._clock_offset_s = status.now - time.monotonic()
        if status.health.is_dead != before.health.is_dead:
            self._log_transition(status.health)

    def _log_transition(self, health: EndpointHealth) -> None:
        if health.is_dead:
            logger.warning(
                "%s does not answer (%s): it is asked by one bucket at a time, the others wait",
                self._endpoint,
                health.why,
            )
        else:
            logger.info("%s answers again", self._endpoint)


def is_overtaken(now: float, last: float) -> bool:
    """Tell whether Redis gave the answer of ``now`` before the one of ``last``."""
    return -_OVERTAKES_S < now - last < 0
