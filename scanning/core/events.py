"""Notifications: the JSON that consumers read (`docs/notifications.md`)."""

from __future__ import annotations

import json
from hashlib import blake2b
from json.encoder import encode_basestring as quoted
from json.encoder import encode_basestring_ascii as quoted_ascii
from typing import TYPE_CHECKING, Final

from scanning.core.diff import is_recent
from scanning.core.types import Change, EventType, ObjectMetadata, ObjectState

if TYPE_CHECKING:
    from scanning.core.types import BucketConfig

# Created and detected are one thing in an id: which of the two is said depends on the clock.
_KINDS: Final = {
    EventType.CREATED: "appeared",
    EventType.DETECTED: "appeared",
    EventType.UPDATED: "updated",
    EventType.DELETED: "deleted",
}

NO_METADATA = ObjectMetadata(etag="", content_type="application/octet-stream", metadata={})


class Notifications:
    """Writes the elements of the notification queue, for the changes of one commit.

    A first scan writes millions of them, so the text is put together from parts: json's encoder
    takes several times as long for the same.
    """

    def __init__(self, bucket: BucketConfig, *, now: float, sequencer: str) -> None:
        self._now = now
        self._bucket = quoted_ascii(bucket.name)
        self._begin = f'{{"bucket":{quoted(bucket.name)},"key":'
        self._region = f',"region":{quoted(bucket.endpoint_host)},"etag":'
        self._detected = f',"detection_time":{now!r},"is_recent":'
        self._end = f'","sequencer":{quoted(sequencer)}'

    def text(self, change: Change, head: ObjectMetadata | None) -> str:
        """One notification as JSON.

        ``head`` counts only if it describes the listed object: it may have changed since.
        """
        kind, key, (etag, modified, size, _), previous = change
        about = _ABOUT_NOTHING if head is None or head.etag != etag else _about(head)
        recent = "true" if is_recent(modified, self._now) else "false"
        before = "" if previous is None else _previous(previous)
        stamp = repr(modified)
        return (
            f"{self._begin}{quoted(key)}{self._region}{quoted(etag)}"
            f',"size":{size},"last_modified":{stamp},"event_type":"{kind}"'
            f'{about}{self._detected}{recent},"retry_count":0'
            f',"event_id":"{_event_id(self._bucket, change, stamp)}{self._end}{before}}}'
        )


def _about(head: ObjectMetadata) -> str:
    metadata = json.dumps(head.metadata, separators=(",", ":"), ensure_ascii=False)
    return f',"content_type":{quoted(head.content_type)},"metadata":{metadata}'


_ABOUT_NOTHING: Final = _about(NO_METADATA)


def _previous(state: ObjectState) -> str:
    etag, modified, size, _ = state
    return f',"previous":{{"etag":{quoted(etag)},"size":{size},"last_modified":{modified!r}}}'


def sequencer(fence: int, commit: int) -> str:
    """Orders the events of one key: later commits sort after earlier ones, as text."""
    return f"{fence:016x}{commit:012x}"


def _event_id(bucket: str, change: Change, stamp: str) -> str:
    """The same change found twice has the same id, whoever found it and when."""
    kind, key, current, previous = change
    now = "null" if kind is EventType.DELETED else f"[{quoted_ascii(current.etag)}, {stamp}]"
    before = "null"
    if previous is not None:
        before = f"[{quoted_ascii(previous.etag)}, {previous.last_modified!r}]"
    parts = f'[{bucket}, {quoted_ascii(key)}, "{_KINDS[kind]}", {before}, {now}]'
    return blake2b(parts.encode(), digest_size=16).hexdigest()
