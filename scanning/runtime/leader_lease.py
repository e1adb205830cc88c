"""Which of several monitors schedules."""

from __future__ import annotations

import logging
import time

from scanning import wiring
from scanning.core.errors import BucketwatchError

logger = logging.getLogger(__name__)

LEADER_LEASE_S = 8.0


class LeaderLease:
    """The lease of the monitor that schedules; other monitors stand by for it."""

    def __init__(self, holder: str) -> None:
        self.holder = holder
        self._leads: bool | None = None  # not known yet
        self._held_until = float("-inf")

    def renew(self) -> bool:
        """Take the lease or keep it; False if another monitor has it. Raises RedisUnavailable."""
        asked_at = time.monotonic()
        leads = wiring.interactive().schedule.lead(self.holder, lease_s=LEADER_LEASE_S)
        if leads != self._leads:
            logger.info("this monitor %s", "schedules" if leads else "stands by for another")
        self._leads = leads
        self._held_until = asked_at + LEADER_LEASE_S if leads else float("-inf")
        return leads

    def is_held(self) -> bool:
        """Say whether this monitor still leads; not for long while Redis is away."""
        return time.monotonic() < self._held_until

    def give_up(self) -> None:
        """Let another monitor take over at once."""
        try:
            wiring.interactive().schedule.step_down(self.holder)
        except BucketwatchError:
            logger.info("Redis is away; the lead expires by itself")
