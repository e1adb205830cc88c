"""Recurring work of the monitor that leads, beside its schedule, in threads of its own."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from django.db import Error as DatabaseError
from django.db import close_old_connections

from scanning import engine
from scanning.core.errors import BucketwatchError
from scanning.runtime.database import UNMIGRATED, is_unmigrated

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scanning.runtime.processes import StopSignal

logger = logging.getLogger(__name__)

EVERY_S = 2.0
# How often a monitor that stands by asks whether it leads by now.
_STANDING_BY_S = 0.25
CHECK_REDIS_S = 15.0


def run_periodically(
    name: str,
    jobs: Sequence[Callable[[], object]],
    *,
    leads: Callable[[], bool],
    stopping: StopSignal,
) -> None:
    """Run jobs one after the other, every few seconds while this monitor leads, in a new thread."""

    def run() -> None:
        logged = ""
        while not stopping.wait(EVERY_S if leads() else _STANDING_BY_S):
            if leads():
                close_old_connections()
                problems = [_run(job) for job in jobs]
                logged = _log_once(next(filter(None, problems), ""), logged)

    threading.Thread(target=run, name=name, daemon=True).start()


def _run(job: Callable[[], object]) -> str:
    """Run one job; return what is wrong with the database, "" if nothing is."""
    try:
        job()
    except BucketwatchError as exc:
        logger.debug("housekeeping waits: %s", exc)
    except DatabaseError as exc:
        reason = (str(exc).splitlines() or [type(exc).__name__])[0][:200]
        return UNMIGRATED if is_unmigrated(exc) else f"The database does not answer: {reason}"
    except Exception:
        logger.exception("housekeeping: a job broke; it runs again")
    return ""


def _log_once(problem: str, logged: str) -> str:
    """Log what is wrong with the database unless it was ``logged`` last; return it."""
    if problem and problem != logged:
        logger.error(
            "housekeeping waits, so pages show old states and changes of buckets may not count: %s",
            problem,
        )
    elif logged and not problem:
        logger.info("housekeeping goes on: the database answers")
    return problem


class RedisWarnings:
    """Logs what Redis may lose with its settings: at the start, and when that changes."""

    def __init__(self, *, every_s: float = CHECK_REDIS_S) -> None:
        self._every_s = every_s
        self._checked_at = float("-inf")
        self._logged: tuple[str, ...] = ()

    def check(self) -> None:
        """Read the settings of Redis if that was some time ago."""
        now = time.monotonic()
        if now - self._checked_at < self._every_s:
            return
        self._checked_at = now
        health = engine.redis_health()
        if health.redis != "ok":
            return
        before, self._logged = self._logged, tuple(map(str, health.warnings))
        for text in self._logged:
            if text not in before:
                logger.warning("Redis: %s", text)
        for text in before:
            if text not in self._logged:
                logger.info("Redis, no longer: %s", text)
