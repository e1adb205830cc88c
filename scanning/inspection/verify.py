"""Compare everything that is stored of a bucket with a listing, row by row, trusting no digest.

What changed in the bucket is for the next scan to find. A fault is what is wrong although nothing
changed: it is noted, and mended where commits are allowed. Then the bucket's next scan finds, and
announces, whatever a wrong digest or a lost segment had hidden.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from scanning.core.changes import classify
from scanning.core.errors import StateDamaged
from scanning.core.segments.matcher import Listed, Matcher
from scanning.core.segments.model import (
    NOTHING,
    Marks,
    Piece,
    columns_of,
    joined,
    merge,
    split_at,
    states_of,
)
from scanning.core.types import EventType
from scanning.core.verify import (
    Fault,
    Findings,
    are_sound,
    corrected_entry,
    differing,
    fault_of_digest,
    without_digest,
    wrong_states,
)
from scanning.ports import Commit, Position
from scanning.scan.lane_splitter import Lane
from scanning.scan.prefetch import PageLister

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scanning.core.listing.body import Columns
    from scanning.core.segments.model import Entry, Merged
    from scanning.core.types import BucketConfig, Claim, ObjectState
    from scanning.scan.context import ScanContext

_PIECES_A_COMMIT = 100


class Verification:
    """Compares one bucket's stored state with a listing; changes nothing.

    The counts grow by what is listed, and by the events that the next scan would find.
    """

    def __init__(self, bucket: BucketConfig, claim: Claim, context: ScanContext) -> None:
        self._bucket, self._claim = bucket, claim
        self._storage, self._states = context.storage, context.states
        self._now, self._keep_going = context.clock(), context.keep_going
        self._settings, self._counts = context.settings, context.counts
        self._known = context.states.open(bucket, claim)
        self._number = self._known.commit
        self._findings = Findings()
        self._stored: dict[str, Entry] = {}
        self._lost: set[str] = set()
        # The rows that are still to come of a segment that is listed in parts.
        self._rest: Columns | None = None

    def run(self, *, noted: int | None) -> Findings:
        """Compare everything once; ``noted`` is how many objects there were, None if unknown."""
        # 1. Check what is stored, by itself.
        entries = self._read_all(noted)
        # 2. Compare every row with the listing.
        matcher = Matcher(
            [without_digest(entry) for entry in entries],
            self._storage.rows,
            limit=self._settings.page_size,
        )
        with PageLister(
            self._storage,
            [Lane("", None)],
            page_size=self._settings.page_size,
            slow_s=self._settings.slow_page_s,
        ) as pages:
            for _, page in pages:
                self._keep_going()
                self._counts.pages += 1
                for found in matcher.feed(page):
                    if isinstance(found, Listed):
                        self._compare(found)
        # 3. Mend what is wrong, if commits are allowed.
        self._finish()
        return self._findings

    def _write(self, piece: Piece) -> None:
        """Take a piece that should stand in the place of a wrong one."""

    def _remove(self, segment: str) -> None:
        """Take the id of a segment that should not be there."""

    def _finish(self) -> None:
        """End the comparison."""

    # --- what is stored, by itself

    def _read_all(self, noted: int | None) -> list[Entry]:
        """Read all segments; describe each by its rows, in key order."""
        entries: list[Entry] = []
        objects, after = 0, ""
        for stored in self._known.entries:
            self._keep_going()
            self._findings.segments += 1
            rows = self._rows_of(stored, after)
            entry = corrected_entry(stored, rows) if rows else stored
            if entry != stored:
                self._findings.add(Fault.ENTRY, [stored.last_key])
                self._write(Piece(entry, None))
            entries.append(entry)
            objects += len(rows or ()) - len(entry.missing)
            after = entry.last_key
        self._stored = {entry.id: entry for entry in entries}
        is_between_passes = self._known.progress is None and not self._known.is_first
        can_tell = noted is not None and is_between_passes and not self._lost
        if not self._known.is_whole or (can_tell and noted != objects):
            self._findings.add(Fault.COUNT, [], 1)
        return entries

    def _rows_of(self, entry: Entry, after: str) -> Columns | None:
        """Read a segment's rows; None, and a finding, if they are lost."""
        try:
            rows = self._load(entry)
        except StateDamaged:
            rows = NOTHING
        if are_sound(rows, entry, after=after):
            return rows
        self._findings.add(Fault.LOST, [entry.last_key])
        self._lost.add(entry.id)
        return None

    # --- what is stored, beside the listing

    def _compare(self, found: Listed) -> None:
        self._counts.objects += len(found.columns)
        if found.entry is None:
            self._count(merge(NOTHING, found.columns))
            return
        entry = self._stored[found.entry.id]
        if entry.id in self._lost:
            self._build_again(entry, found)
            return
        is_whole = self._rest is None and found.up_to is None
        known = self._rows_until(entry, found.up_to)
        found = found.with_odd_rows(known)
        merged = merge(known, found.columns, trust_etags=self._bucket.trust_etags)
        self._count(merged)
        if is_whole:
            self._check(entry, known, found, merged)

    def _rows_until(self, entry: Entry, key: str | None) -> Columns:
        known = self._rest
        if known is None:
            known = self._load(entry)
        if key is None:
            self._rest = None
            return known
        known, self._rest = split_at(known, key)
        return known

    def _check(self, entry: Entry, known: Columns, found: Listed, merged: Merged) -> None:
        right = entry
        if fault := fault_of_digest(entry, found, merged):
            keys = differing(merged) if fault is Fault.HIDDEN else [entry.last_key]
            self._findings.add(fault, keys, max(1, len(keys)))
            right = without_digest(right)
        if self._settings.strings and entry.strings_at:
            rows = entry.listed_rows(known)
            stored = self._documented([known.keys[row] for row in rows])
            if wrong := wrong_states(known, rows, stored):
                self._findings.add(Fault.STRING, wrong)
                right = replace(right, strings_at=0.0)
        if right != entry:
            self._write(Piece(right, None))

    def _build_again(self, entry: Entry, found: Listed) -> None:
        """Take the rows of a lost segment from the documented states of what is listed there."""
        keys = found.columns.keys
        documented = zip(keys, self._documented(keys), strict=True)
        known = columns_of({key: state for key, state in documented if state})
        self._count(merge(known, found.columns, trust_etags=self._bucket.trust_etags))
        rows = joined(self._rest or NOTHING, known)
        self._rest = rows if found.up_to is not None else None
        if self._rest is not None:
            return
        if len(rows):
            bare = without_digest(entry).with_marks(Marks())
            built = corrected_entry(bare, rows)
            self._write(Piece(built, rows))
        else:
            self._remove(entry.id)

    def _load(self, entry: Entry) -> Columns:
        at = Position(self._claim.fence, self._number)
        [columns] = self._states.load(self._bucket, [entry.id], at)
        return columns

    def _documented(self, keys: Sequence[str]) -> Sequence[ObjectState | None]:
        if not self._settings.strings:
            return [None] * len(keys)
        return self._states.older_states(self._bucket, keys)

    def _count(self, merged: Merged) -> None:
        """Count the events that the next scan finds in a range of keys."""
        counts = self._counts
        for state in states_of(merged.columns, merged.appeared, self._now).values():
            if event := classify(None, state, now=self._now):
                counts.add(event)
        counts.add(EventType.UPDATED, len(merged.updated) + len(merged.moved))
        counts.add(EventType.DELETED, len(merged.missing))


class Repair(Verification):
    """Commits what makes the stored state right again.

    A pass that is under way lists everything again then.
    """

    def __init__(self, bucket: BucketConfig, claim: Claim, context: ScanContext) -> None:
        super().__init__(bucket, claim, context)
        self._pieces: list[Piece] = []
        self._removed: list[str] = []

    def _write(self, piece: Piece) -> None:
        self._pieces.append(piece)
        if len(self._pieces) >= _PIECES_A_COMMIT:
            self._commit()

    def _remove(self, segment: str) -> None:
        self._removed.append(segment)

    def _finish(self) -> None:
        # A commit counts the segments anew, also one that writes none.
        progress = self._known.progress
        if self._pieces or self._removed or progress or not self._known.is_whole:
            self._commit()

    def _commit(self) -> None:
        progress = self._known.progress
        commit = Commit(
            self._number + 1,
            pieces=self._pieces,
            removed=self._removed,
            progress=progress and progress.begun_anew(),
        )
        self._states.commit(self._claim, commit)
        self._number = commit.number
        self._pieces, self._removed = [], []
