"""What happened to a key between two scans (the wire contract's event types)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scanning.core.types import EventType

if TYPE_CHECKING:
    from scanning.core.types import ObjectState

RECENT_S = 24 * 3600


def classify(previous: ObjectState | None, current: ObjectState, *, now: float) -> EventType | None:
    """Say what happened to one key between the last scan and this listing; None if nothing did."""
    if previous is None:
        recent = is_recent(current.last_modified, now)
        return EventType.CREATED if recent else EventType.DETECTED
    # Inequality, never "newer": restoring an older version moves last_modified backwards.
    if (current.etag, current.last_modified) != (previous.etag, previous.last_modified):
        return EventType.UPDATED
    return None


def is_recent(last_modified: float, now: float) -> bool:
    """At most 24 hours before ``now``; a clock that runs ahead of ours counts as recent."""
    return now - last_modified <= RECENT_S
