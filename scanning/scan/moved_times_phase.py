"""The phase of a pass that decides about moved times: updates, held, or taken silently.

An object of which only the time moved may have been written again with the same bytes, which is an
update. If most of a bucket's objects are such, it is rather another node's clock, an upgrade of the
server, or a restore: a *storm*, held until somebody chooses. Rows keep the known times until then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scanning.core.holds import held_since
from scanning.core.segments.model import states_of, with_moved_times
from scanning.core.types import Change, EventType, HeldTimes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scanning.core.segments.model import Entry
    from scanning.ports import KnownState, Progress
    from scanning.scan.commit_pipeline import CommitPipeline
    from scanning.scan.context import ScanContext


class MovedTimesPhase:
    """Decides about the moved times that are noted in ``entries``, which it keeps up to date.

    What it has committed is not noted any more, so whoever goes on with the pass needs no place.
    """

    def __init__(
        self,
        context: ScanContext,
        commits: CommitPipeline,
        progress: Progress,
        entries: Sequence[Entry],
    ) -> None:
        self.entries = list(entries)
        self._clock, self._settings = context.clock, context.settings
        self._commits, self._progress = commits, progress

    @property
    def moved(self) -> int:
        """Count the objects of which only the time moved."""
        return sum(len(entry.moved) for entry in self.entries)

    def find_storm(self, known: KnownState) -> HeldTimes | None:
        """Find a storm that somebody must look at; ``entries`` are all segments, all listed."""
        moved = self.moved
        objects = sum(entry.count for entry in self.entries) - self._progress.appeared
        since = held_since(
            moved,
            known=objects,
            before=known.held_moved_since,
            released=known.released_moved,
            rules=self._settings,
            now=self._clock(),
        )
        return None if since is None else HeldTimes(moved, objects, since)

    def commit_updates(self, *, pause_at: float) -> bool:
        """Commit the moved times as updates, segment by segment; False if it paused."""
        places = self._noted_places()
        for place in places:
            self._take(place, is_announced=True)
            if self._clock() >= pause_at and place != places[-1]:
                return False
        return True

    def take_silently(self, *, pause_at: float) -> bool:
        """Write the moved times without events; the last commit ends the hold. False: paused."""
        for place in self._noted_places():
            self._take(place, is_announced=False)
            if self._clock() >= pause_at:
                return False
        self._commits.submit((), self._clock(), self._progress, took_times=True)
        return True

    def _noted_places(self) -> list[int]:
        return [place for place, entry in enumerate(self.entries) if entry.moved]

    def _take(self, place: int, *, is_announced: bool) -> None:
        entry, now = self.entries[place], self._clock()
        columns = self._commits.load(entry.id)
        taken = with_moved_times(entry, columns)
        assert taken.columns is not None  # noqa: S101 - its times are others
        before = states_of(columns, entry.moved, now)
        current = states_of(taken.columns, entry.moved, now)
        changes = [
            Change(EventType.UPDATED, key, current[key], before[key])
            for key in (current if is_announced else ())
        ]
        strings = current if self._settings.strings else {}
        self._commits.submit(changes, now, self._progress, pieces=[taken], strings=strings)
        self.entries[place] = taken.entry
