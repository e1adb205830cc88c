"""Threads that ask endpoints, of which a slow one holds up no other."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class FairThreads:
    """Runs jobs by endpoint: at most ``limit`` at once, and an endpoint no more than it leaves.

    However many of its jobs stall, an endpoint gets half of the threads that the others do not use:
    a second one that stalls gets half of the other half, and so on. Threads are started as they are
    needed. Jobs must not raise.
    """

    def __init__(self, limit: int, *, name: str) -> None:
        self._limit, self._name = limit, name
        self._changed = threading.Condition()
        self._waiting: defaultdict[str, deque[Callable[[], None]]] = defaultdict(deque)
        self._running: Counter[str] = Counter()
        self._pending = self._threads = self._idle = 0

    def submit(self, endpoint: str, job: Callable[[], None]) -> None:
        with self._changed:
            self._waiting[endpoint].append(job)
            self._pending += 1
            if self._pending > self._idle and self._threads < self._limit:
                threading.Thread(target=self._work, name=self._name, daemon=True).start()
                self._threads += 1
            else:  # what is pending may be of another endpoint, which has to wait
                self._changed.notify()

    def clear(self) -> None:
        """Drop the jobs that have not begun."""
        with self._changed:
            self._waiting.clear()
            self._pending = 0

    def _work(self) -> None:
        while True:
            with self._changed:
                while (endpoint := self._next()) is None:
                    self._idle += 1
                    self._changed.wait()
                    self._idle -= 1
                job = self._waiting[endpoint].popleft()
                self._pending -= 1
                if not self._waiting[endpoint]:
                    del self._waiting[endpoint]
                self._running[endpoint] += 1
            try:
                job()
            finally:
                with self._changed:
                    self._running[endpoint] -= 1
                    if not self._running[endpoint]:
                        del self._running[endpoint]
                    if self._waiting and self._idle:
                        self._changed.notify()

    def _next(self) -> str | None:
        """Choose the waiting endpoint that runs the fewest, if it may have one more."""
        if not self._waiting:
            return None
        endpoint = min(self._waiting, key=self._running.__getitem__)
        running = self._running[endpoint]
        free = self._limit - self._running.total()
        return endpoint if running < max(1, (free + running) // 2) else None
