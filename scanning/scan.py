"""One scan of one bucket: list, compare, commit; knows only ports and values.

A *pass* covers the whole bucket. A scan goes on with the pass that an earlier one left unfinished,
and may leave it unfinished itself when its time slice is over. Every commit is small, numbered and
fenced, and carries how far the pass has come; so a crash anywhere costs at most one commit's work.

Deletions are decided when everything is listed: until then, keys that the listing does not show
are only marked as missing in the manifest.
"""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass, replace
from itertools import count
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING

from scanning.ahead import SLOW_S, Lane, listed_ahead
from scanning.announcing import Announcer, recent
from scanning.comparing import Comparison
from scanning.core import events
from scanning.core.diff import classify
from scanning.core.errors import StorageUnavailable
from scanning.core.listing import UnreadableListing
from scanning.core.matching import Unchanged
from scanning.core.rewriting import Rewriter, Rewriting, entries_after, settled
from scanning.core.segments import Entry, Piece
from scanning.core.types import BucketConfig, Change, EventType, Held, ObjectState, ScanCounts
from scanning.ports import Commit, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from scanning.core.listing import Columns
    from scanning.core.matching import Page
    from scanning.core.types import Claim
    from scanning.ports import StateStore, Storage

# A lane is worth its thread and connection from this many segments on.
SEGMENTS_A_LANE = 4


@dataclass(frozen=True, slots=True)
class ScanSettings:
    """``page_size`` is also the most rows of a segment; ``slice_s`` is when a scan pauses.

    ``strings``: the documented JSON strings are written, and live ``ttl_s``. A listing that shows
    nothing, or lacks more than ``mass_share`` of at least ``mass_minimum`` known objects, is a
    mass deletion: held, until somebody confirms it or ``second_look_s`` (0: never) have passed.
    Listing runs ahead, in lanes, from the first page on that took ``slow_page_s`` of waiting.
    """

    page_size: int = 1000
    lanes: int = 4
    slice_s: float = 20.0
    strings: bool = True
    ttl_s: float = 2_592_000.0
    mass_share: float = 0.5
    mass_minimum: int = 1000
    second_look_s: float = 0.0
    slow_page_s: float = SLOW_S


@dataclass(frozen=True, slots=True)
class ScanEnd:
    """``progress`` is what to go on with where the pass is not ``complete``."""

    complete: bool
    progress: Progress
    held: Held | None = None


