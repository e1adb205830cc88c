"""One scan of one bucket: list, compare, commit; knows only ports and values.

A *pass* covers the whole bucket. A scan goes on with the pass that an earlier one left unfinished,
and may leave it unfinished itself when its time slice is over. Every commit is small, numbered and
fenced, and carries how far the pass has come; so a crash anywhere costs at most two commits' work:
the next one is made ready while one is on its way.

Deletions are decided when everything is listed: until then, keys that the listing does not show
are only marked as missing in the manifest.
"""

from __future__ import annotations

from collections import Counter
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count, repeat
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING

from scanning.core import notification
from scanning.core.changes import announce_cutoff, classify_new, classify_older
from scanning.core.deletions import had_second_look, is_mass
from scanning.core.errors import BucketwatchError, StateDamaged, StorageUnavailable
from scanning.core.listing.body import UnreadableListing
from scanning.core.segments.matcher import Unchanged
from scanning.core.segments.model import Entry, Piece, states_of, strings_need_refresh
from scanning.core.segments.rewriter import Rewriter, Rewriting, drop_missing_rows, entries_after
from scanning.core.types import BucketConfig, Change, EventType, Held, ObjectState
from scanning.ports import Commit, Position, Progress
from scanning.scan.lane import LaneComparer
from scanning.scan.notifier import Notifier, recent_events_entry
from scanning.scan.prefetch import Lane, prefetch_pages

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from scanning.core.listing.body import Columns
    from scanning.core.segments.matcher import Page
    from scanning.core.types import Claim
    from scanning.scan.context import ScanContext

# A lane is worth its thread and connection from this many segments on.
SEGMENTS_A_LANE = 4
# A place that S3 has broken off so many scans at may be the reason: the pass lists from the start.
MOST_STUCK = 5
# So many segments a lane lists before all of them go on to the next stretch.
STRETCH = 25
# An object that is detected was modified long ago; when one was deleted, nobody knows.
_HAPPENED_NOW = frozenset({EventType.CREATED, EventType.UPDATED})


@dataclass(frozen=True, slots=True)
class PassEnd:
    """``progress`` is what to go on with where the pass is not ``complete``.

    ``commit`` is the number of the last commit.
    """

    complete: bool
    progress: Progress
    commit: int
    held: Held | None = None


