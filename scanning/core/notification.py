"""Notifications: the JSON that consumers read (`docs/notifications.md`)."""

from __future__ import annotations

import json
from hashlib import blake2b
from json.encoder import encode_basestring as quoted
from json.encoder import encode_basestring_ascii as quoted_ascii
from typing import TYPE_CHECKING, Final

from scanning.core.changes import is_recent
from scanning.core.texts import strong_etag
from scanning.core.types import Change, EventType, ObjectMetadata, ObjectState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from scanning.core.types import BucketConfig

# Created and detected are one thing in an id: which of the two is said depends on the clock.
_KINDS: Final = {
    EventType.CREATED: "appeared",
    EventType.DETECTED: "appeared",
    EventType.UPDATED: "updated",
    EventType.DELETED: "deleted",
}

_DELETED: Final = EventType.DELETED
NO_METADATA = ObjectMetadata(etag="", content_type="application/octet-stream", metadata={})


class Notifications:
    """Writes the elements of the notification queue, for the changes of one commit.

    A first scan writes millions of them, so the text is put together from parts, in one loop:
    json's encoder takes several times as long for the same.
    """

    def __init__(self, bucket: BucketConfig, *, now: float, sequencer: str) -> None:
        self._now = now
        watch = f',"watch":{quoted(bucket.name)}' if bucket.s3_name != bucket.name else ""
        self._begin = f'{{"bucket":{quoted(bucket.s3_name)}{watch},"key":'
        self._region = f',"region":{quoted(bucket.endpoint_host)},"etag":'
        self._detected = f',"detection_time":{now!r},"is_recent":'
        self._end = f'","sequencer":{quoted(sequencer)}'
        # What an id is made of: the same change found twice has the same one, whoever found it
        # and when. By the watch's name: another endpoint may have a bucket of the same one.
        begin = f"[{quoted_ascii(bucket.name)}, "
        self._identity = blake2b(begin.encode(), digest_size=16)

    def texts(
        self, changes: Iterable[Change], heads: Iterable[ObjectMetadata | None]
    ) -> Iterator[str]:
        """Write one notification as JSON for each change, in their order.

        Each one's head counts only if it describes the listed object: it may have changed since.
        """
        begin, region, detected, end = self._begin, self._region, self._detected, self._end
        now, identity = self._now, self._identity
        for (kind, key, (etag, modified, size, _), previous), head in zip(
            changes, heads, strict=True
        ):
            about = _ABOUT_NOTHING if head is None or not is_of(head, etag) else _about(head)
            recent = "true" if is_recent(modified, now) else "false"
            stamp = repr(modified)
            before, state_before = ("", "null") if previous is None else _previous(previous)
            state = "null" if kind is _DELETED else f"[{quoted_ascii(etag)}, {stamp}]"
            if state == state_before and previous is not None:  # only the size differs
                state_before = f"{state[:-1]}, {previous.size}]"
                state = f"{state[:-1]}, {size}]"
            event_id = identity.copy()
            event_id.update(
                f'{quoted_ascii(key)}, "{_KINDS[kind]}", {state_before}, {state}]'.encode()
            )
            yield (
                f"{begin}{quoted(key)}{region}{quoted(etag)}"
                f',"size":{size},"last_modified":{stamp},"event_type":"{kind}"'
                f'{about}{detected}{recent},"retry_count":0'
                f',"event_id":"{event_id.hexdigest()}{end}{before}}}'
            )


def _about(head: ObjectMetadata) -> str:
    metadata = json.dumps(head.metadata, separators=(",", ":"), ensure_ascii=False)
    return f',"content_type":{quoted(head.content_type)},"metadata":{metadata}'


def is_of(head: ObjectMetadata, etag: str) -> bool:
    """Tell whether HEAD told of the version that was listed."""
    return head.etag == etag or strong_etag(head.etag) == strong_etag(etag)


_ABOUT_NOTHING: Final = _about(NO_METADATA)


def _previous(state: ObjectState) -> tuple[str, str]:
    """Describe the state before, once for the notification and once for its id."""
    etag, modified, size, _ = state
    stamp = repr(modified)
    return (
        f',"previous":{{"etag":{quoted(etag)},"size":{size},"last_modified":{stamp}}}',
        f"[{quoted_ascii(etag)}, {stamp}]",
    )


def sequencer(fence: int, commit: int) -> str:
    """Number the events of one key so that later commits sort after earlier ones, as text."""
    return f"{fence:016x}{commit:012x}"
