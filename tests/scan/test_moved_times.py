"""Times that move while ETag and size stay: updates, or a storm where they are many."""

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from scanning.adapters.redis.read_only_state import reading_only
from scanning.core.types import EventType, ObjectState
from scanning.scan.bucket_pass import BucketPass
from tests.support.fakes import Bucket, Crash, FakeStorage, Site, crash_if
from tests.support.sites import ALL, NEW, OLD, Broken, announced, numbered, scanned, site, without

if TYPE_CHECKING:
    from scanning.scan.bucket_pass import PassEnd

LATER = OLD + 5000


def moved(bucket: Bucket, *keys: str, to: int = LATER) -> Bucket:
    """The bucket with another time of some keys, or of all."""
    return {
        key: (etag, to if key in keys or not keys else time, size)
        for key, (etag, time, size) in bucket.items()
    }


def stormy(objects: int = 1000, **settings: Any) -> Site:
    """A bucket of which all times moved, so that they are held."""
    here = site(page_size=100, **settings)
    scanned(here, numbered(objects))
    announced(here)
    assert storm_of(here, moved(numbered(objects))) == (objects, objects)
    return here


def storm_of(here: Site, bucket: Bucket) -> tuple[int, int] | None:
    """Scan, and tell how many of how many objects are held then because their times moved."""
    end = here.scan_to_the_end(FakeStorage(bucket))
    return (end.held_times.moved, end.held_times.known) if end.held_times else None


THRESHOLDS = [
    # known, moved, held
    (1000, 400, False),
    (1000, 500, False),
    (1000, 501, True),
    (1000, 1000, True),
    (999, 999, False),
    (2000, 1000, False),
    (2000, 1001, True),
]


@pytest.mark.parametrize(("known", "times", "held"), THRESHOLDS)
@pytest.mark.parametrize("lanes", [1, 4])
def test_a_storm_is_more_than_half_of_at_least_1000_objects(known, times, held, lanes):
    here = site(page_size=100, lanes=lanes)
    bucket = numbered(known)
    scanned(here, bucket)
    announced(here)
    keys = list(bucket)[:times]
    storm = storm_of(here, moved(bucket, *keys))
    assert storm == ((times, known) if held else None)
    assert announced(here) == ([] if held else [("updated", key) for key in keys])
    if not held:
        scanned(here, moved(bucket, *keys))
        assert announced(here) == []
        assert here.states.objects() == moved(bucket, *keys)


def test_an_update_says_the_time_before_and_the_time_since():
    here = site()
    scanned(here, {"key": ("e", OLD, 1), "other": ("", OLD, 1)})
    here.states.queue.clear()
    scanned(here, {"key": ("e", LATER, 1), "other": ("", LATER, 1)})
    for event in here.states.queue:
        assert event["event_type"] == "updated"
        assert event["last_modified"] > event["previous"]["last_modified"]
    assert len(here.states.queue) == 2
    assert here.states.strings["key"].last_modified == LATER / 1000


def test_a_held_storm_stays_held_and_remembers_since_when():
    here = stormy()
    since = here.now
    for _ in range(3):
        here.now += 3600
        end = here.scan_to_the_end(FakeStorage(moved(numbered(1000))))
        assert end.held_times is not None
        assert (end.held_times.moved, end.held_times.since) == (1000, since)
    assert announced(here) == []
    assert here.states.objects() == numbered(1000)
    assert here.states.strings["key-00000"].last_modified == OLD / 1000


def test_a_listing_that_is_the_same_costs_nothing_while_a_storm_is_held():
    here = stormy()
    commits, here.states.loads = len(here.states.commits), 0
    listed = scanned(here, moved(numbered(1000)))
    assert (len(here.states.commits), here.states.loads, listed.parsed) == (commits, 0, 0)


