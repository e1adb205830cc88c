"""The last phase of a pass, when everything is listed: missing keys are deleted, or held."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scanning.core.deletions import had_second_look, is_mass
from scanning.core.segments.model import states_of
from scanning.core.segments.writer import drop_missing_rows
from scanning.core.types import Change, EventType, Held

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scanning.core.segments.model import Entry
    from scanning.ports import KnownState, Progress
    from scanning.scan.commit_pipeline import CommitPipeline
    from scanning.scan.context import ScanContext


class DeletionPhase:
    """Decides about the rows that a complete listing lacks; ``entries`` are all segments."""

    def __init__(
        self,
        context: ScanContext,
        known: KnownState,
        commits: CommitPipeline,
        progress: Progress,
        entries: Sequence[Entry],
    ) -> None:
        self._clock, self._settings = context.clock, context.settings
        self._known, self._commits = known, commits
        self._progress, self._entries = progress, entries

    def mass_deletion(self) -> Held | None:
        """Find a mass deletion that somebody must look at before anything counts as deleted."""
        missing = sum(len(entry.missing) for entry in self._entries)
        known = sum(entry.count for entry in self._entries) - self._progress.appeared
        settings, since, now = self._settings, self._known.held_since, self._clock()
        # What somebody confirmed is as good as gone; the rest may be a mass deletion of its own.
        confirmed = self._known.released
        if missing <= confirmed:
            return None
        if since and had_second_look(since, now=now, second_look_s=settings.second_look_s):
            return None
        # A hold that nobody confirmed holds whatever is missing: neither what came back, nor what
        # came new, nor what went since says that the rest was meant to go.
        is_held = (since and not confirmed) or is_mass(
            missing=missing - confirmed,
            known=known - confirmed,
            share=settings.mass_share,
            minimum=settings.mass_minimum,
        )
        return Held(missing, known, since or now) if is_held else None

    def commit_deletions(self, *, pause_at: float) -> bool:
        """Commit the deletions, segment by segment; False if it paused before the end."""
        for entry in self._entries:
            if entry.missing:
                self._delete_missing_rows(entry)
                if self._clock() >= pause_at:
                    return False
        return True

    def _delete_missing_rows(self, entry: Entry) -> None:
        columns = self._commits.load(entry.id)
        now = self._clock()
        states = states_of(columns, entry.missing, now)
        changes = [Change(EventType.DELETED, key, state, state) for key, state in states.items()]
        left = drop_missing_rows(entry, columns)
        self._commits.submit(
            changes,
            now,
            self._progress,
            pieces=[left] if left else [],
            removed=[] if left else [entry.id],
            no_strings=list(states),
        )
