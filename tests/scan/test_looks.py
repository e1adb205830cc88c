"""Looks: what they list, when they stop, what they announce, and what they leave to passes."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanning.core.deletions import Confirm, HeadAnswer
from scanning.core.looks import FEW, LEAST_HOT, choose_ranges
from scanning.core.scan_warnings import ScanWarnings, WarningKind
from scanning.core.segments.model import Entry
from scanning.core.totals import Totals
from scanning.core.types import MOST_HINTED_KEYS, LookRequest
from scanning.scan.bucket_pass import PassEnd
from scanning.scan.look import BucketLook
from tests.support.fakes import Bucket, Crash, FakeStorage, Site, crash_if
from tests.support.sites import NEW, OLD, announced, numbered, scanned, site, without

EVERYTHING_IS_TOLD: dict[str, Any] = {"asks_totals": True}


def watched(bucket: Bucket, **settings: Any) -> Site:
    """A site that had a pass over a bucket, a while ago."""
    here = site(**{"page_size": 10} | EVERYTHING_IS_TOLD | settings)
    scanned(here, bucket)
    announced(here)
    here.now += 3600
    return here


class Unasked(FakeStorage):
    """Tells no totals."""

    def totals(self) -> Totals | None:
        return None


# --- where a look looks


def entries(*last_keys: str, hot: Iterable[str] = (), count: int = 10) -> list[Entry]:
    return [
        Entry(key, key, count, changed_at=100 + place if key in hot else 0)
        for place, key in enumerate(last_keys)
    ]


def ranges(known: Sequence[Entry], *keys: str, hot: int = 3, pass_after: str = "") -> list[str]:
    chosen = choose_ranges(known, keys, most_hot=hot, page_size=10, pass_after=pass_after)
    return [
        f"{'!' if one.is_hinted else ''}{one.after}-{one.until or ''}"
        f" {''.join(entry.id for entry in one.entries)}"
        for one in chosen
    ]


KNOWN = entries("b", "d", "f", "h")

RANGES = {
    "the tail alone": (ranges(KNOWN), ["h- "]),
    "an empty bucket": (ranges([]), ["- "]),
    "a last segment with room": (ranges(entries("b", "d", count=7)), ["b- d"]),
    "a hinted segment": (ranges(KNOWN, "c"), ["!b-d d", "h- "]),
    "a hinted last key": (ranges(KNOWN, "d"), ["!b-d d", "h- "]),
    "a hint before all keys": (ranges(KNOWN, "a"), ["!-b b", "h- "]),
    "a hint behind all keys": (ranges(KNOWN, "i"), ["!h- "]),
    "hinted neighbours": (ranges(KNOWN, "c", "e"), ["!b-f df", "h- "]),
    "hints apart": (ranges(KNOWN, "e", "a"), ["!-b b", "!d-f f", "h- "]),
    "the same key twice": (ranges(KNOWN, "c", "c"), ["!b-d d", "h- "]),
    "a hot segment": (ranges(entries("b", "d", "f", hot="b")), ["f- ", "-b b"]),
    "the hottest first": (ranges(entries("b", "d", "f", "h", hot="bf")), ["h- ", "d-f f", "-b b"]),
    "the hottest alone": (ranges(entries("b", "d", "f", "h", hot="bf"), hot=1), ["h- ", "d-f f"]),
    "hot neighbours": (ranges(entries("b", "d", "f", "h", hot="bd")), ["h- ", "-d bd"]),
    "a hot last segment": (ranges(entries("b", "d", hot="d")), ["d- ", "b-d d"]),
    "hot beside hinted": (ranges(entries("b", "d", "f", hot="d"), "a"), ["!-b b", "f- ", "b-d d"]),
    "hinted beside the tail": (ranges(KNOWN, "g", "i"), ["!f- h"]),
    "a pass between two": (ranges(KNOWN, "c", "e", pass_after="d"), ["!b-d d", "!d-f f", "h- "]),
    "a pass behind what was": (ranges(KNOWN, "e", pass_after="e"), ["!e-f f", "h- "]),
    "a pass at the end": (ranges(entries("b", "d", count=2), pass_after="d"), ["b-d d", "d- "]),
    "a pass beyond all keys": (ranges(KNOWN, pass_after="z"), ["z- "]),
}


@pytest.mark.parametrize(("chosen", "expected"), RANGES.values(), ids=RANGES)
def test_a_look_goes_where_hints_the_tail_and_late_changes_are(chosen, expected):
    assert chosen == expected


def test_a_segment_is_hot_when_a_listing_showed_that_its_rows_changed():
    here = watched(numbered(50))
    bucket = without(numbered(50), "key-00012") | {"key-00034": ("other", OLD, 1)}
    scanned(here, bucket)
    now = int(here.now)
    known = here.states.open(here.bucket).entries
    assert [entry.changed_at == now for entry in known] == [False, True, False, True, False]
    here.now += 60
    scanned(here, bucket)
    assert [entry.changed_at for entry in here.states.open(here.bucket).entries] == [
        entry.changed_at for entry in known
    ]


def test_after_a_first_scan_what_was_written_last_is_hottest():
    bucket = numbered(30) | {"key-00015": ("e", NEW, 1)}
    here = watched(bucket)
    known = here.states.open(here.bucket).entries
    assert [entry.changed_at for entry in known] == [OLD // 1000, NEW // 1000, OLD // 1000]


# --- how much a look lists


def test_appended_keys_cost_a_page_however_large_the_bucket_is():
    here = watched(numbered(200))
    storage = FakeStorage(numbered(203))
    end = here.look(storage)
    assert announced(here) == [("detected", f"key-{n:05d}") for n in (200, 201, 202)]
    assert (storage.requests, end.pass_in_s) == (1, None)


def test_what_was_written_last_is_not_listed_with_the_tail():
    """Names with dates: the last segments are the hottest."""
    bucket = {key: ("e", OLD + place, 1) for place, key in enumerate(numbered(200))}
    here = watched(bucket)
    storage = FakeStorage(bucket | {"key-00200": ("e", NEW, 1)})
    here.look(storage)
    assert (announced(here), storage.requests) == ([("created", "key-00200")], 1)


def test_what_is_appended_little_by_little_fills_segments():
    here = watched(numbered(95))
    for size in range(96, 150):
        here.look(FakeStorage(numbered(size)))
    assert len(here.states.manifest) <= 150 / 10 * 4 / 3
    assert here.states.objects() == numbered(149)


def test_a_look_stops_as_soon_as_the_totals_are_explained():
    here = watched(numbered(200))
    bucket = numbered(200)
    for hot in ("key-00015", "key-00055", "key-00135"):
        here.now += 60
        bucket |= {hot: ("e2", OLD, 1)}
        scanned(here, bucket)
    announced(here)
    storage = FakeStorage(bucket | {"key-00135x": ("e", OLD, 1)})
    here.look(storage)
    assert announced(here) == [("detected", "key-00135x")]
    assert storage.requests <= 3


def test_explained_totals_need_no_look_but_at_hinted_keys():
    here = watched(numbered(200))
    storage = FakeStorage(numbered(200) | {"key-00055": ("e2", OLD, 1)})
    here.look(storage)
    assert (announced(here), storage.requests) == ([], 0)
    here.look(storage, "key-00055")
    assert (announced(here), storage.requests) == ([("updated", "key-00055")], 1)


def test_without_totals_a_look_lists_the_tail_and_a_few_hot_segments():
    here = watched(numbered(200))
    changed = numbered(200) | {f"key-{n:05d}": ("e2", OLD, 1) for n in range(5, 200, 20)}
    scanned(here, changed)
    announced(here)
    storage = Unasked(changed | {"key-00005": ("e3", OLD, 1)})
    end = here.look(storage)
    assert storage.requests <= LEAST_HOT + 1
    assert end.pass_in_s is None


def test_hinted_keys_are_looked_at_wherever_they_are():
    here = watched(numbered(200))
    bucket = without(numbered(200), "key-00150") | {
        "a": ("e", OLD, 1),
        "key-00055": ("e2", OLD, 1),
        "z": ("e", OLD, 1),
    }
    storage = Unasked(bucket)
    here.look(storage, "z", "key-00150", "a", "key-00055")
    assert sorted(announced(here)) == [
        ("deleted", "key-00150"),
        ("detected", "a"),
        ("detected", "z"),
        ("updated", "key-00055"),
    ]
    assert storage.requests <= 6


def test_hints_that_say_nothing_true_change_nothing():
    here = watched(numbered(50))
    before = here.states.objects()
    here.look(FakeStorage(numbered(50)), "", "nowhere", "key-00012", "\U0001f600")
    assert (announced(here), here.states.objects()) == ([], before)


# --- when a pass has to follow


def test_what_a_look_cannot_explain_is_for_a_pass_that_begins_a_gap_after_the_last():
    here = watched(numbered(200), look_pass_gap_s=7200.0)
    unseen = numbered(200) | {"key-00055x": ("e", OLD, 1)}
    assert here.look(FakeStorage(unseen)).pass_in_s == pytest.approx(3600)
    here.now += 7200
    assert here.look(FakeStorage(unseen)).pass_in_s == 0
    scanned(here, unseen)
    assert announced(here) == [("detected", "key-00055x")]
    assert here.look(FakeStorage(unseen)).pass_in_s is None


def test_what_never_is_listed_shifts_the_totals_until_the_next_pass():
    """Old versions, and parts of unfinished uploads."""

    class Versioned(FakeStorage):
        def totals(self) -> Totals | None:
            return Totals(1_000_000, 7)

    here = watched(numbered(50))
    assert here.look(Versioned(numbered(50))).pass_in_s == 0
    here.scan_to_the_end(Versioned(numbered(50)))
    here.now += 3600
    assert here.look(Versioned(numbered(50))).pass_in_s is None


class Restless(FakeStorage):
    """Another key appears before each answer about the totals."""

    def totals(self) -> Totals | None:
        self.objects[f"a{len(self.objects)}"] = ("e", OLD, 1)
        return super().totals()


def test_totals_that_move_during_a_pass_explain_nothing():
    here = site(**EVERYTHING_IS_TOLD)
    here.scan_to_the_end(Restless(numbered(50)))
    assert here.states.totals_apart is None
    here.now += 3600
    bucket = here.states.objects() | {"z": ("e", OLD, 1)}
    assert here.look(FakeStorage(bucket)).pass_in_s == 0


def test_a_pass_covers_no_more_than_was_there_when_it_began():
    """What comes meanwhile may be behind the listing, and a probe has to see it."""
    here = site(**EVERYTHING_IS_TOLD)
    end = here.scan(Restless(numbered(50)))
    assert end.totals is not None
    assert end.totals.last == Totals(51, 51)


def test_what_changes_during_a_look_is_explained_by_asking_once_more():
    here = watched(numbered(50))

    class Late(FakeStorage):
        times = 0

        def totals(self) -> Totals | None:
            told = super().totals()
            self.times += 1
            if self.times == 1:
                self.objects["z1"] = ("e", OLD, 1)
            return told

    end = here.look(Late(numbered(50) | {"z0": ("e", OLD, 1)}))
    assert [key for _, key in announced(here)] == ["z0", "z1"]
    assert (end.pass_in_s, end.totals and end.totals.last) == (None, Totals(52, 52))


def test_more_hints_than_a_look_takes_ask_for_a_pass():
    here = watched(numbered(50))
    storage = FakeStorage(numbered(50))
    end = here.look(storage, *map(str, range(MOST_HINTED_KEYS + 1)))
    assert (end.pass_in_s, storage.requests) == (0, 0)


def test_a_look_that_takes_too_long_leaves_the_rest_to_a_pass():
    here = watched(numbered(50), slice_s=0.0)
    grown = numbered(50) | {f"key-00012-{n:03d}": ("e", OLD, 1) for n in range(100)}
    end = here.look(Unasked(grown), "key-00012")
    assert end.pass_in_s == 0


def test_a_prefix_is_not_explained_by_the_totals_of_the_whole_bucket():
    here = watched(numbered(50)).wanting(prefix="key-")
    end = here.look(FakeStorage(numbered(51) | {"other": ("e", OLD, 1)}))
    assert [key for _, key in announced(here)][:1] == ["key-00050"]
    assert end.pass_in_s is None


def test_totals_that_are_not_told_now_end_no_look():
    class Refusing(FakeStorage):
        def totals(self) -> Totals | None:
            raise Crash

    here = watched(numbered(50))
    end = here.look(Refusing(numbered(51)))
    assert announced(here) == [("detected", "key-00050")]
    assert end.pass_in_s is None


def test_a_pass_that_nobody_probes_asks_for_no_totals():
    class Counted(FakeStorage):
        times = 0

        def totals(self) -> Totals | None:
            self.times += 1
            return super().totals()

    storage = Counted(numbered(50))
    end = site().scan(storage)
    assert (storage.times, end.totals) == (0, None)


class FromTheStart(FakeStorage):
    """Lists all that is before a key, too."""

    def begins_anywhere(self) -> bool:
        return False


def look_or_pass(here: Site, storage: FakeStorage, *keys: str) -> Any:
    request = LookRequest(keys, pass_due=0.0)
    return BucketLook(here.bucket, here.claim(), request, here.means(storage)).run()


def test_before_the_first_pass_is_complete_a_look_is_that_pass():
    here = site()
    assert isinstance(look_or_pass(here, FakeStorage(numbered(50)), "a"), PassEnd)


def test_where_listings_begin_at_the_start_a_look_is_a_pass_or_waits_for_one():
    here = watched(numbered(50), look_pass_gap_s=7200.0)
    storage = FromTheStart(numbered(51))
    assert look_or_pass(here, storage).pass_in_s == pytest.approx(3600)
    assert storage.requests == 0
    here.now += 7200
    assert isinstance(look_or_pass(here, storage), PassEnd)


# --- deletions


def test_a_few_confirmed_deletions_are_announced():
    here = watched(numbered(50))
    here.look(FakeStorage(without(numbered(50), "key-00012")), "key-00012")
    assert announced(here) == [("deleted", "key-00012")]
    assert "key-00012" not in here.states.objects()


def gone(*rows: int) -> list[str]:
    return [f"key-{row:05d}" for row in rows]


@pytest.mark.parametrize(
    "keys",
    [gone(*range(11, 19)), [f"key-{row:05d}" for row in range(FEW + 1)]],
    ids=["most of the rows", "more than a hundred"],
)
def test_many_deletions_are_for_a_pass_to_judge(keys):
    here = watched(numbered(500), page_size=500 if len(keys) > 10 else 10)
    bucket = without(numbered(500), *keys)
    here.look(Unasked(bucket), "key-00012")
    assert announced(here) == []
    scanned(here, bucket)
    assert announced(here) == [("deleted", key) for key in keys]


class Hiding(FakeStorage):
    """Leaves keys out of its listings that HEAD tells of."""

    def __init__(self, objects: Bucket, *hidden: str, refuses: bool = False) -> None:
        super().__init__(without(objects, *hidden))
        self.all, self.refuses = objects, refuses

    def look_up(self, key: str) -> Any:
        return HeadAnswer.REFUSED if self.refuses else FakeStorage(self.all).look_up(key)


def test_what_a_look_finds_missing_and_head_finds_there_is_no_deletion():
    here = watched(numbered(50))
    end = here.look(Hiding(numbered(50), "key-00012"), "key-00012")
    assert announced(here) == []
    assert [warning.kind for warning in end.warnings] == [WarningKind.CONTRADICTED_ABSENCE]
    here.look(FakeStorage(numbered(50)), "key-00012")
    assert announced(here) == []
    assert not any(entry.missing for entry in here.states.manifest.values())


@pytest.mark.parametrize("confirm", [Confirm.LISTING, Confirm.HEAD])
def test_where_listings_are_the_witness_a_look_is_none(confirm):
    here = watched(numbered(50), confirm=confirm)
    storage = Hiding(without(numbered(50), "key-00012"), refuses=True)
    for _ in range(3):
        here.look(storage, "key-00012")
        here.now += 3600
    assert announced(here) == []
    assert not any(entry.absent for entry in here.states.manifest.values())


def test_without_a_witness_a_look_takes_its_listing_s_word():
    here = watched(numbered(50), confirm=Confirm.NONE)
    here.look(Hiding(numbered(50), "key-00012"), "key-00012")
    assert announced(here) == [("deleted", "key-00012")]


def test_while_a_mass_deletion_is_held_a_look_announces_no_deletion():
    here = watched(numbered(50), mass_minimum=10)
    left = numbered(20)
    held = here.scan(FakeStorage(left)).held
    assert held is not None
    here.look(FakeStorage(without(left, "key-00005") | {"z": ("e", OLD, 1)}), "key-00005", "z")
    assert announced(here) == [("detected", "z")]
    again = here.scan(FakeStorage(without(left, "key-00005") | {"z": ("e", OLD, 1)})).held
    assert again is not None
    assert (again.since, again.missing) == (held.since, 31)


def test_marks_of_a_pass_under_way_are_left_to_it():
    here = watched(numbered(100), mass_minimum=10, slice_s=0.0)
    left = {key: row for key, row in numbered(100).items() if key > "key-00060"}
    assert not here.scan(FakeStorage(left)).complete
    for n in range(0, 60, 10):
        here.look(FakeStorage(left), f"key-{n:05d}")
    assert announced(here) == []
    held = here.scan_to_the_end(FakeStorage(left)).held
    assert held is not None
    assert held.missing == 61


def test_a_few_moved_times_are_updates_and_most_of_them_are_for_a_pass_to_judge():
    here = watched(numbered(50))
    bucket = numbered(50) | {"key-00012": ("e", NEW, 1)}
    here.look(FakeStorage(bucket), "key-00012")
    assert announced(here) == [("updated", "key-00012")]
    touched = dict.fromkeys(bucket, ("e", NEW + 1, 1))
    here.look(FakeStorage(touched), "key-00012")
    assert announced(here) == []
    scanned(here, touched)
    assert announced(here) == [("updated", key) for key in sorted(touched)]


def test_while_a_storm_of_moved_times_is_held_a_look_announces_none_of_it():
    here = watched(numbered(50), mass_minimum=10)
    touched = dict.fromkeys(numbered(50), ("e", NEW, 1))
    assert here.scan(FakeStorage(touched)).held_times
    here.look(FakeStorage(touched | {"key-00012x": ("e", OLD, 1)}), "key-00012")
    assert announced(here) == [("detected", "key-00012x")]


# --- what a look leaves alone


def test_a_pass_under_way_goes_on_where_it_was():
    here = watched(numbered(100), slice_s=0.0)
    warned = ScanWarnings()
    warned.add(WarningKind.ODD_ROW, "odd")
    bucket = numbered(100) | {"key-00005x": ("e", OLD, 1), "key-00085x": ("e", OLD, 1)}
    here.scan(FakeStorage(bucket))
    here.states.warnings = tuple(warned)
    before = here.states.progress
    assert before is not None
    assert before.after
    here.settings = replace(here.settings, slice_s=60.0)
    late = bucket | {"a": ("e", OLD, 1), "key-00085y": ("e", OLD, 1)}
    end = here.look(FakeStorage(late), "a", "key-00085y")
    progress = here.states.progress
    assert progress is not None
    assert progress.appeared - before.appeared == 3
    assert replace(progress, appeared=before.appeared) == before
    assert (here.states.warnings, end.pass_in_s) == (tuple(warned), None)
    scanned(here, late)
    events = announced(here)
    assert sorted(key for _, key in events) == ["a", "key-00005x", "key-00085x", "key-00085y"]


def paused_pass_over_small_segments() -> tuple[Site, Bucket]:
    """Segments of four rows and of one, between which the pass pauses, and a full one."""
    bucket = without(numbered(30), *gone(*range(4, 10), *range(11, 20)))
    here = watched(numbered(30), confirm=Confirm.NONE)
    scanned(here, bucket)
    announced(here)
    here.settings = replace(here.settings, slice_s=0.0)
    storage = FakeStorage(bucket, short=[6])  # a page of four rows
    assert not here.scan(storage).complete
    assert here.states.progress
    assert here.states.progress.after == "key-00003"
    here.settings = replace(here.settings, slice_s=60.0)
    return here, bucket


@pytest.mark.parametrize("key", ["key-00010", "key-00003x"])
def test_what_a_look_writes_is_not_on_both_sides_of_a_pass_under_way(key):
    """The pass would not list the rows of the segment that it has behind it: deletions."""
    here, bucket = paused_pass_over_small_segments()
    bucket |= {key: ("e2", OLD, 1)}
    here.look(Unasked(bucket), "key-00003", key)
    scanned(here, bucket)
    assert announced(here) == [("updated" if key == "key-00010" else "detected", key)]


def test_without_a_pass_under_way_a_look_begins_none():
    here = watched(numbered(50))
    here.look(FakeStorage(numbered(52)))
    assert here.states.progress is None


# --- laws


class Shifty(FakeStorage):
    """A bucket that changes, and whose totals may be true, false, refused or not told."""

    def __init__(self, tells: Iterator[str]) -> None:
        super().__init__({})
        self._tells, self._versions = tells, count(1)

    def write(self, key: str) -> None:
        self.objects[key] = (f"v{next(self._versions)}", OLD, 1)

    def totals(self) -> Totals | None:
        match next(self._tells, "truth"):
            case "truth":
                return super().totals()
            case "nothing":
                return None
            case "an error":
                raise Crash
        return Totals(7, 7)


KEYS = st.integers(10, 60).map(str)
ACTIONS = st.one_of(
    st.tuples(st.just("write"), st.lists(KEYS, min_size=1, max_size=8)),
    st.tuples(st.just("delete"), st.lists(KEYS, min_size=1, max_size=8)),
    st.tuples(st.just("look"), st.lists(KEYS, max_size=3)),
    st.tuples(st.just("slice"), st.just([""])),
    st.tuples(st.just("pass"), st.just([""])),
)
LIES = st.lists(st.sampled_from(["truth", "nothing", "an error", "a lie"]), max_size=20)


def told_by(queue: Sequence[dict[str, Any]]) -> Bucket:
    """Follow the events of each key, which have to be a chain; returns the last versions."""
    told: dict[str, str] = {}
    for event in queue:
        assert event.get("previous", {}).get("etag") == told.get(event["key"])
        if event["event_type"] == "deleted":
            del told[event["key"]]
        else:
            assert event["etag"] != told.get(event["key"])
            told[event["key"]] = event["etag"]
    return {key: (etag, OLD, 1) for key, etag in told.items()}


@given(
    st.lists(ACTIONS, max_size=30),
    st.sampled_from([2, 4, 8]),
    st.integers(1, 3),
    LIES,
    st.lists(st.sampled_from(["", "before", "after"]), max_size=30),
    st.sampled_from([Confirm.HEAD, Confirm.NONE]),
)
def test_looks_and_passes_in_any_order_say_what_comparing_says(
    actions, page_size, lanes, lies, crashes, confirm
):
    here = site(
        page_size,
        lanes=lanes,
        mass_minimum=10**9,
        look_pass_gap_s=math.inf,
        confirm=confirm,
        **EVERYTHING_IS_TOLD,
    )
    crashing, moment = iter(crashes), [""]

    def before() -> None:
        moment[0] = next(crashing, "")
        crash_if(moment[0] == "before")

    here.states.before_commit = before
    here.states.after_commit = lambda: crash_if(moment[0] == "after")
    storage = Shifty(iter(lies))
    storage.write("50")
    here.scan_to_the_end(storage)
    for action, keys in actions:
        here.now += 1
        act(here, storage, action, keys)
        told = told_by(here.states.queue)
        if action == "look":
            assert all(told.get(key) == storage.objects.get(key, told.get(key)) for key in keys)
    for _ in range(2):  # the first may be the rest of one that began before
        here.scan_to_the_end(storage)
    assert told_by(here.states.queue) == storage.objects == here.states.objects()
    ids = [event["event_id"] for event in here.states.queue]
    assert len(ids) == len(set(ids))
    assert here.states.listed == FakeStorage(storage.objects).totals()


def act(here: Site, storage: Shifty, action: str, keys: Sequence[str]) -> None:
    match action:
        case "write":
            for key in keys:
                storage.write(key)
        case "delete":
            for key in keys:
                storage.objects.pop(key, None)
        case "look":
            whatever_crashes(lambda: here.look(storage, *keys))
        case "slice":
            here.settings = replace(here.settings, slice_s=0.0)
            whatever_crashes(lambda: here.scan(storage))
            here.settings = replace(here.settings, slice_s=20.0)
        case "pass":
            here.scan_to_the_end(storage)


def whatever_crashes(scan: Callable[[], object]) -> None:
    """Have it done again, as another worker would."""
    while True:
        try:
            scan()
        except Crash:
            continue
        return