def test_no_segment_is_written_for_a_storm_that_is_held():
    here = site(page_size=100)
    scanned(here, numbered(1000))
    before = len(here.states.commits)
    scanned(here, moved(numbered(1000)))
    pieces = [piece for commit in here.states.commits[before:] for piece in commit.pieces]
    assert len(pieces) == 10
    assert all(piece.columns is None for piece in pieces)


# --- the ends of a hold


def test_a_storm_is_announced_once_if_somebody_chooses_so():
    here = stormy()
    here.states.released_moved = 1000
    assert storm_of(here, moved(numbered(1000))) is None
    assert announced(here) == [("updated", key) for key in numbered(1000)]
    assert here.states.objects() == moved(numbered(1000))
    scanned(here, moved(numbered(1000)))
    assert announced(here) == []


def test_the_new_times_are_taken_without_a_word_if_somebody_chooses_so():
    here = stormy()
    here.states.takes_times = True
    assert storm_of(here, moved(numbered(1000))) is None
    assert announced(here) == []
    assert here.states.objects() == moved(numbered(1000))
    assert {state.last_modified for state in here.states.strings.values()} == {LATER / 1000}
    assert storm_of(here, moved(numbered(1000))) is None
    here.states.loads = 0
    assert scanned(here, moved(numbered(1000))).parsed == 0
    assert here.states.loads == 0


def test_a_storm_is_over_when_the_times_come_back():
    here = stormy()
    assert storm_of(here, numbered(1000)) is None
    assert announced(here) == []
    assert not any(entry.moved for entry in here.states.manifest.values())
    assert scanned(here, numbered(1000)).parsed == 0


def test_some_times_that_come_back_release_nothing_of_the_rest():
    here = stormy()
    half_back = moved(numbered(1000), *list(numbered(1000))[:300])
    assert storm_of(here, half_back) == (300, 1000)
    assert announced(here) == []
    here.states.released_moved = 300
    assert storm_of(here, half_back) is None
    assert announced(here) == [("updated", key) for key in list(numbered(1000))[:300]]


def test_times_that_move_once_more_while_they_are_held_are_the_times_that_are_taken():
    here = stormy()
    assert storm_of(here, moved(numbered(1000), to=LATER + 7000)) == (1000, 1000)
    here.states.released_moved = 1000
    scanned(here, moved(numbered(1000), to=LATER + 7000))
    assert len(announced(here)) == 1000
    assert here.states.objects() == moved(numbered(1000), to=LATER + 7000)


def test_a_second_look_announces_a_storm_that_still_stands_after_so_long():
    here = stormy(second_look_s=600)
    here.now += 599
    assert storm_of(here, moved(numbered(1000))) == (1000, 1000)
    here.now += 1
    assert storm_of(here, moved(numbered(1000))) is None
    assert len(announced(here)) == 1000


@pytest.mark.parametrize(("more", "held"), [(100, None), (1500, (2500, 3000))])
def test_what_moves_beyond_a_released_storm_may_be_a_storm_too(more, held):
    here = site(page_size=100, mass_minimum=500)
    scanned(here, numbered(3000))
    first = moved(numbered(3000), *list(numbered(3000))[:1000])
    here.settings = replace(here.settings, mass_share=0.3)
    assert storm_of(here, first) == (1000, 3000)
    announced(here)
    here.states.released_moved = 1000
    assert storm_of(here, moved(numbered(3000), *list(numbered(3000))[: 1000 + more])) == held
    assert len(announced(here)) == (0 if held else 1000 + more)


def test_what_moves_after_somebody_wanted_silence_is_announced_all_the_same():
    """Silence is about what was shown: the scan may find one more that was written since."""
    here = site(page_size=100)
    scanned(here, numbered(1000))
    announced(here)
    keys = list(numbered(1000))
    assert storm_of(here, moved(numbered(1000), *keys[:990])) == (990, 1000)
    here.states.takes_times = True
    assert storm_of(here, moved(numbered(1000))) is None
    assert announced(here) == [("updated", key) for key in keys[990:]]