class Scan:
    """A bucket, the right to scan it, and what is needed to do so.

    ``keep_going`` is called at every page and commit, and raises to end the scan early. ``counts``
    grows as the scan goes on.
    """

    def __init__(
        self,
        bucket: BucketConfig,
        claim: Claim,
        *,
        storage: Storage,
        states: StateStore,
        clock: Callable[[], float],
        keep_going: Callable[[], None],
        settings: ScanSettings,
        counts: ScanCounts,
    ) -> None:
        self._bucket, self._claim = bucket, claim
        self._storage, self._states = storage, states
        self._clock, self._keep_going = clock, keep_going
        self._settings, self._counts = settings, counts
        self._announcer = Announcer(bucket, storage)
        self._new_ids = count()
        self._pause_at = clock() + settings.slice_s
        self._known = states.open(bucket)
        # Not the claim's: a scan under the same claim may have committed before this one began.
        self._number = self._known.commit
        self._progress = self._known.progress or Progress(began=clock())

    def run(self) -> ScanEnd:
        """Go on with the bucket's pass until it is complete or the time slice is over."""
        with self._announcer:
            entries = self._known.entries
            if not self._progress.is_listed:
                entries = self._list(entries)
                if not self._progress.is_listed:
                    return ScanEnd(complete=False, progress=self._progress)
            return self._settle(entries)

    # --- listing and comparing

    def _list(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """List what the pass has not covered yet, and bring the segments in step with it."""
        began_after = self._progress.after
        start = entries_after(entries, began_after)
        ahead = entries[start:]
        lanes = list(self._lanes(ahead))
        comparisons = [self._comparison(lane, ahead) for lane in lanes]
        settings = self._settings
        with listed_ahead(
            self._storage, lanes, page_size=settings.page_size, slow_s=settings.slow_page_s
        ) as pages:
            for number, page in pages:
                self._keep_going()
                self._counts.pages += 1
                self._take(comparisons, number, page)
                if all(lane.done for lane in comparisons):
                    continue
                # A scan that has covered nothing yet would pause at the same place for ever.
                if self._time_is_over() and self._progress.after != began_after:
                    return ()
        listed = [*entries[:start], *(entry for lane in comparisons for entry in lane.entries)]
        # What was added up on the way counts twice what a lane listed ahead of a break.
        objects = sum(entry.count - len(entry.missing) for entry in listed)
        self._progress = replace(self._progress, is_listed=True, listed=objects)
        return listed

    def _lanes(self, entries: Sequence[Entry]) -> Iterator[Lane]:
        """Ranges of keys with about the same number of segments in each."""
        number = max(1, min(self._settings.lanes, len(entries) // SEGMENTS_A_LANE))
        after = self._progress.after
        for lane in range(1, number):
            until = entries[len(entries) * lane // number - 1].last_key
            yield Lane(after, until)
            after = until
        yield Lane(after, None)

    def _comparison(self, lane: Lane, entries: Sequence[Entry]) -> Comparison:
        first = entries_after(entries, lane.after)
        end = len(entries) if lane.until is None else entries_after(entries, lane.until)
        return Comparison(
            lane,
            entries[first:end],
            parse=self._storage.rows,
            load=self._load,
            rewriter=Rewriter(
                most=self._settings.page_size,
                new_id=self._new_id,
                strings_at=self._clock() if self._settings.strings else 0.0,
            ),
        )

    def _take(self, lanes: Sequence[Comparison], number: int, page: Page) -> None:
        lane = lanes[number]
        try:
            for found in lane.take(page):
                self._progress = replace(self._progress, after=_covered(lanes))
                if isinstance(found, Unchanged):
                    self._counts.unchanged += 1
                    self._saw(found.entry.count - len(found.entry.missing))
                    lane.replace_last(self._kept_up(found.entry))
                else:
                    self._counts.compared += 1
                    self._saw(found.listed, appeared=len(found.merged.appeared))
                    self._write(found)
        except UnreadableListing as exc:
            raise StorageUnavailable(
                f"{self._bucket.name}: {self._bucket.endpoint_host} sent a listing that makes no "
                f"sense: {exc}"
            ) from exc

    def _saw(self, objects: int, *, appeared: int = 0) -> None:
        self._counts.objects += objects
        self._progress = replace(
            self._progress,
            listed=self._progress.listed + objects,
            appeared=self._progress.appeared + appeared,
        )

    def _time_is_over(self) -> bool:
        return self._clock() >= self._pause_at

    def _load(self, segment: str) -> Columns:
        [columns] = self._states.load(self._bucket, [segment])
        return columns

    def _new_id(self) -> str:
        return f"{self._claim.fence:x}-{self._known.commit:x}-{next(self._new_ids):x}"

    # --- committing

    def _write(self, found: Rewriting) -> None:
        if not found.pieces:
            return
        now = self._clock()
        appeared = states_of(found.merged.columns, found.merged.appeared, now)
        updated = states_of(found.merged.columns, found.merged.updated, now)
        before = states_of(found.known, found.merged.before, now).values()
        changes = self._appeared(appeared, now)
        changes += map(_updated, updated.items(), before)
        if appeared and updated:
            changes.sort(key=attrgetter("key"))
        strings = appeared | updated if self._settings.strings else {}
        self._commit(changes, now, pieces=found.pieces, removed=found.removed, strings=strings)

    def _appeared(self, states: Mapping[str, ObjectState], now: float) -> list[Change]:
        """What there is to say of keys that were never seen before, by us at least."""
        older = self._older_states(list(states))
        says_new = not self._is_baseline
        return [
            Change(event_type, key, current, previous)
            for (key, current), previous in zip(states.items(), older, strict=True)
            if (previous or says_new) and (event_type := classify(previous, current, now=now))
        ]

    @property
    def _is_baseline(self) -> bool:
        return self._known.is_first and self._bucket.first_scan == "baseline"

    def _older_states(self, keys: Sequence[str]) -> Sequence[ObjectState | None]:
        if keys and self._known.is_first and self._bucket.taken_over:
            return self._states.older_states(self._bucket, keys)
        return [None] * len(keys)

    def _commit(
        self,
        changes: Sequence[Change],
        now: float,
        *,
        pieces: Sequence[Piece] = (),
        removed: Sequence[str] = (),
        strings: Mapping[str, ObjectState] = MappingProxyType({}),
        no_strings: Sequence[str] = (),
    ) -> None:
        self._keep_going()
        number = self._number + 1
        wanted = self._announcer.wanted(changes)
        order = events.sequencer(self._claim.fence, number)
        commit = Commit(
            number=number,
            pieces=pieces,
            removed=removed,
            notifications=self._announcer.notifications(wanted, now=now, sequencer=order),
            recent=recent(self._bucket.name, wanted, now=now),
            strings=strings,
            no_strings=no_strings,
            counted=Counter(change.event_type for change in changes),
            progress=self._progress,
        )
        self._states.commit(self._claim, commit)
        self._number = number
        for event_type, times in commit.counted.items():
            self._counts.add(event_type, times)

    def _kept_up(self, entry: Entry) -> Entry:
        """Write, renew or remove an unchanged segment's documented strings, if that is due."""
        now = self._clock()
        wanted = self._settings.strings
        if not (wears_out(entry, now, self._settings.ttl_s) if wanted else entry.strings_at):
            return entry
        columns = self._load(entry.id)
        kept = replace(entry, strings_at=now if wanted else 0.0)
        gone = set(entry.missing)
        rows = [row for row in range(len(columns)) if row not in gone]
        self._commit(
            (),
            now,
            pieces=[Piece(kept, None)],
            strings=states_of(columns, rows, now) if wanted else {},
            no_strings=() if wanted else columns.keys,
        )
        return kept

    # --- deletions, once everything is listed

    def _settle(self, entries: Sequence[Entry]) -> ScanEnd:
        """Make deletions of the missing keys, unless they are so many that somebody must look."""
        held = self._held(entries)
        if held is not None:
            return ScanEnd(complete=True, progress=self._progress, held=held)
        for entry in entries:
            if entry.missing:
                self._delete_missing(entry)
                if self._time_is_over():
                    return ScanEnd(complete=False, progress=self._progress)
        return ScanEnd(complete=True, progress=self._progress)

    def _held(self, entries: Sequence[Entry]) -> Held | None:
        missing = sum(len(entry.missing) for entry in entries)
        known = sum(entry.count for entry in entries) - self._progress.appeared
        settings, since = self._settings, self._known.held_since
        if not missing or self._known.released:
            return None
        if since and 0 < settings.second_look_s <= self._clock() - since:
            return None
        all_gone = self._progress.listed == 0
        most_gone = known >= settings.mass_minimum and missing > known * settings.mass_share
        return Held(missing, known, since or self._clock()) if all_gone or most_gone else None

    def _delete_missing(self, entry: Entry) -> None:
        columns = self._load(entry.id)
        now = self._clock()
        states = states_of(columns, entry.missing, now)
        changes = [Change(EventType.DELETED, key, state, state) for key, state in states.items()]
        left = settled(entry, columns)
        self._commit(
            changes,
            now,
            pieces=[left] if left else [],
            removed=[] if left else [entry.id],
            no_strings=list(states),
        )


def _covered(lanes: Sequence[Comparison]) -> str:
    """Up to which key everything is covered: through the first lane that is not done."""
    for lane in lanes:
        if not lane.done:
            return lane.covered
    return lanes[-1].covered


def states_of(columns: Columns, rows: Sequence[int], now: float) -> dict[str, ObjectState]:
    """The states of some rows by key, in the order of ``rows``."""
    keys, etags = columns.keys, columns.etags
    modified, sizes = columns.last_modified, columns.sizes
    return {keys[n]: ObjectState(etags[n], modified[n] / 1000, sizes[n], now) for n in rows}


def _updated(now: tuple[str, ObjectState], before: ObjectState) -> Change:
    key, current = now
    return Change(EventType.UPDATED, key, current, before)


def wears_out(entry: Entry, now: float, ttl_s: float) -> bool:
    """Whether a segment's strings must be written again, so that they do not expire.

    Between half and three quarters of their life, by segment, so that what was written together
    is not all written again together.
    """
    share = 0.5 + zlib.crc32(entry.id.encode()) / 2**34
    return now - entry.strings_at >= ttl_s * share
