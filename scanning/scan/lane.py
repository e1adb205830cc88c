"""One lane of a scan: from listing pages to what must be written, segment by segment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scanning.core.scan_warnings import WarningKind
from scanning.core.segments.matcher import Matcher, Unchanged
from scanning.core.segments.writer import entries_after
from scanning.scan.lane_splitter import Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from scanning.core.listing.rows import ListedRows
    from scanning.core.scan_warnings import ScanWarnings
    from scanning.core.segments.key_ranges import Covered, Gap
    from scanning.core.segments.matcher import Page
    from scanning.core.segments.model import Entry
    from scanning.core.segments.writer import Rewriting, SegmentWriter

# A lane is worth its thread and connection from this many segments on.
SEGMENTS_A_LANE = 4
MOST_SEGMENTS_A_LANE = 25


class LaneComparer:
    """Compares one lane's pages with its known segments.

    ``entries`` are the segments as they will stand, in key order, up to ``covered``. Behind all
    known keys it is done with the first object for which there is no room: nothing is to be found.
    """

    def __init__(
        self,
        lane: Lane,
        known: Sequence[Entry],
        *,
        parse: Callable[[bytes], ListedRows],
        writer: SegmentWriter,
    ) -> None:
        self.entries = writer.entries
        self.covered = lane.after
        self._lane = lane
        self._writer = writer
        self._is_full = False
        self._matcher = Matcher(
            known, parse, limit=writer.limit, after=lane.after, until=lane.until
        )

    @property
    def lane(self) -> Lane:
        return self._lane

    @lane.setter
    def lane(self, lane: Lane) -> None:
        """Let the lane end sooner than planned: nothing that was listed is beyond its new end."""
        if lane is not self._lane:
            self._lane = lane
            self._matcher.end_at(lane.until)

    @property
    def range(self) -> Covered:
        """The range of keys that is compared by now."""
        until = self._lane.until
        return self._lane.after, self.covered if until is None or not self.done else until

    @property
    def done(self) -> bool:
        return self._is_full or self._matcher.done

    @property
    def warnings(self) -> ScanWarnings:
        """What is odd about the rows up to ``covered``, and has not been taken from here."""
        return self._matcher.warnings

    def compare(self, page: Page) -> Iterator[Unchanged | Rewriting]:
        """Compare one more page; ``entries`` and ``covered`` are ahead of what is yielded."""
        if self._is_full:
            return
        for found in self._matcher.feed(page):
            if isinstance(found, Unchanged):
                self._writer.keep(found)
                self.covered = found.entry.last_key
                yield found
                continue
            rewriting = self._writer.write(found)
            if found.entry is not None and found.up_to is not None:
                self._matcher.replace_current(self._writer.rest_of(found.entry))
            if self._writer.left_out:
                self.warnings.add(WarningKind.LEFT_OUT, *self._writer.left_out)
                self._is_full = found.entry is None
            if found.up_to or self.entries:
                self.covered = found.up_to or self.entries[-1].last_key
            yield rewriting
            if self._is_full:
                return

    def replace_last(self, by: Callable[[Entry], Entry]) -> None:
        """Put another entry in the place of the last one, for a reason other than its rows."""
        if self.entries:
            self.entries[-1] = by(self.entries[-1])


def cut_lanes(entries: Sequence[Entry], gaps: Sequence[Gap], at_once: int) -> Sequence[Lane]:
    """Cut what is not covered into lanes of about as many segments each, in key order.

    Those that are listed ``at_once`` are neighbours, so that nobody has covered much far ahead of
    the others: that is lost when something else commits in a pause.
    """
    runs = [entries_of(Lane(after, until), entries) for after, until in gaps]
    total = sum(map(len, runs))
    most = max(at_once, total // MOST_SEGMENTS_A_LANE) if at_once > 1 else 1
    lanes: list[Lane] = []
    for (after, until), run in zip(gaps, runs, strict=True):
        number = max(1, min(most * len(run) // max(1, total), len(run) // SEGMENTS_A_LANE))
        for lane in range(1, number):
            end = run[len(run) * lane // number - 1].last_key
            lanes.append(Lane(after, end))
            after = end  # noqa: PLW2901 - the rest of the range
        known_up_to = run[-1].last_key if run else after
        ends_unknown = known_up_to if until is None or known_up_to < until else None
        lanes.append(Lane(after, until, ends_unknown))
    return lanes


def entries_of(lane: Lane, entries: Sequence[Entry]) -> Sequence[Entry]:
    """Select the segments in a lane's range of keys."""
    start = entries_after(entries, lane.after)
    end = len(entries) if lane.until is None else entries_after(entries, lane.until)
    return entries[start:end]
