"""The pulse of a worker: one that holds its interpreter's lock cannot end itself, its parent can.

A search in C holds the lock until it is over, and no time limit within the process gets a turn.
"""

from __future__ import annotations

import logging
import multiprocessing
import threading
import time
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from multiprocessing.context import ForkProcess

logger = logging.getLogger(__name__)

BEAT_S: Final = 1.0
# Looks in a row without a beat. They are counted by the one who looks: where both were frozen
# together, neither clock nor silence says anything.
MOST_SILENT: Final = 40

_fork = multiprocessing.get_context("fork")


class Pulse:
    """Beats in a worker, and is watched in its parent; make it before the fork."""

    def __init__(self, *, beat_s: float = BEAT_S, most_silent: int = MOST_SILENT) -> None:
        self._beat_s, self._most_silent = beat_s, most_silent
        self._beats = _fork.RawValue("L", 0)  # without a lock, which a killed process would keep

    def begin(self, **_: object) -> None:
        """Beat in a thread of this process until it ends."""
        threading.Thread(target=self._beat, name="pulse", daemon=True).start()

    def watch(self, worker: ForkProcess) -> None:
        """Kill a worker whose pulse stops; returns when it has ended, or was killed."""
        last, silent = -1, 0
        while not wait([worker.sentinel], timeout=self._beat_s):
            beats = int(self._beats.value)
            silent = silent + 1 if beats == last else 0
            last = beats
            if silent >= self._most_silent:
                logger.error(
                    "worker %s answers nobody for %.0f s: killed, and started anew",
                    worker.pid,
                    silent * self._beat_s,
                )
                worker.kill()
                return

    def _beat(self) -> None:
        while True:
            self._beats.value += 1
            time.sleep(self._beat_s)
