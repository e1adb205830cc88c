"""What happened to a key between two scans, and whether its bucket announces that."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from scanning.core.types import EventType

if TYPE_CHECKING:
    from scanning.core.types import BucketConfig, ObjectState

RECENT_S = 24 * 3600
# These happened just before they were found, and there is an object to ask about. What is detected
# was modified long ago; when something was deleted, nobody knows.
UPLOADS = frozenset({EventType.CREATED, EventType.UPDATED})

# The ETag of a multipart upload ends in the number of its parts.
_MULTIPART: Final = re.compile(r"-[0-9]+\Z")

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


def is_moved_time(known: Version, listed: Version) -> bool:
    """Tell whether nothing but the time of an updated key differs: maybe only a clock did."""
    return (known[0], known[2]) == (listed[0], listed[2])


def without_moved_time(previous: ObjectState, current: ObjectState) -> ObjectState:
    """Take the known time where an ETag and the size are the same, as buckets that trust those."""
    if current.etag and (current.etag, current.size) == (previous.etag, previous.size):
        return current._replace(last_modified=previous.last_modified)
    return current


def classify_older(
    older: ObjectState | None, current: ObjectState, *, now: float
) -> EventType | None:
    """Say what happened since an older monitor saw the key, which may have noted no size."""
    return classify(older and _with_size(older, current), current, now=now)


def moved_since_older(older: ObjectState | None, current: ObjectState) -> float | None:
    """Find the time that an older monitor knew, if nothing but that differs now."""
    if older is None or not is_moved_time(_with_size(older, current)[:3], current[:3]):
        return None
    return None if older.last_modified == current.last_modified else older.last_modified


def _with_size(older: ObjectState, current: ObjectState) -> ObjectState:
    return older if older.size else older._replace(size=current.size)


def classify_new(current: ObjectState, *, now: float) -> EventType:
    """Say what happened to a key that was never seen before."""
    return EventType.CREATED if is_recent(current.last_modified, now) else EventType.DETECTED


def is_recent(last_modified: float, now: float) -> bool:
    """Tell whether this was at most 24 hours before ``now``, or by a clock ahead of ours."""
    return now - last_modified <= RECENT_S


@dataclass(frozen=True, slots=True)
class Cutoff:
    """After which last_modified an object of an unknown key is to be announced.

    Of a multipart upload it is ``multipart``: its time is that of its start, on many servers.
    """

    single: float
    multipart: float

    def is_news(self, state: ObjectState) -> bool:
        """Tell whether an object of an unknown key is to be announced."""
        if state.last_modified > self.single:
            return True
        return state.last_modified > self.multipart and bool(_MULTIPART.search(state.etag))


EVERYTHING: Final = Cutoff(-math.inf, -math.inf)


def announce_cutoff(
    bucket: BucketConfig,
    *,
    is_first: bool,
    began: float,
    older_scan_at: float | None,
    margin_s: float = RECENT_S,
) -> Cutoff:
    """Find what of the objects of unknown keys is to be announced.

    A baseline remembers what was there when it ``began``: it may take hours. And what was uploaded
    since the older monitor's last scan nobody has announced. An upload's time may be that of its
    start, so hours before count as since: ``margin_s`` for multipart uploads.
    """
    if not is_first or bucket.first_scan != "baseline":
        return EVERYTHING
    single, multipart = began, began - margin_s
    if bucket.taken_over and older_scan_at is not None:
        single = min(single, older_scan_at - RECENT_S)
        multipart = min(multipart, older_scan_at - max(RECENT_S, margin_s))
    return Cutoff(single, multipart)


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
