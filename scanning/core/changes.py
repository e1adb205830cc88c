"""What happened to a key between two scans, and whether its bucket announces that."""

from __future__ import annotations

import math
from enum import Enum, auto
from typing import TYPE_CHECKING

from scanning.core.types import EventType

if TYPE_CHECKING:
    from scanning.core.types import BucketConfig, ObjectState

RECENT_S = 24 * 3600
# These happened just before they were found, and there is an object to ask about. What is detected
# was modified long ago; when something was deleted, nobody knows.
UPLOADS = frozenset({EventType.CREATED, EventType.UPDATED})

# What tells one version of an object from another: ETag, last_modified and size.
Version = tuple[str, float, int]


def classify(previous: ObjectState | None, current: ObjectState, *, now: float) -> EventType | None:
    """Say what happened to one key between the last scan and this listing; None if nothing did."""
    if previous is None:
        return classify_new(current, now=now)
    if is_update(previous[:3], current[:3]):
        return EventType.UPDATED
    return None


def is_update(known: Version, listed: Version) -> bool:
    """Tell whether a known key was updated; the times of both have the same unit."""
    # Inequality, never "newer": restoring an older version moves last_modified backwards. The size
    # alone tells of a second change within a second, to a server whose ETags are none.
    return known != listed


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
    """Tell whether this was at most 24 hours before ``now``, or by a clock ahead of ours."""
    return now - last_modified <= RECENT_S


def announce_cutoff(
    bucket: BucketConfig, *, is_first: bool, began: float, older_scan_at: float | None
) -> float:
    """Find the last_modified after which an object of an unknown key is to be announced.

    A baseline remembers what was there when it ``began``: it may take hours. And what was uploaded
    since the older monitor's last scan nobody has announced. An upload's time is that of its start,
    so hours before count as since.
    """
    if not is_first or bucket.first_scan != "baseline":
        return -math.inf
    if not bucket.taken_over or older_scan_at is None:
        return began
    return min(began, older_scan_at - RECENT_S)


class Silence(Enum):
    """A reason not to announce a change, now or later."""

    NOTIFICATIONS_OFF = auto()
    OTHER_EVENTS = auto()
    OTHER_SUFFIX = auto()


def silences(bucket: BucketConfig, event_type: EventType, key: str) -> list[Silence]:
    """List why the bucket does not announce a change; it announces the change if nothing is why."""
    found = []
    if not bucket.notifications:
        found.append(Silence.NOTIFICATIONS_OFF)
    if event_type not in bucket.events:
        found.append(Silence.OTHER_EVENTS)
    if not key.endswith(bucket.suffix):
        found.append(Silence.OTHER_SUFFIX)
    return found
