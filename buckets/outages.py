"""Not asking what has just failed to answer again at every save."""

from __future__ import annotations

import time

from scanning import wiring


class Outage:
    """When something last failed in this process; forgotten after a while, or when rewired."""

    def __init__(self, leave_it_s: float) -> None:
        self._leave_it_s = leave_it_s
        self._wired: object = None
        self._until = 0.0

    def note(self) -> None:
        self._wired = wiring.impatient_connection()
        self._until = time.monotonic() + self._leave_it_s

    def goes_on(self) -> bool:
        return self._wired is wiring.impatient_connection() and time.monotonic() < self._until
