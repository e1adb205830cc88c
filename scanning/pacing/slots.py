"""Moments at which a process may ask an endpoint; it waits for them here (`core/pacing.py`)."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from scanning.core import pacing
from scanning.core.errors import Throttled
from scanning.core.pacing import Slots

if TYPE_CHECKING:
    from scanning.pacing.registry import EndpointRegistry

_NO_LIMIT_S = 1e9


class SlotReservations:
    """Moments at which to ask an endpoint, or to list in one bucket; reserved in batches."""

    def __init__(self, gates: EndpointRegistry, endpoint: str, bucket: str) -> None:
        self._gates, self._endpoint, self._bucket = gates, endpoint, bucket
        self._lock = threading.Lock()
        self._slots = Slots()
        self.per_s = 1.0
        self.used_at = time.monotonic()

    def wait(self) -> None:
        """Wait for the next moment. Raises Throttled if it is too far ahead."""
        while True:
            with self._lock:
                at = self._take()
            self.used_at = time.monotonic()
            if at > self.used_at:
                self._gates.wait(at - self.used_at)
            if time.monotonic() - at <= pacing.LATE_S:
                return

    def _take(self) -> float:
        """With the lock, so that one thread reserves for all that wait."""
        while (at := self._slots.take(time.monotonic())) is None:
            self._reserve()
        return at

    def _reserve(self) -> None:
        count, spacing_s = pacing.batch_size(self.per_s), pacing.spacing_s(self.per_s)
        ahead_s = _NO_LIMIT_S if self._bucket else self._gates.most_wait_s
        wait_s = self._gates.paces.reserve(
            self._endpoint, self._bucket, count=count, spacing_s=spacing_s, ahead_s=ahead_s
        )
        if wait_s is None:
            raise Throttled(
                f"{self._endpoint} has asked for fewer requests: held back to {self.per_s:.1f} a "
                "second, and more are waiting than that"
            )
        self._slots = Slots(time.monotonic() + wait_s, spacing_s, count)
