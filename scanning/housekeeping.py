"""Recurring work of the monitor that leads, beside its schedule, in threads of its own."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from django.db import DatabaseError, close_old_connections

from scanning import facade
from scanning.core.errors import BucketwatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scanning.processes import StopSignal

logger = logging.getLogger(__name__)

EVERY_S = 2.0
# A monitor that stands by looks so often whether it leads by now.
_STANDING_BY_S = 0.25
LOOK_AT_REDIS_S = 15.0


def keep_house(
    name: str,
    jobs: Sequence[Callable[[], object]],
    *,
    leads: Callable[[], bool],
    stopping: StopSignal,
) -> None:
    """Run jobs one after the other, every few seconds while this monitor leads, in a new thread."""

    def run() -> None:
        while not stopping.wait(EVERY_S if leads() else _STANDING_BY_S):
            if leads():
                close_old_connections()
                for job in jobs:
                    _run(job)

    threading.Thread(target=run, name=name, daemon=True).start()


def _run(job: Callable[[], object]) -> None:
    try:
        job()
    except (BucketwatchError, DatabaseError) as exc:
        logger.debug("housekeeping waits: %s", exc)
    except Exception:
        logger.exception("housekeeping: a job broke; it runs again")


class RedisWarnings:
    """Logs what Redis may lose with the settings that it has: at the start, and changes."""

    def __init__(self, *, every_s: float = LOOK_AT_REDIS_S) -> None:
        self._every_s = every_s
        self._looked_at = float("-inf")
        self._said: tuple[str, ...] = ()

    def look(self) -> None:
        """Call it often; it looks now and then."""
        now = time.monotonic()
        if now - self._looked_at < self._every_s:
            return
        self._looked_at = now
        health = facade.redis_health()
        if health.redis != "ok":
            return
        before, self._said = self._said, tuple(map(str, health.warnings))
        for text in self._said:
            if text not in before:
                logger.warning("Redis: %s", text)
        for text in before:
            if text not in self._said:
                logger.info("Redis, no longer: %s", text)
