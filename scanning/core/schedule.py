"""When a bucket is scanned: a grid of scheduled starts, one polling interval apart.

Where the interval may grow, it is an eighth of the time for which nothing has changed: a change
waits for at most an eighth of the quiet before it, and one that is found ends the quiet.
"""

from __future__ import annotations

import math
import random
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from scanning.core.types import Claim, ScanResult

QUIET_SHARE: Final = 1 / 8


@dataclass(frozen=True, slots=True)
class PollingIntervals:
    """The seconds between two passes over a bucket: at least, and at most while nothing changes.

    A ``longest_s`` that is no longer than ``shortest_s``, such as 0, leaves it at that.
    """

    shortest_s: float
    longest_s: float = 0.0

    @property
    def may_grow(self) -> bool:
        return self.longest_s > self.shortest_s

    def choose(self, quiet_s: float | None) -> float:
        """Choose the interval of a bucket in which nothing changed for ``quiet_s``, None: unknown.

        It doubles, so that buckets share few grids and stay spread over each of them.
        """
        if quiet_s is None or not self.may_grow:
            return self.shortest_s
        share_s = quiet_s * QUIET_SHARE
        if share_s >= self.longest_s:
            return self.longest_s
        if share_s <= self.shortest_s:
            return self.shortest_s
        return self.shortest_s * 2.0 ** math.floor(math.log2(share_s / self.shortest_s))

    def next_due(self, offset_s: float, *, quiet_s: float | None, now: float) -> float:
        """Find the next scheduled start after ``now``; ``offset_s`` is of the shortest interval."""
        interval_s = self.choose(quiet_s)
        return next_due(self._stretched(offset_s, interval_s), interval_s, now=now)

    def first_due(
        self, offset_s: float, *, quiet_s: float | None, now: float, last_scan: float | None
    ) -> float:
        """Choose the first scheduled start, as the function of this name does."""
        interval_s = self.choose(quiet_s)
        offset_s = self._stretched(offset_s, interval_s)
        return first_due(offset_s, interval_s, now=now, last_scan=last_scan)

    def _stretched(self, offset_s: float, interval_s: float) -> float:
        """Keep a bucket's place in its shortest interval, as a share, in a longer one."""
        return offset_s * interval_s / self.shortest_s


def last_change(claim: Claim, result: ScanResult) -> float | None:
    """Tell when a scan that found a change, or a listing that differs, began last; None: unknown.

    A first complete pass over an empty bucket is where its quiet begins.
    """
    if result.counts.changes or result.counts.compared:
        return result.started_at
    if claim.changed_at is None and result.is_complete_pass:
        return result.began
    return claim.changed_at


def quiet_s(claim: Claim, result: ScanResult) -> float | None:
    """Tell for how long nothing had changed when the pass of this scan began; None: unknown."""
    changed_at = last_change(claim, result)
    return None if changed_at is None else result.began - changed_at


def stagger_offsets(intervals: Mapping[str, float], *, method: str) -> dict[str, float]:
    """Spread buckets over their polling intervals: seconds from the grid's origin, by bucket.

    ``hash`` depends on the name alone, so every host and every restart agrees; ``equal`` spaces
    the buckets of one interval evenly; ``random`` draws anew each time.
    """
    if method == "random":
        return {name: random.uniform(0, interval) for name, interval in intervals.items()}  # noqa: S311
    if method == "equal":
        return _equal_offsets(intervals)
    return {name: hash_offset(name, interval) for name, interval in intervals.items()}


def hash_offset(bucket: str, interval_s: float) -> float:
    """Derive a bucket's stable place in its polling interval from its name."""
    return zlib.crc32(bucket.encode()) / 2**32 * interval_s


def _equal_offsets(intervals: Mapping[str, float]) -> dict[str, float]:
    by_interval: dict[float, list[str]] = {}
    for name in sorted(intervals):
        by_interval.setdefault(intervals[name], []).append(name)
    return {
        name: index * interval / len(names)
        for interval, names in by_interval.items()
        for index, name in enumerate(names)
    }


def first_due(offset_s: float, interval_s: float, *, now: float, last_scan: float | None) -> float:
    """Choose the first scheduled start of a bucket.

    At once if it was never scanned; if scans were missed it is due now, once, not as often as it
    missed; otherwise the next place on its grid.
    """
    if last_scan is None or now - last_scan >= interval_s:
        return now
    return next_due(offset_s, interval_s, now=now)


def next_due(scheduled_at: float, interval_s: float, *, now: float) -> float:
    """Find the next scheduled start strictly after ``now``, on the grid through ``scheduled_at``.

    Counted from the scheduled start, not from the scan's end, so that it does not drift.
    """
    passed = (now - scheduled_at) // interval_s
    due = scheduled_at + (passed + 1) * interval_s
    return due if due > now else due + interval_s  # rounding may have put it on ``now``


def is_due(due_at: float, *, now: float) -> bool:
    return due_at <= now


def overdue(due_at: Mapping[str, float], *, now: float) -> Iterable[str]:
    """List the buckets that are due, the longest overdue first."""
    return sorted(
        (name for name, at in due_at.items() if is_due(at, now=now)), key=due_at.__getitem__
    )
