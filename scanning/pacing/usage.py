"""What this process sends to one endpoint."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from typing import TYPE_CHECKING

from scanning.ports import RequestReport

if TYPE_CHECKING:
    from scanning.core.request_costs import RequestKind

# An endpoint that was sent nothing for so long gives its connections back.
IDLE_S = 30.0
# A rate is not measured over less.
_MEASURE_S = 1.0


class UsageMeter:
    """Counts requests, by bucket and kind, and those that failed. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_flight = self._sent = 0
        self._sent_per_s = 0.0
        self._measured_at = time.monotonic()
        self._active_at = float("-inf")
        self._unreported: Counter[tuple[str, RequestKind]] = Counter()
        self._throttled = self._unanswered = 0
        self._report = RequestReport(uuid.uuid4().hex, 0)
        self._is_received = True

    def begin_request(self, bucket: str, kind: RequestKind) -> None:
        with self._lock:
            self._sent += 1
            self._in_flight += 1
            self._unreported[bucket, kind] += 1

    def count_request(self, bucket: str, kind: RequestKind) -> None:
        """Count a request that waits for nobody, and that nobody waits for."""
        with self._lock:
            self._unreported[bucket, kind] += 1

    def end_request(self) -> None:
        with self._lock:
            self._in_flight -= 1

    def count_throttled(self) -> None:
        with self._lock:
            self._throttled += 1

    def count_unanswered(self) -> None:
        with self._lock:
            self._unanswered += 1

    # --- reports

    def begin_report(self) -> RequestReport:
        """Return what was sent since the last report; that one again if it may be lost."""
        with self._lock:
            if self._is_received and (self._unreported or self._throttled or self._unanswered):
                self._report = RequestReport(
                    self._report.reporter,
                    self._report.number + 1,
                    dict(self._unreported),
                    self._throttled,
                    self._unanswered,
                )
                self._unreported.clear()
                self._throttled = self._unanswered = 0
                self._is_received = False
            return self._report

    def end_report(self, report: RequestReport) -> None:
        """Note that a report was received."""
        with self._lock:
            self._is_received = self._is_received or report.number == self._report.number

    @property
    def has_report(self) -> bool:
        """Whether anything was sent that nobody heard of."""
        with self._lock:
            return not self._is_received or bool(self._unreported)

    def unreported(self, bucket: str | None = None) -> int:
        """Count the requests of a bucket, or of all, that nobody heard of."""
        with self._lock:
            sent = Counter(self._unreported)
            if not self._is_received:
                sent.update(self._report.sent)
        return sum(number for (name, _), number in sent.items() if bucket in {None, name})

    # --- rates

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
