"""One lane of a scan: from listing pages to what must be written, segment by segment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scanning.core.scan_warnings import WarningKind
from scanning.core.segments.matcher import Matcher, Unchanged
from scanning.core.segments.writer import entries_after
from scanning.scan.prefetch import Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from scanning.core.listing.rows import ListedRows
    from scanning.core.scan_warnings import ScanWarnings
    from scanning.core.segments.matcher import Page
    from scanning.core.segments.model import Entry
    from scanning.core.segments.writer import Rewriting, SegmentWriter

# A lane is worth its thread and connection from this many segments on.
SEGMENTS_A_LANE = 4
# So many segments a lane lists before all of them go on to the next stretch.
STRETCH = 25


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
        self._writer = writer
        self._is_full = False
        self._matcher = Matcher(
            known, parse, limit=writer.limit, after=lane.after, until=lane.until
        )

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


def cut_stretches(
    entries: Sequence[Entry], lanes: int
) -> Iterator[tuple[Sequence[Entry], str | None]]:
    """Cut segments into what lanes list one after the other, each up to a key (None: to the end).

    What all lanes but the first have listed is lost in a pause: they shall not be far ahead.
    """
    start, length = 0, lanes * STRETCH if lanes > 1 else len(entries)
    while len(entries) - start > length:
        yield entries[start : start + length], entries[start + length - 1].last_key
        start += length
    yield entries[start:], None


def cut_lanes(
    entries: Sequence[Entry], lanes: int, *, after: str, until: str | None
) -> Iterator[Lane]:
    """Cut a stretch into ranges of keys with about the same number of segments in each."""
    number = max(1, min(lanes, len(entries) // SEGMENTS_A_LANE))
    for lane in range(1, number):
        end = entries[len(entries) * lane // number - 1].last_key
        yield Lane(after, end)
        after = end
    yield Lane(after, until)


def entries_of(lane: Lane, entries: Sequence[Entry]) -> Sequence[Entry]:
    """Select the segments in a lane's range of keys."""
    start = entries_after(entries, lane.after)
    end = len(entries) if lane.until is None else entries_after(entries, lane.until)
    return entries[start:end]
