"""What must hold of scans, whatever the bucket, the pages, the lanes and the crashes."""

import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count, zip_longest
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanning.core.changes import Version
from scanning.core.deletions import HeadAnswer
from scanning.core.types import EventType
from scanning.scan import lane
from scanning.scan.context import ScanSettings
from tests.support.fakes import Bucket, Crash, FakePage, FakeStorage, Site, crash_if

OLD, NEW = 1_600_000_000_000, 1_700_000_000_000

Said = tuple[str, str, str | None, str]
"""Event type, key, ETag before, ETag."""

# Lanes really run at once, although the bucket in memory answers at once.
EVERY_PAGE_IS_SLOW = -1.0
TEXTS = st.text("ab/ %+&<é\n\U0001f600", min_size=1, max_size=3)
KEYS = TEXTS | TEXTS.map(quote)  # a key may be how another one is written
OBJECTS = st.tuples(st.sampled_from(["e1", "e2", ""]), st.sampled_from([OLD, NEW]), st.just(1))
BUCKETS = st.dictionaries(KEYS, OBJECTS, max_size=40)


@st.composite
def histories(draw: st.DrawFn) -> list[Bucket]:
    """Buckets one after the other: each another one, or the one before with other times."""
    found = [draw(BUCKETS)]
    for _ in range(draw(st.integers(0, 4))):
        if draw(st.booleans()):
            found.append(draw(BUCKETS))
            continue
        stays = draw(st.sets(st.sampled_from(sorted(found[-1])), max_size=9)) if found[-1] else ()
        found.append(
            {
                key: (etag, time if key in stays else OLD + NEW - time, size)
                for key, (etag, time, size) in found[-1].items()
            }
        )
    return found


HISTORIES = histories()
SHORT = st.lists(st.integers(0, 3), max_size=20)
# Deletions are held where so many objects were known, and where none ever shall be.
HELD_FROM, NEVER_HELD = 6, 10**9
HOLDS = st.sampled_from([HELD_FROM, NEVER_HELD])


