"""Moments at which requests may be sent; who needs one waits for it here (`core/pacing.py`)."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from scanning.core import pacing
from scanning.core.errors import Throttled
from scanning.core.pacing import Slots

if TYPE_CHECKING:
    from scanning.pacing.context import PacingContext


class SlotReservations(ABC):
    """Moments that keep a rate together, reserved batch by batch. Safe for threads."""

    def __init__(self, context: PacingContext) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._slots = Slots()
        self.used_at = time.monotonic()

    def wait(self, per_s: float) -> None:
        """Wait for the next moment. Raises Throttled if it is too far ahead."""
        while True:
            with self._lock:  # one thread reserves for all that wait
                while (at := self._slots.take(time.monotonic())) is None:
                    self._slots = self._reserve(per_s)
            self.used_at = at
            if (pause_s := at - time.monotonic()) > 0:
                self._context.wait(pause_s)
            if time.monotonic() - at <= pacing.LATE_S:
                return

    @abstractmethod
    def _reserve(self, per_s: float) -> Slots:
        """Reserve the next batch."""


class BucketSlots(SlotReservations):
    """Moments for LIST requests of one bucket, which one process scans: its lease says so."""

    def __init__(self, context: PacingContext) -> None:
        super().__init__(context)
        self._free_at = time.monotonic()

    def _reserve(self, per_s: float) -> Slots:
        first, spacing_s = max(self._free_at, time.monotonic()), pacing.spacing_s(per_s)
        self._free_at = first + spacing_s
        return Slots(first, spacing_s, 1)


class EndpointSlots(SlotReservations):
    """Moments for any request of an endpoint that throttled us, shared by all processes."""

    def __init__(self, context: PacingContext, endpoint: str) -> None:
        super().__init__(context)
        self._endpoint = endpoint

    def _reserve(self, per_s: float) -> Slots:
        count, spacing_s = pacing.batch_size(per_s), pacing.spacing_s(per_s)
        wait_s = self._context.store.reserve(
            self._endpoint, count=count, spacing_s=spacing_s, max_wait_s=self._context.max_wait_s
        )
        if wait_s is None:
            raise Throttled(
                f"{self._endpoint} has asked for fewer requests: held back to {per_s:.1f} a "
                "second, and more are waiting than that"
            )
        return Slots(time.monotonic() + wait_s, spacing_s, count)
