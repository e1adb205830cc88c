"""Notifications: the JSON that consumers read (`docs/notifications.md`)."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from scanning.core.diff import is_recent
from scanning.core.types import Change, EventType, ObjectMetadata, ObjectState

if TYPE_CHECKING:
    from scanning.core.types import BucketConfig

NO_METADATA = ObjectMetadata(etag="", content_type="application/octet-stream", metadata={})


def notification(
    bucket: BucketConfig, change: Change, *, now: float, sequencer: str, head: ObjectMetadata | None
) -> str:
    """One element of the notification queue.

    ``head`` counts only if it describes the listed object: it may have changed since.
    """
    current = change.current
    about = head if head is not None and head.etag == current.etag else NO_METADATA
    message: dict[str, Any] = {
        "bucket": bucket.name,
        "key": change.key,
        "region": bucket.endpoint_host,
        "etag": current.etag,
        "size": current.size,
        "last_modified": current.last_modified,
        "event_type": change.event_type.value,
        "content_type": about.content_type,
        "metadata": about.metadata,
        "detection_time": now,
        "is_recent": is_recent(current.last_modified, now),
        "retry_count": 0,
        "event_id": event_id(bucket.name, change),
        "sequencer": sequencer,
    }
    if change.previous is not None:
        message["previous"] = {
            "etag": change.previous.etag,
            "size": change.previous.size,
            "last_modified": change.previous.last_modified,
        }
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False)


def sequencer(fence: int, commit: int) -> str:
    """Orders the events of one key: later commits sort after earlier ones, as text."""
    return f"{fence:016x}{commit:012x}"


def event_id(bucket: str, change: Change) -> str:
    """The same change found twice has the same id, whoever found it and when.

    Created and detected are one thing here: which of the two is said depends on the clock.
    """
    appeared = change.event_type in {EventType.CREATED, EventType.DETECTED}
    what = "appeared" if appeared else change.event_type.value
    gone = change.event_type is EventType.DELETED
    current = None if gone else _version(change.current)
    parts = [bucket, change.key, what, _version(change.previous), current]
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def _version(state: ObjectState | None) -> list[Any] | None:
    return None if state is None else [state.etag, state.last_modified]
