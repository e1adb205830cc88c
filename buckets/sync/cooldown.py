"""Keep this process from doing again at once what was done, or failed, a moment ago."""

from __future__ import annotations

import time

from scanning import wiring


class Cooldown:
    """A span of time that begins with ``start``; over at once when the process is rewired."""

    def __init__(self, span_s: float) -> None:
        self._span_s = span_s
        self._wired: object = None
        self._until = 0.0

    def start(self) -> None:
        self._wired = wiring.interactive().connection
        self._until = time.monotonic() + self._span_s

    def is_active(self) -> bool:
        return self._wired is wiring.interactive().connection and time.monotonic() < self._until
