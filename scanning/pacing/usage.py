"""What this process sends to one endpoint."""

from __future__ import annotations

import threading
import time

# An endpoint that was sent nothing for so long gives its connections back.
IDLE_S = 30.0
# A rate is not measured over less.
_MEASURE_S = 1.0


class UsageMeter:
    """Counts requests, and those that failed. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_flight = self._sent = 0
        self._sent_per_s = 0.0
        self._measured_at = time.monotonic()
        self._active_at = float("-inf")
        self._throttled = self._unanswered = 0

    def begin_request(self) -> None:
        with self._lock:
            self._sent += 1
            self._in_flight += 1

    def end_request(self) -> None:
        with self._lock:
            self._in_flight -= 1

    def count_throttled(self) -> None:
        with self._lock:
            self._throttled += 1

    def count_unanswered(self) -> None:
        with self._lock:
            self._unanswered += 1

    def take_failures(self) -> tuple[int, int]:
        """Return how many were throttled and unanswered since the last call."""
        with self._lock:
            failures = self._throttled, self._unanswered
            self._throttled = self._unanswered = 0
            return failures

    @property
    def is_active(self) -> bool:
        is_recent = time.monotonic() - self._active_at < IDLE_S
        return is_recent or self._in_flight > 0 or self._sent > 0

    def mark_active(self) -> None:
        self._active_at = time.monotonic()

    @property
    def sent_per_s(self) -> float:
        """The rate in the last interval that `measure` ended."""
        return self._sent_per_s

    def peak_per_s(self) -> float:
        """Return the higher one of the rates in the last interval and since."""
        with self._lock:
            return max(self._sent_per_s, self._current_per_s(time.monotonic()))

    def measure(self) -> None:
        """End an interval, and begin the next one."""
        with self._lock:
            now = time.monotonic()
            self._sent_per_s = self._current_per_s(now)
            if self._sent:
                self._active_at = now
            self._sent, self._measured_at = 0, now

    def _current_per_s(self, now: float) -> float:
        return self._sent / max(now - self._measured_at, _MEASURE_S)
