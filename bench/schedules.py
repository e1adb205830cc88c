"""What growing intervals save: days of many buckets, scheduled by the functions that workers use.

Nothing is listed: a scan finds what changed since the one before it.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from dataclasses import dataclass
from statistics import quantiles
from typing import TYPE_CHECKING, Final

from scanning.core import schedule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scanning.core.schedule import PollingIntervals

DAY_S: Final = 86_400.0


@dataclass(frozen=True)
class Fleet:
    """Buckets of which a share is busy: something changes in each every few minutes, at random.

    In the others nothing ever changes.
    """

    buckets: int = 1_000
    busy_share: float = 0.05
    change_every_s: float = 120.0
    lasts_s: float = DAY_S


@dataclass(frozen=True)
class Polled:
    """What a fleet cost, and how late its changes were found.

    ``busiest_minute`` is the most scans in one minute of the second half, when the quiet buckets'
    intervals have grown.
    """

    scans: int
    busiest_minute: int
    lag_p95_s: float


def poll(fleet: Fleet, intervals: PollingIntervals) -> Polled:
    """Schedule every scan of a fleet; each costs one request."""
    dice = random.Random(7)  # noqa: S311 - the same fleet each time
    starts: list[float] = []
    lags: list[float] = []
    for number in range(fleet.buckets):
        is_busy = number < fleet.buckets * fleet.busy_share
        changes = _changes(fleet, dice) if is_busy else []
        offset_s = schedule.hash_offset(f"bucket-{number:05}", intervals.shortest_s)
        scans = _scans(fleet, intervals, offset_s, changes)
        starts += scans
        lags += [scans[bisect_right(scans, at)] - at for at in changes if at < scans[-1]]
    minutes = [0] * (int(fleet.lasts_s // 60) + 1)
    for at in starts:
        minutes[int(at // 60)] += 1
    return Polled(
        scans=len(starts),
        busiest_minute=max(minutes[len(minutes) // 2 :]),
        lag_p95_s=quantiles(lags, n=20, method="inclusive")[18],
    )


def _changes(fleet: Fleet, dice: random.Random) -> list[float]:
    times, at = [], 0.0
    while (at := at + dice.expovariate(1 / fleet.change_every_s)) < fleet.lasts_s:
        times.append(at)
    return times


def _scans(
    fleet: Fleet, intervals: PollingIntervals, offset_s: float, changes: Sequence[float]
) -> list[float]:
    """Tell when one bucket is scanned; its first scan, at 0, finds what is there."""
    scans, seen, changed_at = [0.0], 0, 0.0
    while True:
        quiet_s = scans[-1] - changed_at
        due = intervals.next_due(offset_s, quiet_s=quiet_s, now=scans[-1])
        if due >= fleet.lasts_s:
            return scans
        scans.append(due)
        if (found := bisect_right(changes, due)) > seen:
            seen, changed_at = found, due
