"""What happened to a key between two scans (the wire contract's event types)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from scanning.core.types import EventType

if TYPE_CHECKING:
    from scanning.core.types import BucketConfig, ObjectState

RECENT_S = 24 * 3600


def classify(previous: ObjectState | None, current: ObjectState, *, now: float) -> EventType | None:
    """Say what happened to one key between the last scan and this listing; None if nothing did."""
    if previous is None:
        return classify_new(current, now=now)
    # Inequality, never "newer": restoring an older version moves last_modified backwards. The size
    # alone tells of a second change within a second, to a server whose ETags are none.
    if current[:3] != previous[:3]:
        return EventType.UPDATED
    return None


def classify_older(
    older: ObjectState | None, current: ObjectState, *, now: float
) -> EventType | None:
    """Say what happened since an older monitor saw the key, which may have noted no size."""
    if older and not older.size:
        older = older._replace(size=current.size)
    return classify(older, current, now=now)


def classify_new(current: ObjectState, *, now: float) -> EventType:
    """Say what happened to a key that was never seen before."""
    return EventType.CREATED if is_recent(current.last_modified, now) else EventType.DETECTED


def is_recent(last_modified: float, now: float) -> bool:
    """At most 24 hours before ``now``; a clock that runs ahead of ours counts as recent."""
    return now - last_modified <= RECENT_S


def announce_cutoff(
    bucket: BucketConfig, *, is_first: bool, began: float, older_scan_at: float | None
) -> float:
    """After which last_modified an object of an unknown key is to be announced.

    A baseline remembers what was there when it ``began``: it may take hours. And what was uploaded
    since the older monitor's last scan nobody has announced. An upload's time is that of its start,
    so hours before count as since.
    """
    if not is_first or bucket.first_scan != "baseline":
        return -math.inf
    if not bucket.taken_over or older_scan_at is None:
        return began
    return min(began, older_scan_at - RECENT_S)