@pytest.mark.parametrize("choice", ["", "released_moved", "takes_times"])
def test_a_look_without_touching_says_what_the_scan_does(choice):
    here = stormy()
    if choice:
        setattr(here.states, choice, 1000)
    after = moved(numbered(1000)) | {"key-00007": ("other", NEW, 1), "key-00950x": ("e", OLD, 1)}
    before = replace(here.states, queue=[], commits=[])
    said: list[str] = []
    with reading_only(here.states, said.extend) as looking:
        context = here.means(FakeStorage(after), states=looking)
        BucketPass(here.bucket, here.claim(), context).run()
    assert (here.states.manifest, here.states.queue) == (before.manifest, [])
    scanned(here, after)
    there = announced(here)
    assert sorted((e["event_type"], e["key"]) for e in map(json.loads, said)) == sorted(there)
    assert len(there) == (1001 if choice == "released_moved" else 2)


# --- beside a storm


def test_the_rest_of_the_bucket_goes_on_while_a_storm_is_held():
    here = stormy()
    after = moved(numbered(1000)) | {
        "key-00007": ("other", LATER, 1),
        "key-00008": ("e", LATER, 2),
        "key-00009x": ("n", NEW, 1),
    }
    del after["key-00100"]
    assert storm_of(here, after) == (997, 1000)
    assert sorted(announced(here)) == [
        ("created", "key-00009x"),
        ("deleted", "key-00100"),
        ("updated", "key-00007"),
        ("updated", "key-00008"),
    ]
    here.states.takes_times = True
    assert storm_of(here, after) is None
    assert announced(here) == []
    assert here.states.objects() == after


def test_a_storm_and_a_mass_deletion_are_held_beside_each_other():
    here = site(page_size=100, mass_minimum=100, mass_share=0.4)
    bucket = numbered(2000)
    scanned(here, bucket)
    announced(here)
    after = moved(dict(list(bucket.items())[1000:]))
    end = here.scan_to_the_end(FakeStorage(after))
    assert end.held is not None
    assert end.held_times is not None
    assert (end.held.missing, end.held_times.moved) == (1000, 1000)
    assert announced(here) == []
    here.states.released = 1000
    end = here.scan_to_the_end(FakeStorage(after))
    assert (end.held, end.held_times is None) == (None, False)
    assert announced(here) == [("deleted", key) for key in list(bucket)[:1000]]
    here.states.released_moved = 1000
    scanned(here, after)
    assert announced(here) == [("updated", key) for key in after]


def test_what_comes_new_while_a_storm_is_held_makes_no_segment_of_its_own_in_each_scan():
    here = stormy()
    bucket = moved(numbered(1000))
    segments = len(here.states.manifest)
    for number in range(30):
        bucket[f"new-{number:03d}"] = ("e", OLD, 1)
        assert storm_of(here, bucket) is not None
    assert len(here.states.manifest) == segments + 1
    here.states.released_moved = 1000
    announced(here)
    scanned(here, bucket)
    assert announced(here) == [("updated", key) for key in numbered(1000)]
    assert here.states.objects() == bucket


def test_segments_that_are_cut_and_joined_keep_the_moved_times():
    here = site(page_size=20, mass_minimum=10)
    bucket = numbered(20, step=10)
    scanned(here, bucket)
    stormed = moved(bucket)
    assert storm_of(here, stormed) == (20, 20)
    grown = stormed | dict.fromkeys(numbered(200), ("e", OLD, 1)) | stormed
    assert storm_of(here, grown) is not None
    shrunk = dict(list(stormed.items())[::3])
    here.settings = replace(here.settings, mass_minimum=10**9)
    scanned(here, shrunk)
    announced(here)
    here.states.released_moved = 20
    scanned(here, shrunk)
    assert announced(here) == [("updated", key) for key in shrunk]
    assert here.states.objects() == shrunk