class BucketPass:
    """A bucket, the right to scan it, and what is needed to do so."""

    def __init__(self, bucket: BucketConfig, claim: Claim, means: ScanContext) -> None:
        self._bucket, self._claim = bucket, claim
        self._storage, self._states = means.storage, means.states
        self._clock, self._keep_going = means.clock, means.keep_going
        self._settings, self._counts = means.settings, means.counts
        self._announcer = Notifier(bucket, means.storage)
        self._new_ids = count()
        self._pause_at = self._clock() + means.settings.slice_s
        self._known = means.states.open(bucket, claim)
        if not self._known.is_whole:
            raise StateDamaged.of(bucket.name)
        # Not the claim's: a scan under the same claim may have committed before this one began.
        self._number = self._known.commit
        self._on_its_way: tuple[Callable[[], None], Counter[EventType]] | None = None
        self._progress = self._known.progress or Progress(began=self._clock())
        if self._known.stuck >= MOST_STUCK and not self._progress.is_listed:
            self._progress = self._progress.begun_anew()
        self._news_after = announce_cutoff(
            bucket,
            is_first=self._known.is_first,
            began=self._progress.began,
            older_scan_at=self._known.older_scan_at,
        )

    def run(self) -> PassEnd:
        """Go on with the bucket's pass until it is complete or the time slice is over."""
        with self._announcer, self._landing():
            entries = self._known.entries
            if not self._progress.is_listed:
                entries = self._list(entries)
                if not self._progress.is_listed:
                    return self._end(complete=False)
            return self._settle(entries)

    # --- listing and comparing

    def _list(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """List what the pass has not covered yet, and bring the segments in step with it."""
        began_after = self._progress.after
        start = entries_after(entries, began_after)
        listed = list(entries[:start])
        for stretch, end in self._stretches(entries[start:]):
            lanes = list(self._lanes(stretch, end))
            comparisons = [self._comparison(lane, stretch) for lane in lanes]
            with closing(self._listing(lanes, comparisons)) as pages:
                for _ in pages:
                    # One that has covered nothing yet would pause at the same place for ever.
                    if self._time_is_over() and self._progress.after != began_after:
                        return ()
            listed += (entry for lane in comparisons for entry in lane.entries)
        # What was added up on the way counts twice what a lane listed ahead of a break.
        objects = sum(entry.listed for entry in listed)
        self._progress = replace(self._progress, is_listed=True, listed=objects)
        return listed

    def _listing(
        self, lanes: Sequence[Lane], comparisons: Sequence[LaneComparer]
    ) -> Generator[None, None, None]:
        """List and compare a stretch; after every page but its last, there may be a pause."""
        settings = self._settings
        with prefetch_pages(
            self._storage, lanes, page_size=settings.page_size, slow_s=settings.slow_page_s
        ) as pages:
            for number, page in pages:
                self._keep_going()
                self._counts.pages += 1
                self._take(comparisons, number, page)
                if not all(lane.done for lane in comparisons):
                    yield

    def _stretches(self, entries: Sequence[Entry]) -> Iterator[tuple[Sequence[Entry], str | None]]:
        """What lanes list one after the other, and up to which key (None: to the end).

        What all lanes but the first have listed is lost in a pause: they shall not be far ahead.
        """
        at, lanes = 0, self._settings.lanes
        most = lanes * STRETCH if lanes > 1 else len(entries)
        while len(entries) - at > most:
            yield entries[at : at + most], entries[at + most - 1].last_key
            at += most
        yield entries[at:], None

    def _lanes(self, entries: Sequence[Entry], end: str | None) -> Iterator[Lane]:
        """Ranges of keys with about the same number of segments in each."""
        number = max(1, min(self._settings.lanes, len(entries) // SEGMENTS_A_LANE))
        after = self._progress.after
        for lane in range(1, number):
            until = entries[len(entries) * lane // number - 1].last_key
            yield Lane(after, until)
            after = until
        yield Lane(after, end)

    def _comparison(self, lane: Lane, entries: Sequence[Entry]) -> LaneComparer:
        first = entries_after(entries, lane.after)
        end = len(entries) if lane.until is None else entries_after(entries, lane.until)
        return LaneComparer(
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

    def _take(self, lanes: Sequence[LaneComparer], number: int, page: Page) -> None:
        lane = lanes[number]
        try:
            for found in lane.take(page):
                self._progress = replace(self._progress, after=_covered_up_to(lanes))
                if isinstance(found, Unchanged):
                    self._counts.unchanged += 1
                    self._saw(found.entry.listed)
                else:
                    self._counts.compared += 1
                    self._saw(found.listed, appeared=len(found.merged.appeared))
                    self._write(found)
                lane.replace_last(self._kept_up(lane.entries[-1]))
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
        self._land()
        at = Position(self._claim.fence, self._number)
        [columns] = self._states.load(self._bucket, [segment], at)
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
        changes += map(_updated_change, updated.items(), before)
        if appeared and updated:
            changes.sort(key=attrgetter("key"))
        strings = appeared | updated if self._settings.strings else {}
        self._commit(changes, now, pieces=found.pieces, removed=found.removed, strings=strings)

    def _appeared(self, states: Mapping[str, ObjectState], now: float) -> list[Change]:
        """What there is to say of keys that were never seen before, by us at least."""
        announce_after = self._news_after
        if self._known.is_first and self._bucket.taken_over:
            older = self._states.older_states(self._bucket, list(states))
            return [
                Change(event_type, key, current, previous)
                for (key, current), previous in zip(states.items(), older, strict=True)
                if (previous or current.last_modified > announce_after)
                and (event_type := classify_older(previous, current, now=now))
            ]
        news = {key: state for key, state in states.items() if state.last_modified > announce_after}
        kinds = [classify_new(state, now=now) for state in news.values()]
        return list(map(Change, kinds, news, news.values(), repeat(None)))

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
        counted = _count_by_type(changes)
        wanted = self._announcer.wanted(changes)
        order = notification.sequencer(self._claim.fence, number)
        commit = Commit(
            number=number,
            pieces=pieces,
            removed=removed,
            notifications=self._announcer.notifications(wanted, now=now, sequencer=order),
            recent=recent_events_entry(self._bucket.name, wanted, now=now),
            strings=strings,
            no_strings=no_strings,
            counted=counted,
            announced=counted if len(wanted) == len(changes) else _count_by_type(wanted),
            lags_s=self._lags_s(wanted, now),
            progress=self._progress,
            wants=self._bucket.wants if changes else "",
        )
        self._land()
        self._on_its_way = self._states.begin(self._claim, commit), counted
        self._number = number

    def _land(self) -> None:
        """Wait until what was committed is."""
        if self._on_its_way is None:
            return
        (answer, counted), self._on_its_way = self._on_its_way, None
        answer()
        for event_type, times in counted.items():
            self._counts.add(event_type, times)

    @contextmanager
    def _landing(self) -> Iterator[None]:
        """Whatever ends the scan, no commit is left on its way."""
        try:
            yield
        except BaseException:
            with suppress(BucketwatchError):  # what came first says more
                self._land()
            raise
        self._land()

    def _lags_s(self, announced: Sequence[Change], now: float) -> list[float]:
        """How long it took to see what was created or updated while the bucket was watched."""
        if self._known.is_first:
            return []
        return [now - c.current.last_modified for c in announced if c.event_type in _HAPPENED_NOW]

    def _kept_up(self, entry: Entry) -> Entry:
        """Write, renew or remove a segment's documented strings, if that is due.

        Those of missing rows too: they may be back before they are deletions. And of a segment
        that was written just now too: it may be at every scan, for a few of its rows.
        """
        now = self._clock()
        wanted = self._settings.strings
        if not (
            strings_need_refresh(entry, now, self._settings.ttl_s) if wanted else entry.strings_at
        ):
            return entry
        columns = self._load(entry.id)
        kept = replace(entry, strings_at=now if wanted else 0.0)
        self._commit(
            (),
            now,
            pieces=[Piece(kept, None)],
            strings=states_of(columns, range(len(columns)), now) if wanted else {},
            no_strings=() if wanted else columns.keys,
        )
        return kept

    # --- deletions, once everything is listed

    def _settle(self, entries: Sequence[Entry]) -> PassEnd:
        """Make deletions of the missing keys, unless they are so many that somebody must look."""
        held = self._held(entries)
        if held is not None:
            return self._end(complete=True, held=held)
        for entry in entries:
            if entry.missing:
                self._delete_missing(entry)
                if self._time_is_over():
                    return self._end(complete=False)
        return self._end(complete=True)

    def _end(self, *, complete: bool, held: Held | None = None) -> PassEnd:
        return PassEnd(complete, self._progress, self._number, held)

    def _held(self, entries: Sequence[Entry]) -> Held | None:
        missing = sum(len(entry.missing) for entry in entries)
        known = sum(entry.count for entry in entries) - self._progress.appeared
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

    def _delete_missing(self, entry: Entry) -> None:
        columns = self._load(entry.id)
        now = self._clock()
        states = states_of(columns, entry.missing, now)
        changes = [Change(EventType.DELETED, key, state, state) for key, state in states.items()]
        left = drop_missing_rows(entry, columns)
        self._commit(
            changes,
            now,
            pieces=[left] if left else [],
            removed=[] if left else [entry.id],
            no_strings=list(states),
        )


def _covered_up_to(lanes: Sequence[LaneComparer]) -> str:
    """Up to which key everything is covered: through the first lane that is not done."""
    for lane in lanes:
        if not lane.done:
            return lane.covered
    return lanes[-1].covered


def _count_by_type(changes: Sequence[Change]) -> Counter[EventType]:
    return Counter(change.event_type for change in changes)


def _updated_change(now: tuple[str, ObjectState], before: ObjectState) -> Change:
    key, current = now
    return Change(EventType.UPDATED, key, current, before)
