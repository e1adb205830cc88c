"""Not doing again at once what was done, or failed, a moment ago."""

from __future__ import annotations

import time

from scanning import wiring


class Cooldown:
    """Whether something happened in this process of late; forgotten when that is rewired."""

    def __init__(self, span_s: float) -> None:
        self._span_s = span_s
        self._wired: object = None
        self._until = 0.0

    def note(self) -> None:
        self._wired = wiring.interactive().connection
        self._until = time.monotonic() + self._span_s

    def goes_on(self) -> bool:
        return self._wired is wiring.interactive().connection and time.monotonic() < self._until
