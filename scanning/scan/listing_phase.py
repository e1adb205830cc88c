"""The first phase of a pass: list a bucket, compare, and commit what was created and updated."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from itertools import count, repeat
from operator import attrgetter
from typing import TYPE_CHECKING

from scanning.core.changes import (
    EVERYTHING,
    announce_cutoff,
    classify_new,
    classify_older,
)
from scanning.core.errors import StorageUnavailable
from scanning.core.listing.body import UnreadableListing
from scanning.core.scan_warnings import WarningKind
from scanning.core.segments.key_ranges import gaps_between, joined_ranges
from scanning.core.segments.matcher import Unchanged
from scanning.core.segments.model import Entry, Piece, states_of, strings_need_refresh
from scanning.core.segments.writer import Rewriting, Room, SegmentWriter
from scanning.core.types import Change, EventType, ObjectState
from scanning.scan.lane import LaneComparer, cut_lanes, entries_of
from scanning.scan.prefetch import PageLister

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from scanning.core.segments.key_ranges import KeyRange
    from scanning.core.segments.matcher import Page
    from scanning.core.types import BucketConfig, Claim
    from scanning.ports import KnownState, Progress
    from scanning.scan.commit_pipeline import CommitPipeline
    from scanning.scan.context import ScanContext
    from scanning.scan.lane_splitter import Lane


class ListingPhase:
    """Brings a bucket's segments in step with its listing; ``progress`` says how far it has come.

    ``ahead`` are the ranges behind that which lanes have covered, too. Keys that the listing does
    not show are only marked as missing.
    """

    def __init__(
        self,
        bucket: BucketConfig,
        claim: Claim,
        context: ScanContext,
        known: KnownState,
        commits: CommitPipeline,
        progress: Progress,
        ahead: Sequence[KeyRange] = (),
    ) -> None:
        self.progress, self.ahead = progress, ahead
        self._covered_before = joined_ranges([("", progress.after), *ahead])
        self._comparers: list[LaneComparer] = []
        self._bucket, self._claim = bucket, claim
        self._storage, self._states = context.storage, context.states
        self._clock, self._keep_going = context.clock, context.keep_going
        self._settings, self._counts = context.settings, context.counts
        self._known, self._commits, self._warnings = known, commits, context.warnings
        self._new_ids = count()
        self._most_objects = context.settings.most_objects
        self._room = Room()
        if self._most_objects:
            self._room.left = self._most_objects - sum(entry.count for entry in known.entries)
        self._cutoff = announce_cutoff(
            bucket,
            is_first=known.is_first,
            began=progress.began,
            older_scan_at=known.older_scan_at,
            margin_s=context.settings.baseline_margin_s,
        )

    def run(self, *, pause_at: float) -> Sequence[Entry] | None:
        """List what the pass has not covered yet; None if it paused or gave up before the end."""
        entries, began_at = self._known.entries, (self.progress.after, self.ahead)
        gaps = gaps_between(self._covered_before)
        lanes = cut_lanes(entries, gaps, self._settings.lanes)
        with closing(self._process(lanes)) as pages:
            for _ in pages:
                if self.gave_up:
                    return None
                if self._clock() >= pause_at:
                    self._note_covered()
                    # One that has covered nothing yet would pause at the same place for ever.
                    if (self.progress.after, self.ahead) != began_at:
                        return None
        listed = self._entries_now(lanes)
        # What was added up on the way counts what a look or another host wrote meanwhile twice.
        objects = sum(entry.listed for entry in listed)
        self.progress = replace(self.progress, is_listed=True, listed=objects, after="")
        self.ahead = ()
        return listed

    def _entries_now(self, lanes: Sequence[Lane]) -> Sequence[Entry]:
        """Put the segments that lanes have written among those that were covered before."""
        known = self._known.entries
        compared = {entry.id for lane in lanes for entry in entries_of(lane, known)}
        entries = [entry for entry in known if entry.id not in compared]
        for comparer in self._comparers:
            entries += comparer.entries
        return sorted(entries, key=attrgetter("last_key"))

    @property
    def gave_up(self) -> bool:
        """Tell whether more was left out than a bucket may have: a listing may have no end."""
        left_out = self._warnings.count_of(WarningKind.LEFT_OUT)
        return 0 < self._most_objects < left_out

    # --- pages

    def _comparer(self, lane: Lane) -> LaneComparer:
        return LaneComparer(
            lane,
            entries_of(lane, self._known.entries),
            parse=self._storage.rows,
            writer=SegmentWriter(
                load=self._commits.load,
                new_id=self._new_id,
                limit=self._settings.page_size,
                strings_at=self._clock() if self._settings.strings else 0.0,
                trust_etags=self._bucket.trust_etags,
                room=self._room,
            ),
        )

    def _new_id(self) -> str:
        return f"{self._claim.fence:x}-{self._known.commit:x}-{next(self._new_ids):x}"

    def _process(self, lanes: Sequence[Lane]) -> Generator[None, None, None]:
        """List and compare lanes; after every page but the last, there may be a pause."""
        settings = self._settings
        with PageLister(
            self._storage,
            lanes,
            page_size=settings.page_size,
            slow_s=settings.slow_page_s,
            at_once=settings.lanes,
        ) as lister:
            for number, page in lister:
                self._keep_going()
                self._counts.pages += 1
                self._meet(lister.lanes)
                self._process_page(self._comparers[number], page)
                if all(comparer.done for comparer in self._comparers):
                    return
                yield

    def _meet(self, lanes: Sequence[Lane]) -> None:
        """Take in which lanes there are: some end sooner than they did, and others are new."""
        for comparer, lane in zip(self._comparers, lanes, strict=False):
            comparer.lane = lane
        self._comparers += map(self._comparer, lanes[len(self._comparers) :])

    def _process_page(self, comparer: LaneComparer, page: Page) -> None:
        try:
            for found in comparer.compare(page):
                self._warnings.merge(comparer.warnings.take())
                if isinstance(found, Unchanged):
                    self._counts.unchanged += 1
                    self._count_listed(found.entry.listed)
                else:
                    self._counts.compared += 1
                    self._count_listed(found.listed, appeared=len(found.merged.appeared))
                    self._commit_changes(found)
                comparer.replace_last(self._refresh_documented_strings)
        except UnreadableListing as exc:
            raise StorageUnavailable(
                f"{self._bucket.name}: {self._bucket.endpoint_host} sent a listing that makes no "
                f"sense: {exc}"
            ) from exc
        self._warnings.merge(comparer.warnings.take())

    def _note_covered(self) -> None:
        """Say in ``progress`` and ``ahead`` what is compared by now."""
        covered = [*self._covered_before, *(comparer.range for comparer in self._comparers)]
        (_, after), *ahead = joined_ranges(covered)
        if after is None:
            after = max(comparer.covered for comparer in self._comparers)
        self.progress, self.ahead = replace(self.progress, after=after), tuple(ahead)

    def _count_listed(self, objects: int, *, appeared: int = 0) -> None:
        self._counts.objects += objects
        self.progress = replace(
            self.progress,
            listed=self.progress.listed + objects,
            appeared=self.progress.appeared + appeared,
        )

    # --- changes

    def _commit_changes(self, found: Rewriting) -> None:
        if not found.pieces:
            return
        now = self._clock()
        appeared = states_of(found.merged.columns, found.merged.appeared, now)
        updated = states_of(found.merged.columns, found.merged.updated, now)
        before = states_of(found.known, found.merged.before, now).values()
        # Where a segment was, an earlier scan of this pass found no such key: it came since then.
        # Not so before its first key, which may be the first one that a lane listed.
        seen_after = found.known.keys[0] if len(found.known) else None
        changes = self._changes_of_new_keys(appeared, now, seen_after)
        changes += map(_updated_change, updated.items(), before)
        if appeared and updated:
            changes.sort(key=attrgetter("key"))
        strings = appeared | updated if self._settings.strings else {}
        self._note_covered()
        self._commits.submit(
            changes,
            now,
            self.progress,
            ahead=self.ahead,
            pieces=found.pieces,
            removed=found.removed,
            strings=strings,
        )

    def _changes_of_new_keys(
        self, states: Mapping[str, ObjectState], now: float, seen_after: str | None
    ) -> list[Change]:
        """Name the changes of keys that bucketwatch sees for the first time.

        After the key ``seen_after`` others were seen before: all are announced.
        """
        cutoff = self._cutoff

        def is_news(key: str, state: ObjectState) -> bool:
            return (seen_after is not None and key > seen_after) or cutoff.is_news(state)

        if self._known.is_first and self._bucket.taken_over:
            older = self._states.older_states(self._bucket, list(states))
            return [
                Change(event_type, key, current, previous)
                for (key, current), previous in zip(states.items(), older, strict=True)
                if (previous or is_news(key, current))
                and (event_type := classify_older(previous, current, now=now))
            ]
        news = states
        if cutoff is not EVERYTHING:
            news = {key: state for key, state in states.items() if is_news(key, state)}
        kinds = [classify_new(state, now=now) for state in news.values()]
        return list(map(Change, kinds, news, news.values(), repeat(None)))

    def _refresh_documented_strings(self, entry: Entry) -> Entry:
        """Write, renew or remove a segment's documented strings, if that is due.

        Missing rows' strings too: their keys may be back before they are deletions. And those of a
        segment that was written just now: it may be at every scan, for a few of its rows.
        """
        now, wanted = self._clock(), self._settings.strings
        if not (
            strings_need_refresh(entry, now, self._settings.ttl_s) if wanted else entry.strings_at
        ):
            return entry
        columns = self._commits.load(entry.id)
        refreshed = replace(entry, strings_at=now if wanted else 0.0)
        self._note_covered()
        self._commits.submit(
            (),
            now,
            self.progress,
            ahead=self.ahead,
            pieces=[Piece(refreshed, None)],
            strings=states_of(columns, range(len(columns)), now) if wanted else {},
            no_strings=() if wanted else columns.keys,
        )
        return refreshed


def _updated_change(now: tuple[str, ObjectState], before: ObjectState) -> Change:
    key, current = now
    return Change(EventType.UPDATED, key, current, before)
