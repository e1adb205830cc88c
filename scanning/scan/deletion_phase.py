"""The last phase of a pass, when everything is listed: missing keys are deleted, or held.

That a listing lacks a key is one witness; a deletion takes a second one (`second_witness.py`),
which is asked before the commit. Until it has answered, the key stays marked as missing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Self

from scanning.core.deletions import Confirm
from scanning.core.holds import held_since
from scanning.core.segments.model import Piece, states_of
from scanning.core.segments.writer import drop_missing_rows, entries_after
from scanning.core.types import Change, EventType, Held
from scanning.scan.second_witness import (
    BULK_THRESHOLD,
    HeadConfirmer,
    ListingConfirmer,
    NoConfirmer,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scanning.core.segments.model import Entry
    from scanning.core.types import BucketConfig
    from scanning.ports import KnownState, Progress
    from scanning.scan.commit_pipeline import CommitPipeline
    from scanning.scan.context import ScanContext
    from scanning.scan.second_witness import DeletionConfirmer


class DeletionPhase:
    """Decides about the rows that a complete listing lacks; ``entries`` are all segments.

    ``progress`` says, in ``after``, up to which key this phase has decided.
    """

    def __init__(
        self,
        bucket: BucketConfig,
        context: ScanContext,
        known: KnownState,
        commits: CommitPipeline,
        progress: Progress,
        entries: Sequence[Entry],
    ) -> None:
        self.progress = progress
        self._context, self._clock, self._settings = context, context.clock, context.settings
        self._known, self._commits, self._entries = known, commits, entries
        self._heads = HeadConfirmer(bucket, context)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._heads.close()

    def mass_deletion(self) -> Held | None:
        """Find a mass deletion that somebody must look at before anything counts as deleted."""
        missing = sum(len(entry.missing) for entry in self._entries)
        known = sum(entry.count for entry in self._entries) - self.progress.appeared
        since = held_since(
            missing,
            known=known,
            before=self._known.held_since,
            released=self._known.released,
            rules=self._settings,
            now=self._clock(),
        )
        return None if since is None else Held(missing, known, since)

    def mark_held(self, *, pause_at: float) -> bool:
        """Mark what is held, for a witness that counts on marks; False if it paused before the end.

        Once somebody confirms the hold, this pass was the first listing that lacked the rows.
        """
        unmarked = [entry for entry in self._entries if entry.missing and not entry.absent]
        confirmer = self._choose_confirmer() if unmarked else None
        if confirmer is None or not confirmer.marks:
            return True
        for entry in unmarked:
            self._commit(self._marked(entry))
            if self._clock() >= pause_at:
                return False
        return True

    def commit_deletions(self, *, pause_at: float) -> bool:
        """Commit the deletions, segment by segment; False if it paused before the end."""
        start = entries_after(self._entries, self.progress.after)
        # A pass that says it is through was crashed at its last commit, or is of version 0.1.0.
        if start == len(self._entries):
            self.progress, start = replace(self.progress, after=""), 0
        entries = self._entries[start:]
        left = [entry for entry in entries if entry.missing]
        confirmer = self._choose_confirmer() if left else None
        if confirmer is None:
            return True
        # Also what an earlier scan of the pass left of them: it may have had another witness.
        if confirmer is self._heads and sum(len(entry.missing) for entry in left) > BULK_THRESHOLD:
            after = self.progress.after
            if not self._heads.confirm_all(entries, self._commits.load, after=after):
                return True
        for entry in left:
            self.progress = replace(self.progress, after=entry.last_key)
            self._decide(entry, confirmer)
            if self._clock() >= pause_at and entry is not left[-1]:
                return False
        return True

    def commit_confirmed(self) -> None:
        """Commit deletions that a witness confirms now; mark nothing for another listing."""
        left = [entry for entry in self._entries if entry.missing]
        confirmer = self._choose_confirmer() if left else None
        if confirmer is None or confirmer.marks:
            return
        for entry in left:
            self._decide(entry, confirmer)

    def _choose_confirmer(self) -> DeletionConfirmer | None:
        """Choose by the setting, and by what HEAD can tell; None if HEAD does not answer now."""
        confirm, began = self._settings.confirm, self.progress.began
        if confirm is Confirm.NONE:
            return NoConfirmer()
        if confirm is Confirm.LISTING:
            return ListingConfirmer(self._context, began=began, replaces_head=False)
        is_trustworthy = self._heads.is_trustworthy()
        if is_trustworthy is None:
            return None
        if is_trustworthy:
            return self._heads
        return ListingConfirmer(self._context, began=began, replaces_head=True)

    def _decide(self, entry: Entry, confirmer: DeletionConfirmer) -> None:
        """Commit the rows that are gone, and mark the others, if anything counts on that."""
        columns = self._commits.load(entry.id)
        gone = sorted(confirmer.confirm(entry, columns))
        left = drop_missing_rows(entry, columns, gone) if gone else Piece(entry, None)
        if left and confirmer.marks:
            left = replace(left, entry=self._marked(left.entry))
        if not gone:
            if left and left.entry != entry:
                self._commit(left.entry)
            return
        now = self._clock()
        states = states_of(columns, gone, now)
        changes = [Change(EventType.DELETED, key, state, state) for key, state in states.items()]
        self._commits.submit(
            changes,
            now,
            self.progress,
            pieces=[left] if left else [],
            removed=[] if left else [entry.id],
            no_strings=list(states),
        )

    def _marked(self, entry: Entry) -> Entry:
        """Mark all missing rows as absent since this pass, unless earlier marks still wait."""
        if entry.absent or not entry.missing:
            return entry
        return replace(entry, absent=entry.missing, absent_since=self.progress.began)

    def _commit(self, entry: Entry) -> None:
        self._commits.submit((), self._clock(), self.progress, pieces=[Piece(entry, None)])
