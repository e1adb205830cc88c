"""One look at one bucket: a scan of some ranges of keys, between two passes or two slices of one.

It lists, compares and commits as a pass does, and says nothing of the rest of the bucket: it is
never the complete pass that the polling interval promises. What it lists, and when it may stop,
`core/looks.py` says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from scanning.core.looks import are_few, choose_ranges, hot_segments
from scanning.core.scan_warnings import ScanWarnings
from scanning.core.totals import SeenTotals
from scanning.core.types import MOST_HINTED_KEYS, EventType
from scanning.ports import Progress
from scanning.scan.bucket_pass import BucketPass, open_state
from scanning.scan.commit_pipeline import CommitPipeline
from scanning.scan.deletion_phase import DeletionPhase
from scanning.scan.lane_splitter import Lane
from scanning.scan.listing_phase import ListingPhase
from scanning.scan.moved_times_phase import MovedTimesPhase
from scanning.scan.notifier import Notifier
from scanning.scan.totals import ask_totals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scanning.core.looks import Range
    from scanning.core.scan_warnings import ScanWarning
    from scanning.core.segments.model import Entry
    from scanning.core.totals import Totals
    from scanning.core.types import BucketConfig, Change, Claim, LookRequest
    from scanning.ports import KnownState
    from scanning.scan.bucket_pass import PassEnd
    from scanning.scan.context import ScanContext


@dataclass(frozen=True, slots=True)
class LookEnd:
    """``commit`` is the number of the last commit, ``known`` how many objects a pass would list.

    ``pass_in_s``: in how many seconds the bucket's pass shall be due, if sooner than it is anyway:
    the look could not explain the totals, or not look at all that it should. ``totals``: as seen;
    None if nobody goes by them. ``ranges``: what was listed, after which key and up to which one.
    """

    commit: int
    known: int
    pass_in_s: float | None = None
    totals: SeenTotals | None = None
    warnings: tuple[ScanWarning, ...] = ()
    ranges: tuple[tuple[str, str | None], ...] = ()


class BucketLook:
    """A bucket, the right to look at it, and what it is to be looked at for."""

    def __init__(
        self, bucket: BucketConfig, claim: Claim, request: LookRequest, context: ScanContext
    ) -> None:
        self._bucket, self._claim, self._request = bucket, claim, request
        # Documented strings are renewed by passes.
        self._context = replace(context, settings=replace(context.settings, ttl_s=math.inf))
        self._as_pass = BucketPass(bucket, claim, context)
        self._pause_at = context.clock() + context.settings.slice_s

    def run(self) -> LookEnd | PassEnd:
        """Look at the bucket; make a pass instead where a look would be of no use."""
        # 1. Open what is known of the bucket. Nothing can be looked at before its first pass.
        known = open_state(self._bucket, self._claim, self._context)
        if known.is_first:
            return self._as_pass.run()
        if not self._context.storage.begins_anywhere():
            return self._wait_for_pass(known) if self._pass_in_s(known) else self._as_pass.run()
        if len(self._request.keys) > MOST_HINTED_KEYS:
            return self._wait_for_pass(known)
        with (
            Notifier(self._bucket, self._context.storage) as notifier,
            _LookCommits(self._bucket, self._claim, self._context, known, notifier) as commits,
        ):
            return self._look(known, commits, notifier)

    def _look(self, known: KnownState, commits: _LookCommits, notifier: Notifier) -> LookEnd:
        context = self._context
        # 2. List ranges until the totals are explained.
        totals = ask_totals(context)
        progress = Progress(began=context.clock())
        listing = ListingPhase(self._bucket, self._claim, context, known, commits, progress)
        ranges = self._choose_ranges(known, totals)
        listed: list[tuple[Range, Sequence[Entry]]] = []
        for wanted in ranges:
            if not wanted.is_hinted and self._is_explained(totals, known, commits):
                break
            entries = listing.list_range(Lane(wanted.after, wanted.until), pause_at=self._pause_at)
            if entries is None:
                break
            listed.append((wanted, entries))
        is_cut_short = len(listed) < len([wanted for wanted in ranges if wanted.is_hinted])
        # 3. Commit what a pass decides about at its end, where it is little.
        self._decide(known, commits, progress, listed)
        # 4. What changed while the look listed explains itself a little later.
        if totals and not self._is_explained(totals, known, commits):
            totals = ask_totals(context) or totals
        notifier.warn(context.warnings)
        needs_pass = is_cut_short or (
            self._can_explain(totals) and not self._is_explained(totals, known, commits)
        )
        return LookEnd(
            commits.number,
            _objects(known),
            pass_in_s=self._pass_in_s(known) if needs_pass and not known.progress else None,
            totals=SeenTotals(totals) if context.settings.asks_totals else None,
            warnings=tuple(context.warnings),
            ranges=tuple((wanted.after, wanted.until) for wanted, _ in listed),
        )

    def _wait_for_pass(self, known: KnownState) -> LookEnd:
        return LookEnd(known.commit, _objects(known), pass_in_s=self._pass_in_s(known))

    def _pass_in_s(self, known: KnownState) -> float:
        """Tell how long a pass that a look asks for has to wait, so long after the last one."""
        if known.last_pass_at is None:
            return 0.0
        since_s = self._context.clock() - known.last_pass_at
        return max(0.0, self._context.settings.look_pass_gap_s - since_s)

    def _choose_ranges(self, known: KnownState, totals: Totals | None) -> list[Range]:
        may_be_explained = self._can_explain(totals) and known.totals_apart is not None
        hot = hot_segments(len(known.entries), may_be_explained=may_be_explained)
        return choose_ranges(
            known.entries,
            self._request.keys,
            # Whoever hints knows where, unless totals say that there is more.
            most_hot=0 if self._request.keys and not may_be_explained else hot,
            page_size=self._context.settings.page_size,
            pass_after=known.progress.after if known.progress else "",
        )

    def _can_explain(self, totals: Totals | None) -> bool:
        """Tell whether totals are of what is watched, and not of more than the bucket's prefix."""
        return totals is not None and not self._bucket.prefix

    def _is_explained(
        self, totals: Totals | None, known: KnownState, commits: CommitPipeline
    ) -> bool:
        if totals is None or not self._can_explain(totals):
            return False
        return totals - known.listed - commits.gained == known.totals_apart

    def _decide(
        self,
        known: KnownState,
        commits: CommitPipeline,
        progress: Progress,
        listed: Sequence[tuple[Range, Sequence[Entry]]],
    ) -> None:
        """Commit moved times and deletions, if they are few and none are held.

        Only what was found just now: what was marked before is for a pass to judge.
        """
        entries = [
            entry
            for wanted, found in listed
            if not any(entry.missing or entry.moved for entry in wanted.entries)
            for entry in found
        ]
        rows, marked = sum(entry.count for entry in entries), (*known.entries, *entries)
        moved = sum(len(entry.moved) for entry in marked)
        missing = sum(len(entry.missing) for entry in marked)
        if known.held_moved_since is None and are_few(moved, rows=rows):
            times = MovedTimesPhase(self._context, commits, progress, entries)
            times.commit_updates(pause_at=math.inf)
            entries = times.entries
        if known.held_since is None and are_few(missing, rows=rows):
            phase = DeletionPhase(self._bucket, self._context, known, commits, progress, entries)
            with phase as deletions:
                deletions.commit_confirmed()


def _objects(known: KnownState) -> int:
    return sum(entry.listed for entry in known.entries)


class _LookCommits(CommitPipeline):
    """Commits of a look: each leaves the pass that is under way where it stands.

    The pass has to know of how many objects came since it began, and of no warnings but its own.
    """

    def __init__(
        self,
        bucket: BucketConfig,
        claim: Claim,
        context: ScanContext,
        known: KnownState,
        notifier: Notifier,
    ) -> None:
        warnings = ScanWarnings()
        warnings.merge(known.warnings)
        super().__init__(bucket, claim, replace(context, warnings=warnings), known, notifier)
        self._stored, self._gone = known.progress, 0

    def progress_to_store(self, progress: Progress, changes: Sequence[Change]) -> Progress | None:
        self._gone += sum(change.event_type is EventType.DELETED for change in changes)
        if self._stored is None:
            return None
        appeared = self._stored.appeared + progress.appeared - self._gone
        return replace(self._stored, appeared=max(0, appeared))
