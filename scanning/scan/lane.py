"""One lane of a scan: from listing pages to what must be written, segment by segment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scanning.core.segments.matcher import Matcher, Unchanged
from scanning.core.segments.model import NOTHING, merge
from scanning.core.segments.rewriter import Neighbour, Rewriter, Rewriting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from scanning.core.listing.body import Columns
    from scanning.core.segments.matcher import Listed, Page
    from scanning.core.segments.model import Entry, Piece
    from scanning.scan.prefetch import Lane


# Of a segment of which nothing was listed before either: while a deletion of millions is held, no
# pass reads their rows again.
STILL_GONE = Rewriting(merge(NOTHING, NOTHING), NOTHING, (), b"")


class LaneComparer:
    """Compares one lane's pages with its known segments.

    ``entries`` are the segments as they will stand, in key order, up to ``covered``.
    """

    def __init__(
        self,
        lane: Lane,
        known: Sequence[Entry],
        *,
        parse: Callable[[bytes], Columns],
        load: Callable[[str], Columns],
        rewriter: Rewriter,
    ) -> None:
        self.entries: list[Entry] = []
        self.covered = lane.after
        self._load = load
        self._rewriter = rewriter
        self._matcher = Matcher(
            known, parse, most=rewriter.most, tail=lane.until is None, after=lane.after
        )
        # The listed bytes of the last of ``entries``, if they are at hand.
        self._raw: bytes | None = None
        # What is still to be listed of a segment that was written in parts.
        self._rest: Piece | None = None

    @property
    def done(self) -> bool:
        return self._matcher.done

    def take(self, page: Page) -> Iterator[Unchanged | Rewriting]:
        """What one more page tells; ``entries`` and ``covered`` are ahead of what is yielded."""
        for found in self._matcher.feed(page):
            if isinstance(found, Unchanged):
                self._keep([found.entry], found.raw, found.entry.last_key)
                yield found
            elif found.entry is not None or len(found.columns):
                rewriting = self._rewrite(found)
                self._apply(found, rewriting)
                yield rewriting

    def replace_last(self, entry: Entry) -> None:
        """The last segment's entry changed for a reason other than its rows."""
        self.entries[-1] = entry

    def _rewrite(self, found: Listed) -> Rewriting:
        if found.entry is None:
            return self._joined(self._rewriter.after(found.columns, found.raw), shrunk=False)
        if not found.entry.listed and not len(found.columns):
            return STILL_GONE
        known = self._known_rows(found.entry)
        if found.up_to is not None:
            return self._rewriter.first_part(
                found.entry, known, found.columns, found.raw, up_to=found.up_to
            )
        return self._joined(
            self._rewriter.whole(found.entry, known, found.columns, found.raw), shrunk=True
        )

    def _known_rows(self, entry: Entry) -> Columns:
        rest = self._rest
        if rest is not None and rest.columns is not None and rest.entry is entry:
            return rest.columns
        return self._load(entry.id)

    def _joined(self, rewriting: Rewriting, *, shrunk: bool) -> Rewriting:
        if not self.entries or not self._rewriter.joins(self.entries[-1], rewriting, shrunk=shrunk):
            return rewriting
        neighbour = self.entries[-1]
        before = Neighbour(neighbour, self._load(neighbour.id), self._raw)
        return self._rewriter.join(before, rewriting)

    def _apply(self, found: Listed, rewriting: Rewriting) -> None:
        if rewriting.joined:
            self.entries.pop()
        written = [piece.entry for piece in rewriting.pieces if piece is not rewriting.rest]
        if not written and found.entry is not None:
            written = [found.entry]
        if rewriting.rest is not None:
            self._rest = rewriting.rest
            self._matcher.replace_current(rewriting.rest.entry)
        raw = rewriting.raw if len(written) == 1 else None
        self._keep(written, raw, found.up_to or written[-1].last_key)

    def _keep(self, entries: Sequence[Entry], raw: bytes | None, covered: str) -> None:
        self.entries += entries
        self._raw, self.covered = raw, covered
