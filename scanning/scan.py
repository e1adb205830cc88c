"""One scan of one bucket: list, compare, commit; knows only ports and values."""

from __future__ import annotations

import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scanning.core import events
from scanning.core.diff import changes
from scanning.core.errors import BucketwatchError
from scanning.core.types import (
    BucketConfig,
    Change,
    EventType,
    ListedObject,
    ObjectMetadata,
    ObjectState,
    ScanCounts,
)
from scanning.ports import PageCommit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scanning.core.types import Claim, ListingPage
    from scanning.ports import StateStore, Storage

HEADS_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Scan:
    """A bucket, the right to scan it, and what is needed to do so.

    ``keep_going`` is called before each page and raises to end the scan early. ``ttl_s`` is how
    long a stored state lives; an unchanged object's is written again well before that.
    """

    bucket: BucketConfig
    claim: Claim
    storage: Storage
    states: StateStore
    clock: Callable[[], float]
    keep_going: Callable[[], None]
    page_size: int
    ttl_s: float

    def run(self, counts: ScanCounts) -> None:
        """List the whole bucket and commit each page; ``counts`` grows as pages are committed."""
        number = self.claim.commit
        for page in self.storage.pages(page_size=self.page_size):
            self.keep_going()
            commit = self._compare(page, number + 1)
            if commit.states:
                self.states.commit(self.claim, commit)
                number = commit.number
            counts.include(commit.counts)

    def _compare(self, page: ListingPage, number: int) -> PageCommit:
        now = self.clock()
        previous = self.states.load(self.bucket.name, [listed.key for listed in page.objects])
        rows = list(zip(page.objects, previous, strict=True))
        found = list(changes(rows, now=now))
        counts = ScanCounts(objects=len(rows), pages=1)
        for change in found:
            counts.add(change.event_type)
        states = {
            listed.key: ObjectState(listed.etag, listed.last_modified, listed.size, now)
            for listed, stored in rows
            if stored is not None and wears_out(listed, stored, now=now, ttl_s=self.ttl_s)
        }
        states |= {change.key: change.current for change in found}
        announced = found if self.bucket.notifications else []
        return PageCommit(number, states, self._notifications(announced, number, now), counts)

    def _notifications(self, found: Sequence[Change], number: int, now: float) -> list[str]:
        order = events.sequencer(self.claim.fence, number)
        return [
            events.notification(self.bucket, change, now=now, sequencer=order, head=head)
            for change, head in zip(found, self._heads(found), strict=True)
        ]

    def _heads(self, found: Sequence[Change]) -> list[ObjectMetadata | None]:
        wanted = {EventType.CREATED, EventType.UPDATED} if self.bucket.fetch_metadata else set()
        if not any(change.event_type in wanted for change in found):
            return [None] * len(found)
        with ThreadPoolExecutor(HEADS_AT_ONCE, thread_name_prefix="head") as pool:
            return list(
                pool.map(lambda c: self._head(c.key) if c.event_type in wanted else None, found)
            )

    def _head(self, key: str) -> ObjectMetadata | None:
        try:
            return self.storage.head(key)
        except BucketwatchError:
            return None  # the event is worth more than its content type


def wears_out(listed: ListedObject, stored: ObjectState, *, now: float, ttl_s: float) -> bool:
    """Whether a state must be written again, so that it does not expire while the object exists.

    Between half and three quarters of its life, by key, so that states written together are not
    all written again together.
    """
    share = 0.5 + zlib.crc32(listed.key.encode()) / 2**34
    return now - stored.last_processed >= ttl_s * share


class ReadOnlyStates:
    """A state store that remembers nothing new: for looking without touching."""

    def __init__(self, states: StateStore) -> None:
        self._states = states

    def load(self, bucket: str, keys: Sequence[str]) -> list[ObjectState | None]:
        return self._states.load(bucket, keys)

    def commit(self, claim: Claim, commit: PageCommit) -> None:
        """Write nothing."""
