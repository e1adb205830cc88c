"""From changes to notifications: which ones a bucket announces, with metadata from HEAD."""

from __future__ import annotations

import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

from scanning import logs
from scanning.core import notification
from scanning.core.changes import UPLOADS, silences
from scanning.core.errors import BucketwatchError, PermanentError, ScanAborted
from scanning.core.scan_warnings import ScanWarnings, WarningKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scanning.core.types import BucketConfig, Change, ObjectMetadata
    from scanning.ports import Storage

HEADS_AT_ONCE = 8
# A commit waits so long for metadata; a server may list well and stall on objects.
HEADS_S = 60.0
# The stream of recent events is for people: a first scan's thousands are counted, not listed.
RECENT_SHOWN = 100


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
        self._matched = False
        self._refused, self._mismatched = ScanWarnings(), ScanWarnings()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def select(self, changes: Sequence[Change]) -> list[Change]:
        """Select the changes that the bucket announces."""
        bucket = self._bucket
        return [change for change in changes if not silences(bucket, change.event_type, change.key)]

    def notifications(self, changes: Sequence[Change], *, now: float, sequencer: str) -> list[str]:
        """Write one JSON text for each change, in their order; ask HEAD if the bucket says so."""
        write = notification.Notifications(self._bucket, now=now, sequencer=sequencer)
        return list(write.texts(changes, self._heads(changes)))

    def recent_entry(self, changes: Sequence[Change], *, now: float, replay: str = "") -> str:
        """Write an entry of the stream of recent events: all counted, some listed; "" if none.

        ``replay``: the events are announced again, by the replay of this id.
        """
        if not changes:
            return ""
        bucket = self._bucket
        return json.dumps(
            {
                "bucket": bucket.name,
                "at": now,
                "count": len(changes),
                "events": [
                    [change.event_type.value, change.key, change.current.size]
                    for change in changes[:RECENT_SHOWN]
                ],
            }
            | ({"bucket_name": bucket.bucket_name} if bucket.bucket_name else {})
            | ({"replay": replay} if replay else {}),
            separators=(",", ":"),
        )

    def warn(self, warnings: ScanWarnings) -> None:
        """Add what HEAD refused; and that it never told of what was listed, if it never did.

        Now and then it tells of a newer version, which is no cause for a warning.
        """
        warnings.merge(self._refused.take())
        if not self._matched:
            warnings.merge(self._mismatched.take())

    def _heads(self, changes: Sequence[Change]) -> Sequence[ObjectMetadata | None]:
        if not self._bucket.fetch_metadata or not any(map(_is_upload, changes)):
            return [None] * len(changes)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(
                HEADS_AT_ONCE, "head", initializer=logs.adopt, initargs=(logs.this_scan(),)
            )
        self._heads_until = self._clock() + HEADS_S
        answers = list(self._pool.map(self._head, changes))
        heads: list[ObjectMetadata | None] = []
        for change, answer in zip(changes, answers, strict=True):
            if isinstance(answer, PermanentError):
                self._refused.add(WarningKind.HEAD_REFUSED, change.key)
            elif answer is not None and notification.is_of(answer, change.current.etag):
                self._matched = True
            elif answer is not None:
                self._mismatched.add(WarningKind.HEAD_MISMATCH, change.key)
            heads.append(None if isinstance(answer, PermanentError) else answer)
        return heads

    def _head(self, change: Change) -> ObjectMetadata | PermanentError | None:
        """Ask for one object; returns the refusal of one that may not be asked for."""
        if not _is_upload(change) or self._clock() > self._heads_until:
            return None
        try:
            return self._storage.head(change.key)
        except ScanAborted:
            raise
        except PermanentError as refused:
            return refused
        except BucketwatchError:
            return None  # the event is worth more than its content type


def _is_upload(change: Change) -> bool:
    return change.event_type in UPLOADS
