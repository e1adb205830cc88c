"""One scan of one bucket: list, compare, commit; knows only ports and values.

A *pass* covers the whole bucket. A scan goes on with the pass that an earlier one left unfinished,
and may leave it unfinished itself when its time slice is over. Every commit is small, numbered and
fenced, and carries how far the pass has come; so a crash anywhere costs at most two commits' work:
the next one is made ready while one is on its way.

Moved times and deletions are decided when everything is listed: until then, keys of which only the
time differs, or which the listing does not show, are only marked in the manifest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from scanning.core.errors import StateDamaged, TooManyObjects
from scanning.core.scan_warnings import WarningKind
from scanning.ports import Progress
from scanning.scan.commit_pipeline import CommitPipeline
from scanning.scan.deletion_phase import DeletionPhase
from scanning.scan.listing_phase import ListingPhase
from scanning.scan.moved_times_phase import MovedTimesPhase
from scanning.scan.notifier import Notifier
from scanning.scan.totals import PassTotals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scanning.core.scan_warnings import ScanWarning
    from scanning.core.segments.key_ranges import Covered
    from scanning.core.segments.model import Entry
    from scanning.core.totals import SeenTotals
    from scanning.core.types import BucketConfig, Claim, Held, HeldTimes
    from scanning.ports import KnownState
    from scanning.scan.context import ScanContext

# A place that S3 has broken off so many scans at may be the reason: the pass lists from the start.
MOST_STUCK = 5


@dataclass(frozen=True, slots=True)
class PassEnd:
    """``progress`` is what to go on with where the pass is not ``complete``, and what is ``ahead``.

    ``commit`` is the number of the last commit. ``totals``: as seen; None if nobody goes by them.
    ``error`` is set if objects were left out, since there was no room for them; the bucket's first
    pass is then to be done once more from ``again``.
    """

    complete: bool
    progress: Progress
    commit: int
    held: Held | None = None
    held_times: HeldTimes | None = None
    warnings: tuple[ScanWarning, ...] = ()
    ahead: Sequence[Covered] = ()
    totals: SeenTotals | None = None
    error: TooManyObjects | None = None
    again: Progress | None = None


def open_state(bucket: BucketConfig, claim: Claim, context: ScanContext) -> KnownState:
    """Read what is known of a bucket in order to scan it. Raises StateLost and StateDamaged."""
    known = context.states.open(bucket, claim)
    if not known.is_whole:
        raise StateDamaged.of(bucket.name)
    return known


class BucketPass:
    """A bucket, the right to scan it, and what is needed to do so."""

    def __init__(self, bucket: BucketConfig, claim: Claim, context: ScanContext) -> None:
        self._bucket, self._claim, self._context = bucket, claim, context
        self._pause_at = context.clock() + context.settings.slice_s

    def run(self) -> PassEnd:
        """Go on with the bucket's pass until it is complete or the time slice is over."""
        bucket, claim, context = self._bucket, self._claim, self._context
        # 1. Open what is known of the bucket, and how far the pass has come.
        known = open_state(bucket, claim, context)
        progress, entries = self._progress_of(known), known.entries
        self._totals = PassTotals(context, known)
        with (
            Notifier(bucket, context.storage) as notifier,
            CommitPipeline(bucket, claim, context, known, notifier) as commits,
        ):
            # 2. Take the moved times that somebody wants to hear nothing of.
            if known.takes_times:
                moved = MovedTimesPhase(context, commits, progress, entries)
                if not moved.take_silently(pause_at=self._pause_at):
                    return self._end(commits, notifier, progress, complete=False)
                known, entries = _without_storm(known, moved.entries), moved.entries
            # 3. List what the pass has not covered; commit what was created and updated.
            if not progress.is_listed:
                context = self._suited_to_the_listing()
                ahead = known.ahead if progress is known.progress else ()
                listing = ListingPhase(bucket, claim, context, known, commits, progress, ahead)
                listed = listing.run(pause_at=self._pause_at)
                progress = listing.progress
                if listed is None:
                    if listing.gave_up:
                        return self._give_up(commits, progress)
                    end = self._end(commits, notifier, progress, complete=False)
                    return replace(end, ahead=listing.ahead)
                entries = listed
            # 4. Hold a storm of moved times until somebody chooses, or commit them as updates.
            moved = MovedTimesPhase(context, commits, progress, entries)
            storm = moved.find_storm(known)
            if storm is None and not moved.commit_updates(pause_at=self._pause_at):
                return self._end(commits, notifier, progress, complete=False)
            entries = moved.entries
            with DeletionPhase(bucket, context, known, commits, progress, entries) as deletions:
                # 5. Hold a mass deletion until somebody has looked at it.
                held = deletions.mass_deletion()
                if held:
                    complete = deletions.mark_held(pause_at=self._pause_at)
                # 6. Commit the deletions that a second witness confirms.
                else:
                    complete = deletions.commit_deletions(pause_at=self._pause_at)
            end = self._end(commits, notifier, deletions.progress, complete=complete)
            end = replace(end, held=held, held_times=storm)
            return self._with_error(end, is_first=known.is_first) if complete else end
            # 7. Whatever ends the scan, the pipeline awaits the last commit.

    def _suited_to_the_listing(self) -> ScanContext:
        """Take one lane, and no pause, where each new beginning lists all that is before it."""
        context = self._context
        if context.storage.begins_anywhere():
            return context
        self._pause_at = math.inf
        return replace(context, settings=replace(context.settings, lanes=1))

    def _end(
        self,
        commits: CommitPipeline,
        notifier: Notifier,
        progress: Progress,
        *,
        complete: bool,
    ) -> PassEnd:
        warnings = self._context.warnings
        notifier.warn(warnings)
        totals = self._totals.at_end(commits.gained, complete=complete)
        return PassEnd(complete, progress, commits.number, warnings=tuple(warnings), totals=totals)

    def _give_up(self, commits: CommitPipeline, progress: Progress) -> PassEnd:
        """End a listing that may be endless; what is known before its end is looked at again."""
        error = self._too_many_objects()
        return PassEnd(
            complete=False, progress=_once_more(progress), commit=commits.number, error=error
        )

    def _with_error(self, end: PassEnd, *, is_first: bool) -> PassEnd:
        """Say that objects were left out; a baseline is silent about them also when there is room.

        What is held comes first: somebody has to decide that, and it may make room.
        """
        error = self._too_many_objects()
        if error is None:
            return end
        again = _once_more(end.progress) if is_first else None
        return replace(end, error=None if end.held or end.held_times else error, again=again)

    def _too_many_objects(self) -> TooManyObjects | None:
        left_out = self._context.warnings.count_of(WarningKind.LEFT_OUT)
        limit = self._context.settings.most_objects
        if not left_out:
            return None
        return TooManyObjects.of(self._bucket.name, limit=limit, left_out=left_out)

    def _progress_of(self, known: KnownState) -> Progress:
        if known.progress is None:
            return Progress(began=self._context.clock())
        if known.stuck >= MOST_STUCK and not known.progress.is_listed:
            return known.progress.begun_anew()
        self._context.warnings.merge(known.warnings)
        return known.progress


def _once_more(progress: Progress) -> Progress:
    """List everything again, as of the same beginning; what appeared meanwhile is known by now."""
    return replace(progress.begun_anew(), appeared=0)


def _without_storm(known: KnownState, entries: Sequence[Entry]) -> KnownState:
    """Return what is known of a bucket once a storm of moved times is over."""
    return replace(known, entries=entries, held_moved_since=None, takes_times=False)