@contextmanager
def short_lanes() -> Iterator[None]:
    """A lane is worth a segment, as in buckets of many thousands of them."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lane, "SEGMENTS_A_LANE", 1)
        yield


def everything(
    page_size: int,
    lanes: int = 1,
    slow_page_s: float = EVERY_PAGE_IS_SLOW,
    mass_minimum: int = HELD_FROM,
) -> Site:
    """A site that announces deletions too, and holds those of most of a bucket."""
    settings = ScanSettings(
        page_size=page_size, lanes=lanes, mass_minimum=mass_minimum, slow_page_s=slow_page_s
    )
    site = Site(settings=settings)
    return site.wanting(events=frozenset(EventType))


@dataclass
class Plain:
    """The oracle: dictionaries that are compared, and what concerns most of a bucket, held.

    ``moved`` are the states that were listed of keys whose times moved, while those are held.
    """

    held_from: int = HELD_FROM
    known: Bucket = field(default_factory=dict)
    missing: int = 0
    moved: Bucket = field(default_factory=dict)

    def take_times(self) -> None:
        """Somebody chose to hear nothing of the times that are held."""
        self.known, self.moved = self.known | self.moved, {}

    def listing(self, bucket: Bucket, *, released_moved: int = 0) -> set[Said]:
        """What has to be said of this listing."""
        before, gone = self.known, self.known.keys() - bucket.keys()
        is_mass = len(before) >= self.held_from and len(gone) > len(before) / 2
        self._hold_times(bucket, released_moved)
        bucket = bucket | {key: before[key] for key in self.moved}
        # A hold ends when nothing is missing any more: what came back does not confirm the rest.
        if gone and (self.missing or is_mass):
            self.missing = len(gone)
            self.known, gone = before | bucket, set()
        else:
            self.missing, self.known = 0, bucket
        appeared = {
            ("created" if bucket[key][1] == NEW else "detected", key, None, bucket[key][0])
            for key in bucket.keys() - before.keys()
        }
        updated = {
            ("updated", key, before[key][0], bucket[key][0])
            for key in bucket.keys() & before.keys()
            if bucket[key][:2] != before[key][:2]
        }
        deleted = {("deleted", key, before[key][0], before[key][0]) for key in gone}
        return appeared | updated | deleted

    def _hold_times(self, bucket: Bucket, released: int) -> None:
        known = self.known
        moved = {
            key: bucket[key]
            for key in bucket.keys() & known.keys()
            if bucket[key] != known[key] and bucket[key][::2] == known[key][::2]
        }
        others, all_others = len(moved) - released, len(known) - released
        is_storm = all_others >= self.held_from and others > all_others / 2
        is_held = others > 0 and ((self.moved and not released) or is_storm)
        self.moved = moved if is_held else {}


def said(queue: list[dict[str, Any]]) -> list[Said]:
    return [
        (event["event_type"], event["key"], event.get("previous", {}).get("etag"), event["etag"])
        for event in queue
    ]


@given(HISTORIES, st.integers(1, 7), st.integers(1, 4), SHORT, HOLDS)
def test_events_are_those_of_comparing_plain_dictionaries(
    history, page_size, lanes, short, held_from
):
    site, plain = everything(page_size, lanes, mass_minimum=held_from), Plain(held_from)
    for bucket in history:
        storage = FakeStorage(bucket, short)
        end = site.scan(storage)
        events = said(site.states.queue)
        site.states.queue.clear()
        assert len(events) == len(set(events))
        assert set(events) == plain.listing(bucket)
        assert site.states.objects() == plain.known
        assert (end.held.missing if end.held else 0) == plain.missing
        assert (end.held_times.moved if end.held_times else 0) == len(plain.moved)


CHOICES = st.lists(st.sampled_from(["wait", "announce", "take"]), max_size=5)


@given(HISTORIES, CHOICES, st.integers(1, 7), st.integers(1, 3), st.lists(st.booleans()))
def test_holds_of_moved_times_end_as_somebody_chose(history, choices, page_size, lanes, crashes):
    site, plain = everything(page_size, lanes), Plain()
    crashing = iter(crashes)
    site.states.after_commit = lambda: crash_if(next(crashing, False))
    for bucket, choice in zip_longest(history, choices[: len(history)]):
        released = 0
        if plain.moved and choice == "announce":
            released = site.states.released_moved = len(plain.moved)
        if plain.moved and choice == "take":
            site.states.takes_times = True
            plain.take_times()
        site.scan_to_the_end(FakeStorage(bucket))
        events = said(site.states.queue)
        site.states.queue.clear()
        expected = plain.listing(bucket, released_moved=released)
        assert sorted(events, key=str) == sorted(expected, key=str)
        assert site.states.objects() == plain.known
        assert {key: state[:3] for key, state in site.states.strings.items()} == {
            key: (etag, time / 1000, size) for key, (etag, time, size) in plain.known.items()
        }


SPARSE = st.lists(
    st.dictionaries(st.integers(0, 60), st.sampled_from(["e1", "e2"]), max_size=60)
    | st.integers(0, 60).map(lambda count: dict.fromkeys(range(count), "e1")),
    min_size=2,
    max_size=6,
)


@given(SPARSE, st.sampled_from([8, 12, 20]), st.integers(1, 3), st.lists(st.booleans()), HOLDS)
def test_segments_that_shrink_and_join_lose_nothing(history, page_size, lanes, crashes, held_from):
    """Larger segments: those of a few rows have nothing to join. Marks stay through crashes."""
    site = everything(page_size, lanes, mass_minimum=held_from)
    crashing = iter(crashes)
    site.states.after_commit = lambda: crash_if(next(crashing, False))
    plain = Plain(held_from)
    for numbers in history:
        bucket: Bucket = {f"{number:02d}": (etag, OLD, 1) for number, etag in numbers.items()}
        site.scan_to_the_end(FakeStorage(bucket))
        assert sorted(said(site.states.queue), key=str) == sorted(plain.listing(bucket), key=str)
        site.states.queue.clear()
        assert site.states.objects() == plain.known


@given(HISTORIES, st.integers(1, 5), st.integers(1, 3), HOLDS, st.data())
def test_a_crash_at_any_commit_neither_loses_nor_repeats(
    history, page_size, lanes, held_from, data
):
    site, plain = everything(page_size, lanes, mass_minimum=held_from), Plain(held_from)
    for bucket in history:
        crashes = iter(data.draw(st.lists(st.sampled_from(["", "before", "after"]), max_size=12)))
        moment = [""]

        def before(crashes: Iterator[str] = crashes, moment: list[str] = moment) -> None:
            moment[0] = next(crashes, "")
            if moment[0] == "before":
                raise Crash

        def after(moment: list[str] = moment) -> None:
            if moment[0] == "after":
                raise Crash

        site.states.before_commit, site.states.after_commit = before, after
        site.scan_to_the_end(FakeStorage(bucket))
        events = said(site.states.queue)
        ids = [event["event_id"] for event in site.states.queue]
        site.states.queue.clear()
        assert len(ids) == len(set(ids))
        assert sorted(events, key=str) == sorted(plain.listing(bucket), key=str)


SIZES = st.integers(0, 1000)


@given(
    st.lists(st.dictionaries(KEYS, SIZES, max_size=40), min_size=1, max_size=5),
    st.integers(1, 7),
    st.integers(1, 3),
    HOLDS,
    st.lists(st.booleans()),
)
def test_the_running_sum_moves_as_the_listing_does(history, page_size, lanes, held_from, crashes):
    """Whatever is held, and wherever a scan crashes."""
    site = everything(page_size, lanes, mass_minimum=held_from)
    crashing = iter(crashes)
    site.states.after_commit = lambda: crash_if(next(crashing, False))
    for sizes in history:
        storage = FakeStorage({key: (f"e{size}", OLD, size) for key, size in sizes.items()})
        site.scan_to_the_end(storage)
        assert site.states.listed == storage.totals()


@given(HISTORIES, st.integers(1, 7), st.integers(1, 3))
def test_an_unchanged_bucket_costs_no_parsing_no_reading_and_no_writing(history, page_size, lanes):
    site = everything(page_size, lanes)
    for bucket in history:
        site.scan(FakeStorage(bucket))
    # Rows that were joined without their bytes at hand get their digest in one more scan.
    site.scan(FakeStorage(history[-1]))
    commits, loads = len(site.states.commits), site.states.loads
    storage = FakeStorage(history[-1])
    site.scan(storage)
    assert len(site.states.commits) == commits
    if site.states.held_since is None:  # what is marked has no digest
        assert site.states.loads == loads
        assert storage.parsed == 0


@given(HISTORIES, st.integers(1, 7), st.integers(1, 3))
def test_segments_stay_sorted_disjoint_and_within_their_size(history, page_size, lanes):
    site = everything(page_size, lanes)
    for bucket in history:
        site.scan(FakeStorage(bucket))
        after = ""
        for entry in site.states.open(site.bucket).entries:
            columns = site.states.segments[entry.id]
            assert columns.keys == sorted(set(columns.keys))
            assert after < columns.keys[0]
            assert (columns.keys[-1], len(columns)) == (entry.last_key, entry.count)
            assert 1 <= entry.count <= page_size
            after = entry.last_key
        assert site.states.manifest.keys() == site.states.segments.keys()


@given(HISTORIES, st.integers(1, 5))
def test_lanes_find_what_one_listing_finds(history, page_size):
    one, at_once = everything(page_size), everything(page_size, lanes=4)
    one_by_one = everything(page_size, lanes=4, slow_page_s=60.0)
    with short_lanes():
        for bucket in history:
            for site in (one, at_once, one_by_one):
                site.scan(FakeStorage(bucket))
    expected = sorted(said(one.states.queue), key=str)
    assert sorted(said(at_once.states.queue), key=str) == expected
    assert sorted(said(one_by_one.states.queue), key=str) == expected


@given(HISTORIES, st.integers(1, 5), st.integers(1, 3))
def test_the_events_of_one_key_are_a_chain_and_sort_by_sequencer(history, page_size, lanes):
    site = everything(page_size, lanes)
    for bucket in history:
        site.scan(FakeStorage(bucket))
    state: dict[str, str | None] = {}
    sequence: dict[str, str] = {}
    for event in site.states.queue:
        key = event["key"]
        assert event.get("previous", {}).get("etag") == state.get(key)
        assert event["sequencer"] > sequence.get(key, "")
        state[key] = None if event["event_type"] == "deleted" else event["etag"]
        sequence[key] = event["sequencer"]


@given(BUCKETS, BUCKETS, st.integers(1, 5), st.integers(1, 3))
@settings(max_examples=50)
def test_a_pass_in_slices_is_the_same_pass(first, second, page_size, lanes):
    site = everything(page_size, lanes)
    site.settings = replace(site.settings, slice_s=0.0)  # pauses after every page and deletion
    with short_lanes():
        for bucket in (first, second):
            site.scan_to_the_end(FakeStorage(bucket))
    events = set(said(site.states.queue))
    plain = Plain()
    assert events == plain.listing(first) | plain.listing(second)


class Moving(FakeStorage):
    """A bucket that changes with each page: of each step, keys that are written or deleted."""

    def __init__(self, steps: Sequence[Sequence[tuple[str, bool]]], short: Sequence[int]) -> None:
        super().__init__({}, short)
        self._steps, self._versions = iter(steps), count(1)
        self._lock = threading.Lock()

    def page(self, start_after: str, max_keys: int) -> FakePage:
        with self._lock:
            page = super().page(start_after, max_keys)
            for key, is_written in next(self._steps, ()):
                if is_written:
                    version = next(self._versions)
                    self.objects[key] = (f"v{version}", OLD + version, 1)
                else:
                    self.objects.pop(key, None)
            return page

    @property
    def is_at_rest(self) -> bool:
        return not any(self._steps)


STEPS = st.lists(
    st.lists(st.tuples(st.integers(10, 40).map(str), st.booleans()), min_size=1, max_size=4),
    max_size=60,
)


@given(STEPS, st.sampled_from([2, 4, 8]), st.integers(1, 3), st.sampled_from([0.0, 1e9]), SHORT)
def test_a_bucket_that_changes_while_it_is_listed_is_told_of_without_gaps(
    steps, page_size, lanes, slice_s, short
):
    site = everything(page_size, lanes, mass_minimum=NEVER_HELD)
    site.settings = replace(site.settings, slice_s=slice_s)
    storage = Moving([[("last", True)], *steps], short)
    with short_lanes():
        for _ in range(len(steps) + 3):  # each pass takes a step at least
            site.scan_to_the_end(storage)
    assert storage.is_at_rest
    told: dict[str, str] = {}
    for event in site.states.queue:
        assert event.get("previous", {}).get("etag") == told.get(event["key"])
        if event["event_type"] == "deleted":
            del told[event["key"]]
        else:
            told[event["key"]] = event["etag"]
    assert told == {key: etag for key, (etag, _, _) in storage.objects.items()}
    assert len({event["event_id"] for event in site.states.queue}) == len(site.states.queue)


class Lying(FakeStorage):
    """Leaves ``hidden`` keys out of its listings; HEAD says what is there, or is refused."""

    def __init__(
        self, objects: Bucket, hidden: Collection[str], short: Sequence[int], *, refuses: bool
    ) -> None:
        listed = {key: row for key, row in objects.items() if key not in hidden}
        super().__init__(listed, short)
        self._truth, self._refuses = objects, refuses

    def look_up(self, key: str) -> Version | HeadAnswer:
        return HeadAnswer.REFUSED if self._refuses else FakeStorage(self._truth).look_up(key)


# What each listing leaves out, of the keys that are there.
HIDING = st.lists(st.lists(st.booleans(), max_size=40), max_size=5)


@given(
    HISTORIES, HIDING, st.integers(1, 7), st.integers(1, 3), SHORT, HOLDS, st.lists(st.booleans())
)
def test_whatever_listings_leave_out_nothing_that_is_there_is_deleted(
    history, hiding, page_size, lanes, short, held_from, crashes
):
    site = everything(page_size, lanes, mass_minimum=held_from)
    crashing = iter(crashes)
    site.states.after_commit = lambda: crash_if(next(crashing, False))
    for bucket, hides in zip_longest(history, hiding):
        if bucket is None:
            break
        hidden = {
            key for key, hides_it in zip(sorted(bucket), hides or (), strict=False) if hides_it
        }
        site.scan_to_the_end(Lying(bucket, hidden, short, refuses=False))
        deleted = [e["key"] for e in site.states.queue if e["event_type"] == "deleted"]
        assert not bucket.keys() & deleted
        site.states.queue.clear()
    site.settings = replace(site.settings, mass_minimum=NEVER_HELD)
    site.states.held_since = site.states.held_moved_since = None
    site.scan_to_the_end(FakeStorage(history[-1]))
    assert site.states.objects() == history[-1]


@given(HISTORIES, HIDING, st.integers(1, 7), st.integers(1, 3), SHORT)
def test_what_no_two_listings_leave_out_is_not_deleted_where_head_is_refused(
    history, hiding, page_size, lanes, short
):
    site = everything(page_size, lanes, mass_minimum=NEVER_HELD)
    hidden: set[str] = set()
    before: set[str] = set()  # what is gone in one listing and hidden in the next was deleted
    for bucket, hides in zip_longest(history, hiding):
        if bucket is None:
            break
        keys = sorted(bucket.keys() - hidden)
        hidden = {key for key, hides_it in zip(keys, hides or (), strict=False) if hides_it}
        site.scan_to_the_end(Lying(bucket, hidden, short, refuses=True))
        deleted = [e["key"] for e in site.states.queue if e["event_type"] == "deleted"]
        assert not bucket.keys() & before & set(deleted)
        before = set(bucket)
        site.states.queue.clear()
        site.now += site.settings.interval_s
    for _ in range(2):
        site.scan_to_the_end(Lying(history[-1], (), short, refuses=True))
        site.now += site.settings.interval_s
    assert site.states.objects() == history[-1]


@pytest.mark.parametrize("lanes", [1, 4])
def test_the_scan_of_an_unchanged_bucket_asks_for_full_pages_only(lanes):
    bucket = {f"key-{number:05d}": ("e", OLD, 1) for number in range(1000)}
    site = everything(page_size=50, lanes=lanes)
    site.scan(FakeStorage(bucket))
    storage = FakeStorage(bucket)
    site.scan(storage)
    assert storage.requests <= 1000 // 50 + lanes


def test_a_fragmented_manifest_costs_no_list_call_and_heals():
    full = {f"key-{number:05d}": ("e", OLD, 1) for number in range(1000)}
    sparse = dict(list(full.items())[::10])
    site = everything(page_size=50, mass_minimum=NEVER_HELD)
    site.scan(FakeStorage(full))
    storage = FakeStorage(sparse)
    site.scan(storage)  # marks and deletes: 20 segments of 5 rows
    assert storage.requests == 2
    bigger = sparse | {key + "x": ("e", OLD, 1) for key in sparse}
    storage = FakeStorage(bigger)
    site.scan(storage)
    assert storage.requests == 4
    assert len(site.states.manifest) <= 3 * len(bigger) // 50


def test_inserts_in_front_cost_until_the_next_boundary():
    bucket = {f"key-{number:05d}": ("e", OLD, 1) for number in range(1000)}
    site = everything(page_size=50)
    site.scan(FakeStorage(bucket))
    site.states.loads = 0
    storage = FakeStorage({"a-new-one": ("e", OLD, 1)} | bucket)
    site.scan(storage)
    assert site.states.loads == 1
    assert site.counts.compared <= 2
    assert storage.requests == 21
