"""What happened to a key between two scans (`wire-contract`: event types)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scanning.core.types import Change, EventType, ListedObject, ObjectState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

RECENT_S = 24 * 3600


def classify(previous: ObjectState | None, listed: ListedObject, *, now: float) -> EventType | None:
    """Say what happened to one key between the last scan and this listing; None if nothing did."""
    if previous is None:
        return EventType.CREATED if is_recent(listed.last_modified, now) else EventType.DETECTED
    # Inequality, never "newer": restoring an older version moves last_modified backwards.
    if (listed.etag, listed.last_modified) != (previous.etag, previous.last_modified):
        return EventType.UPDATED
    return None


def is_recent(last_modified: float, now: float) -> bool:
    """At most 24 hours before ``now``; a clock that runs ahead of ours counts as recent."""
    return now - last_modified <= RECENT_S


def changes(
    rows: Iterable[tuple[ListedObject, ObjectState | None]], *, now: float
) -> Iterator[Change]:
    """The changes among listed objects paired with their previous states, in the order given."""
    for listed, previous in rows:
        event_type = classify(previous, listed, now=now)
        if event_type is not None:
            current = ObjectState(listed.etag, listed.last_modified, listed.size, now)
            yield Change(event_type, listed.key, current, previous)
