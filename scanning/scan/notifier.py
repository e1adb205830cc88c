"""From changes to notifications: what a bucket wants to hear of, with what HEAD says of it."""

from __future__ import annotations

import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

from scanning import logs
from scanning.core import notification
from scanning.core.errors import BucketwatchError, ScanAborted
from scanning.core.types import BucketConfig, Change, EventType, ObjectMetadata

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scanning.ports import Storage

HEADS_AT_ONCE = 8
# A commit waits so long for what HEAD says; a server may list well and stall on objects.
HEADS_S = 60.0
# The stream of recent events is for people: a first scan's thousands are counted, not listed.
RECENT_SHOWN = 100
_HAVE_METADATA = frozenset({EventType.CREATED, EventType.UPDATED})


class Notifier:
    """Makes the notifications of one scan; closes its threads when the scan ends."""

    def __init__(
        self,
        bucket: BucketConfig,
        storage: Storage,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bucket = bucket
        self._storage = storage
        self._clock = clock
        self._heads_until = -math.inf
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def wanted(self, changes: Sequence[Change]) -> list[Change]:
        """The changes that the bucket's consumers asked for."""
        bucket = self._bucket
        if not bucket.notifications:
            return []
        kinds, suffix = bucket.events, bucket.suffix
        return [
            change
            for change in changes
            if change.event_type in kinds and change.key.endswith(suffix)
        ]

    def notifications(self, changes: Sequence[Change], *, now: float, sequencer: str) -> list[str]:
        """One JSON text for each change, in their order; asks HEAD where the bucket wants it."""
        write = notification.Notifications(self._bucket, now=now, sequencer=sequencer)
        return list(write.texts(changes, self._heads(changes)))

    def _heads(self, changes: Sequence[Change]) -> Sequence[ObjectMetadata | None]:
        if not self._bucket.fetch_metadata or not any(map(_has_metadata, changes)):
            return [None] * len(changes)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(
                HEADS_AT_ONCE, "head", initializer=logs.adopt, initargs=(logs.this_scan(),)
            )
        self._heads_until = self._clock() + HEADS_S
        return list(self._pool.map(self._head, changes))

    def _head(self, change: Change) -> ObjectMetadata | None:
        if not _has_metadata(change) or self._clock() > self._heads_until:
            return None
        try:
            return self._storage.head(change.key)
        except ScanAborted:
            raise
        except BucketwatchError:
            return None  # the event is worth more than its content type


def _has_metadata(change: Change) -> bool:
    return change.event_type in _HAVE_METADATA


def recent_events_entry(
    bucket: str, changes: Sequence[Change], *, now: float, replay: str = ""
) -> str:
    """One entry of the stream of recent events: all counted, the first ones listed; "" if none.

    ``replay``: they are announced again, by the replay of this id.
    """
    if not changes:
        return ""
    return json.dumps(
        {
            "bucket": bucket,
            "at": now,
            "count": len(changes),
            "events": [
                [change.event_type.value, change.key, change.current.size]
                for change in changes[:RECENT_SHOWN]
            ],
        }
        | ({"replay": replay} if replay else {}),
        separators=(",", ":"),
    )