def test_a_bucket_that_trusts_etags_takes_no_note_where_there_is_one():
    here = site(mass_minimum=10).wanting(trust_etags=True)
    scanned(here, numbered(30))
    announced(here)
    assert storm_of(here, moved(numbered(30))) is None
    assert announced(here) == []
    assert here.states.objects() == numbered(30)
    assert not any(entry.moved for entry in here.states.manifest.values())


def test_times_are_held_where_etags_are_trusted_and_there_are_none():
    here = site(mass_minimum=10).wanting(trust_etags=True)
    scanned(here, numbered(30, etag=""))
    announced(here)
    assert storm_of(here, moved(numbered(30, etag=""))) == (30, 30)


def test_a_storm_in_a_bucket_that_announces_no_updates_is_held_all_the_same():
    here = site(mass_minimum=10).wanting(events=ALL - {EventType.UPDATED})
    scanned(here, numbered(30))
    assert storm_of(here, moved(numbered(30))) == (30, 30)


# --- taking over from an older monitor


def taken_over(count: int, **settings: Any) -> Site:
    """A bucket of which an older monitor knew everything, with other times."""
    here = site(page_size=100, **settings).wanting(taken_over=True)
    here.states.strings = {
        key: ObjectState(etag, time / 1000, size)
        for key, (etag, time, size) in numbered(count).items()
    }
    return here


@pytest.mark.parametrize("lanes", [1, 4])
def test_a_storm_since_an_older_monitor_is_held_too(lanes):
    here = taken_over(1000, lanes=lanes)
    new: Bucket = {"new": ("e", NEW, 1)}
    assert storm_of(here, moved(numbered(1000)) | new) == (1000, 1000)
    assert announced(here) == [("created", "new")]
    assert storm_of(here, moved(numbered(1000)) | new) == (1000, 1001)
    assert here.states.objects() == numbered(1000) | new
    here.states.released_moved = 1000
    scanned(here, moved(numbered(1000)) | new)
    assert announced(here) == [("updated", key) for key in numbered(1000)]


@pytest.mark.parametrize("size", [0, 1])
def test_few_times_that_moved_since_an_older_monitor_are_updates(size):
    here = taken_over(1000, slice_s=0.0)
    key = "key-00500"
    here.states.strings[key] = ObjectState("e", OLD / 1000, size)
    crashing = iter([False, True] * 8)
    here.states.after_commit = lambda: crash_if(next(crashing, False))
    assert storm_of(here, moved(numbered(1000), key)) is None
    [event] = here.states.queue
    assert (event["event_type"], event["key"]) == ("updated", key)
    assert event["previous"]["last_modified"] < event["last_modified"]
    assert here.states.objects() == moved(numbered(1000), key)


def test_where_etags_are_trusted_times_that_moved_since_an_older_monitor_are_nothing():
    here = taken_over(30).wanting(trust_etags=True)
    scanned(here, moved(numbered(30)))
    assert announced(here) == []
    assert here.states.objects() == numbered(30)


def test_a_time_of_an_older_monitor_that_no_row_can_hold_is_an_update():
    here = taken_over(1)
    here.states.strings["key-00000"] = ObjectState("e", 1e300, 1)
    scanned(here, numbered(1))
    assert announced(here) == [("updated", "key-00000")]
    assert here.states.objects() == numbered(1)


# --- crashes and pauses


def test_a_storm_is_counted_over_slices_crashes_and_lanes():
    here = site(page_size=50, lanes=4, slice_s=0.0)
    bucket = numbered(2000)
    scanned(here, bucket)
    announced(here)
    crashing = iter([False, True, False, False, True, True])
    here.states.before_commit = lambda: crash_if(next(crashing, False))
    storage = FakeStorage(moved(bucket, *list(bucket)[:1001]))
    slices = 0
    end: PassEnd | None = None
    while end is None or not end.complete:
        slices += 1
        try:
            end = here.scan(storage)
        except Crash:
            continue
    assert slices > 10
    assert end.held_times is not None
    assert (end.held_times.moved, end.held_times.known) == (1001, 2000)
    assert announced(here) == []


