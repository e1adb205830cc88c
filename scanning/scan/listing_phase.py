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
    moved_since_older,
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

    from scanning.core.segments.key_ranges import Covered
    from scanning.core.segments.matcher import Page
    from scanning.core.segments.model import Merged
    from scanning.core.types import BucketConfig, Claim
    from scanning.ports import KnownState, Progress
    from scanning.scan.commit_pipeline import CommitPipeline
    from scanning.scan.context import ScanContext
    from scanning.scan.lane_splitter import Lane


# Other programs may have written larger times than a row can hold.
_MOST_TIME_S = 2.0**50


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
        ahead: Sequence[Covered] = (),
    ) -> None:
        self.progress, self.ahead = progress, ahead
        # What is covered, of lanes that are being compared not yet: those are by number.
        self._covered = joined_ranges([("", progress.after), *ahead])
        self._comparers: dict[int, LaneComparer] = {}
        # The segments as they will stand, of lanes that are done, in any order.
        self._entries: list[Entry] = []
        self._bucket, self._claim = bucket, claim
        self._storage, self._states = context.storage, context.states
        self._clock, self._keep_going = context.clock, context.keep_going
        self._settings, self._counts = context.settings, context.counts
        self._known, self._commits, self._warnings = known, commits, context.warnings
        self._new_ids = count()
        self._takes_over = known.is_first and bucket.taken_over
        # What an older monitor knew of the rows that appeared in the range compared last.
        self._older: dict[str, ObjectState] = {}
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
        lanes = cut_lanes(entries, gaps_between(self._covered), self._settings.lanes)
        with closing(self._process(lanes)) as pages:
            for _ in pages:
                if self.gave_up:
                    return None
                if self._clock() >= pause_at:
                    self._note_covered()
                    # One that has covered nothing yet would pause at the same place for ever.
                    if (self.progress.after, self.ahead) != began_at:
                        return None
        compared = {entry.id for lane in lanes for entry in entries_of(lane, entries)}
        listed = [*self._entries, *(entry for entry in entries if entry.id not in compared)]
        listed.sort(key=attrgetter("last_key"))
        # What was added up on the way counts twice what was listed once more.
        objects = sum(entry.listed for entry in listed)
        self.progress = replace(self.progress, is_listed=True, listed=objects, after="")
        self.ahead = ()
        return listed

    def list_range(self, lane: Lane, *, pause_at: float) -> Sequence[Entry] | None:
        """List a range of keys that begins and ends with segments; None if its end was not reached.

        What was listed of it is committed.
        """
        self._entries = []
        with closing(self._process([lane])) as pages:
            for _ in pages:
                if self._clock() >= pause_at:
                    return None
        return self._entries

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
                now=0.0 if self._known.is_first else self._clock(),
                trust_etags=self._bucket.trust_etags,
                older_times=self._find_older_times if self._takes_over else None,
                room=self._room,
            ),
        )

    def _new_id(self) -> str:
        return f"{self._claim.fence:x}-{self._known.commit:x}-{next(self._new_ids):x}"

    def _process(self, lanes: Sequence[Lane]) -> Generator[None, None, None]:
        """List and compare lanes; after every page but the last, there may be a pause."""
        settings = self._settings
        done: set[int] = set()
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
                lane, lanes_by_now = lister.lane(number)
                if number not in done and self._process_page(number, lane, page):
                    done.add(number)
                    if len(done) == lanes_by_now:
                        return
                yield

    def _process_page(self, number: int, lane: Lane, page: Page) -> bool:
        """Compare a lane's next page; tell whether that was the last one."""
        if number not in self._comparers:
            self._comparers[number] = self._comparer(lane)
        comparer = self._comparers[number]
        comparer.lane = lane
        self._compare(comparer, page)
        if comparer.done:
            del self._comparers[number]
            self._entries += comparer.entries
            self._covered = joined_ranges([*self._covered, comparer.range])
        return comparer.done

    def _compare(self, comparer: LaneComparer, page: Page) -> None:
        try:
            for found in comparer.compare(page):
                self._warnings.merge(comparer.warnings.take())
                if isinstance(found, Unchanged):
                    self._counts.unchanged += 1
                    self._count_listed(found.entry.listed)
                else:
                    self._counts.compared += 1
                    self._count_listed(found.listed, appeared=self._count_unknown(found.merged))
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
        compared = (comparer.range for comparer in self._comparers.values())
        (_, after), *ahead = joined_ranges([*self._covered, *compared])
        self.progress, self.ahead = replace(self.progress, after=after), tuple(ahead)

    def _count_listed(self, objects: int, *, appeared: int = 0) -> None:
        self._counts.objects += objects
        self.progress = replace(
            self.progress,
            listed=self.progress.listed + objects,
            appeared=self.progress.appeared + appeared,
        )

    def _count_unknown(self, merged: Merged) -> int:
        """Count the rows that appeared and that no older monitor knew."""
        if not self._older:
            return len(merged.appeared)
        keys = merged.columns.keys
        return sum(keys[row] not in self._older for row in merged.appeared)

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
            gained=found.gained,
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

        if self._takes_over:
            return [
                Change(event_type, key, current, previous)
                for key, current in states.items()
                if ((previous := self._older.get(key)) or is_news(key, current))
                and (event_type := classify_older(previous, current, now=now))
            ]
        news = states
        if cutoff is not EVERYTHING:
            news = {key: state for key, state in states.items() if is_news(key, state)}
        kinds = [classify_new(state, now=now) for state in news.values()]
        return list(map(Change, kinds, news, news.values(), repeat(None)))

    def _find_older_times(self, merged: Merged) -> dict[int, int]:
        """Look up what an older monitor knew of appeared rows; find the times that moved since."""
        states = states_of(merged.columns, merged.appeared, 0.0)
        older = self._states.older_states(self._bucket, list(states)) if states else []
        self._older = {key: state for key, state in zip(states, older, strict=True) if state}
        found = {}
        for row, (key, state) in zip(merged.appeared, states.items(), strict=True):
            at = moved_since_older(self._older.get(key), state)
            if at is not None and abs(at) < _MOST_TIME_S:
                found[row] = round(at * 1000)
        return found

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
