"""When a bucket is scanned: a grid of scheduled starts, one polling interval apart."""

from __future__ import annotations

import random
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


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
