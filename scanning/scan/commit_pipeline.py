"""The commits of one scan: numbered, fenced, and one on its way while the next is made ready."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

from scanning.core import notification
from scanning.core.changes import UPLOADS
from scanning.core.errors import BucketwatchError
from scanning.core.totals import NO_CHANGE
from scanning.ports import Commit, Position

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from scanning.core.listing.body import Columns
    from scanning.core.segments.key_ranges import Covered
    from scanning.core.segments.model import Piece
    from scanning.core.totals import Totals
    from scanning.core.types import BucketConfig, Change, Claim, EventType, ObjectState
    from scanning.ports import KnownState, Progress
    from scanning.scan.context import ScanContext
    from scanning.scan.notifier import Notifier


class CommitPipeline:
    """Commits changes with their notifications; leaves no commit on its way when the scan ends.

    ``number`` is that of the last commit that was submitted, ``gained`` what all of them did.
    """

    def __init__(
        self,
        bucket: BucketConfig,
        claim: Claim,
        context: ScanContext,
        known: KnownState,
        notifier: Notifier,
    ) -> None:
        self._bucket, self._claim, self._notifier = bucket, claim, notifier
        self._states, self._counts = context.states, context.counts
        self._keep_going, self._warnings = context.keep_going, context.warnings
        self._is_first = known.is_first
        # Not the claim's: a scan under the same claim may have committed before this one began.
        self.number = known.commit
        self.gained = NO_CHANGE
        self._on_its_way: tuple[Callable[[], None], Counter[EventType]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.await_last()
            return
        with suppress(BucketwatchError):  # what came first says more
            self.await_last()

    def submit(  # noqa: PLR0913 - all that one commit holds
        self,
        changes: Sequence[Change],
        now: float,
        progress: Progress,
        *,
        ahead: Sequence[Covered] = (),
        pieces: Sequence[Piece] = (),
        removed: Sequence[str] = (),
        gained: Totals = NO_CHANGE,
        strings: Mapping[str, ObjectState] = MappingProxyType({}),
        no_strings: Sequence[str] = (),
        took_times: bool = False,
    ) -> None:
        """Send a commit once the one before it has ended; raises what ended that."""
        self._keep_going()
        number = self.number + 1
        counted = _count_by_type(changes)
        announced = self._notifier.select(changes)
        order = notification.sequencer(self._claim.fence, number)
        commit = Commit(
            number=number,
            pieces=pieces,
            removed=removed,
            gained=gained,
            notifications=self._notifier.notifications(announced, now=now, sequencer=order),
            recent=self._notifier.recent_entry(announced, now=now),
            strings=strings,
            no_strings=no_strings,
            counted=counted,
            announced=counted if len(announced) == len(changes) else _count_by_type(announced),
            lags_s=self._lags_s(announced, now),
            progress=self.progress_to_store(progress, changes),
            ahead=ahead,
            filter_fingerprint=self._bucket.filter_fingerprint if changes else "",
            warnings=tuple(self._warnings),
            took_times=took_times,
        )
        self.await_last()
        self._on_its_way = self._states.begin(self._claim, commit), counted
        self.number = number
        self.gained += gained

    def progress_to_store(self, progress: Progress, changes: Sequence[Change]) -> Progress | None:
        """Return the progress that a commit of ``changes`` carries."""
        return progress

    def await_last(self) -> None:
        """Wait until the last commit has ended, and count its changes."""
        if self._on_its_way is None:
            return
        (wait, counted), self._on_its_way = self._on_its_way, None
        wait()
        for event_type, times in counted.items():
            self._counts.add(event_type, times)

    def load(self, segment: str) -> Columns:
        """Read a segment's rows as the last commit left them."""
        self.await_last()
        at = Position(self._claim.fence, self.number)
        [columns] = self._states.load(self._bucket, [segment], at)
        return columns

    def _lags_s(self, announced: Sequence[Change], now: float) -> list[float]:
        """Measure how long uploads went unseen, while the bucket was watched."""
        if self._is_first:
            return []
        return [now - c.current.last_modified for c in announced if c.event_type in UPLOADS]


def _count_by_type(changes: Sequence[Change]) -> Counter[EventType]:
    return Counter(change.event_type for change in changes)