@pytest.mark.parametrize("lanes", [1, 4])
@pytest.mark.parametrize("moment", ["before_commit", "after_commit"])
def test_updates_are_committed_over_slices_and_crashes_each_once(lanes, moment):
    here = site(page_size=50, lanes=lanes, slice_s=0.0)
    bucket = numbered(2000)
    scanned(here, bucket)
    announced(here)
    crashing = iter([False, True] * 30)
    setattr(here.states, moment, lambda: crash_if(next(crashing, False)))
    keys, gone = list(bucket)[::3], list(bucket)[1::99]
    after = moved(without(bucket, *gone), *keys)
    assert storm_of(here, after) is None
    said = sorted(announced(here))
    assert said == [("deleted", key) for key in gone] + [("updated", key) for key in keys]
    assert here.states.objects() == after


@pytest.mark.parametrize("released", ["released_moved", "takes_times"])
def test_a_release_goes_on_over_slices_and_crashes(released):
    here = site(page_size=50, slice_s=0.0)
    scanned(here, numbered(2000))
    announced(here)
    assert storm_of(here, moved(numbered(2000))) == (2000, 2000)
    setattr(here.states, released, 2000)
    crashing = iter([False, True] * 30)
    here.states.after_commit = lambda: crash_if(next(crashing, False))
    assert storm_of(here, moved(numbered(2000))) is None
    wanted = [] if released == "takes_times" else list(numbered(2000))
    assert announced(here) == [("updated", key) for key in wanted]
    assert here.states.objects() == moved(numbered(2000))
    assert {state.last_modified for state in here.states.strings.values()} == {LATER / 1000}


def test_silence_that_is_paused_swallows_nothing_that_the_pass_finds_itself():
    here = site(page_size=100, slice_s=0.0)
    scanned(here, numbered(1000))
    announced(here)
    keys = list(numbered(1000))
    assert storm_of(here, moved(numbered(1000), *keys[:600])) == (600, 1000)
    here.states.takes_times = True
    later = moved(numbered(1000), *keys[:600]) | moved(dict.fromkeys(keys[800:810], ("e", OLD, 1)))
    assert storm_of(here, later) is None
    assert announced(here) == [("updated", key) for key in keys[800:810]]


def test_a_time_that_moved_and_came_back_before_the_pass_was_over_is_none():
    here = site(page_size=10)
    bucket = numbered(100)
    scanned(here, bucket)
    announced(here)
    with pytest.raises(Crash):
        here.scan(Broken(moved(bucket, "key-00005", "key-00095"), after=5))
    [noted] = [entry for entry in here.states.manifest.values() if entry.moved]
    assert (noted.last_key, noted.moved, noted.moved_times) == ("key-00009", (5,), (LATER,))
    assert here.states.objects() == bucket
    # What was covered by then is announced with the time that was listed; the next pass finds that
    # it is another one again.
    scanned(here, bucket)
    scanned(here, bucket)
    times = [event["last_modified"] for event in here.states.queue]
    assert [key for _, key in announced(here)] == ["key-00005", "key-00005"]
    assert times[0] > times[1]
    assert here.states.objects() == bucket


def test_a_noted_key_that_goes_missing_is_missing_and_one_that_is_written_is_updated():
    here = stormy()
    after = moved(numbered(1000))
    del after["key-00500"]
    after["key-00501"] = ("other", NEW, 3)
    end = here.scan_to_the_end(FakeStorage(after))
    assert end.held_times is not None
    assert end.held_times.moved == 998
    assert sorted(announced(here)) == [("deleted", "key-00500"), ("updated", "key-00501")]
