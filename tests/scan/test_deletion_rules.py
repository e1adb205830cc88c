"""Rule 9 of a scan: marks, held deletions, second looks; `test_scan_rules.py` lists all rules."""

from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

import pytest

from scanning.core.types import EventType
from tests.support.fakes import Bucket, Crash, FakeStorage, Site, crash_if
from tests.support.sites import ALL, NEW, OLD, Broken, announced, numbered, scanned, site, without

if TYPE_CHECKING:
    from scanning.scan.bucket_pass import PassEnd


def test_a_key_that_is_missing_is_only_marked_until_everything_is_listed():
    here = site(page_size=10)
    bucket = numbered(100)
    scanned(here, bucket)
    announced(here)
    with pytest.raises(Crash):
        here.scan(Broken(without(bucket, "key-00005", "key-00095"), after=5))
    assert announced(here) == []
    assert here.states.objects() == bucket
    [marked] = [e for e in here.states.open(here.bucket).entries if e.missing]
    assert marked.last_key == "key-00009"
    scanned(here, without(bucket, "key-00005", "key-00095"))
    assert announced(here) == [("deleted", "key-00005"), ("deleted", "key-00095")]
    assert not any(e.missing for e in here.states.open(here.bucket).entries)


def test_a_key_that_was_only_marked_and_is_back_was_never_gone():
    here = site()
    bucket = numbered(100)
    scanned(here, bucket)
    announced(here)
    with pytest.raises(Crash):
        here.scan(Broken(without(bucket, "key-00005"), after=5))
    # Before this pass is over the key is there again, behind what the pass has covered.
    scanned(here, bucket)
    assert {said for said in announced(here) if said[0] != "deleted"} == set()
    scanned(here, bucket)
    assert here.states.objects() == bucket


THRESHOLDS = [
    # known, gone, held
    (1000, 500, False),
    (1000, 501, True),
    (1000, 1000, True),
    (999, 998, False),
    (999, 999, False),
    (1, 1, False),
    (2000, 1000, False),
    (2000, 1001, True),
]


@pytest.mark.parametrize(("known", "gone", "held"), THRESHOLDS)
@pytest.mark.parametrize("lanes", [1, 4])
def test_a_mass_deletion_is_more_than_half_of_at_least_1000_objects(known, gone, held, lanes):
    here = site(page_size=100, lanes=lanes)
    bucket = numbered(known)
    scanned(here, bucket)
    announced(here)
    end = here.scan_to_the_end(FakeStorage(dict(list(bucket.items())[gone:])))
    if held:
        assert end.held is not None
        assert (end.held.missing, end.held.known) == (gone, known)
        assert announced(here) == []
    else:
        assert end.held is None
        assert announced(here) == [("deleted", key) for key in list(bucket)[:gone]]


def test_what_came_new_in_the_same_pass_does_not_dilute_a_mass_deletion():
    here = site(page_size=100)
    scanned(here, numbered(1000))
    end = here.scan_to_the_end(FakeStorage({f"new-{n:05d}": ("e", OLD, 1) for n in range(5000)}))
    assert end.held is not None
    assert (end.held.missing, end.held.known) == (1000, 1000)


def emptied() -> Site:
    """A bucket of 30 objects of which everything is gone, and held."""
    here = site(mass_minimum=30)
    scanned(here, numbered(30))
    announced(here)
    assert here.scan_to_the_end(FakeStorage({})).held is not None
    return here


def test_a_held_bucket_stays_held_and_remembers_since_when():
    here = emptied()
    since = here.now
    for _ in range(3):
        here.now += 3600
        end = here.scan_to_the_end(FakeStorage({}))
        assert end.held is not None
        assert (end.held.missing, end.held.known, end.held.since) == (30, 30, since)
    assert announced(here) == []
    assert here.states.objects() == numbered(30)


def test_creations_and_updates_go_on_while_deletions_are_held():
    here = site(page_size=100)
    bucket = numbered(2000)
    scanned(here, bucket)
    announced(here)
    left = dict(list(bucket.items())[1500:])
    assert here.scan_to_the_end(FakeStorage(left)).held is not None
    end = here.scan_to_the_end(
        FakeStorage(left | {"key-00007x": ("n", NEW, 1), "key-01999": ("n", OLD, 1)})
    )
    assert end.held is not None
    assert (end.held.missing, end.held.known) == (1500, 2000)
    assert announced(here) == [("created", "key-00007x"), ("updated", "key-01999")]


def test_what_comes_new_while_deletions_are_held_does_not_confirm_them():
    here = site(page_size=100)
    bucket = numbered(2000)
    scanned(here, bucket)
    left = dict(list(bucket.items())[:900])
    for more in (0, 1500, 5000):
        new: Bucket = {f"new-{number:05d}": ("e", OLD, 1) for number in range(more)}
        end = here.scan_to_the_end(FakeStorage(left | new))
        assert end.held is not None
        assert end.held.missing == 1100
    here.states.released = 1100
    announced(here)
    scanned(here, left | new)
    assert announced(here) == [("deleted", key) for key in list(bucket)[900:]]
    assert here.states.held_since is None


def test_a_first_object_in_a_bucket_that_was_emptied_does_not_confirm_that():
    here = emptied()
    for objects in ({"z": ("e", OLD, 1)}, {"z": ("e", OLD, 1)}, {}):
        assert here.scan_to_the_end(FakeStorage(objects)).held is not None
    assert announced(here) == [("detected", "z")]


def test_a_key_that_comes_back_while_held_is_not_announced_and_confirms_nothing():
    here = emptied()
    end = here.scan_to_the_end(FakeStorage(numbered(20)))
    assert end.held is not None
    assert (end.held.missing, end.held.known) == (10, 30)
    assert announced(here) == []
    assert here.states.objects() == numbered(30)


def test_what_came_back_and_what_is_left_of_a_large_hold_wait_for_somebody():
    """700 of 1,200 objects gone, and 200 of them back: less than half is missing then."""
    here = site(page_size=100)
    bucket = numbered(1200)
    scanned(here, bucket)
    announced(here)
    assert here.scan_to_the_end(FakeStorage(numbered(500))).held is not None
    end = here.scan_to_the_end(FakeStorage(numbered(700)))
    assert end.held is not None
    assert (end.held.missing, end.held.known) == (500, 1200)
    assert announced(here) == []
    here.states.released = 500
    scanned(here, numbered(700))
    assert announced(here) == [("deleted", key) for key in list(bucket)[700:]]


def test_what_goes_while_a_hold_stands_is_held_with_it_and_ends_with_it():
    """Which rows were held is not known: whatever is missing waits until nothing is."""
    here = site(page_size=100)
    bucket = numbered(1200)
    scanned(here, bucket)
    announced(here)
    assert here.scan_to_the_end(FakeStorage(numbered(500))).held is not None
    lacking = without(bucket, "key-00007")
    end = here.scan_to_the_end(FakeStorage(lacking))
    assert end.held is not None
    assert end.held.missing == 1
    assert here.scan_to_the_end(FakeStorage(bucket)).held is None
    assert announced(here) == []
    scanned(here, lacking)
    assert announced(here) == [("deleted", "key-00007")]


def test_an_inbox_that_is_emptied_every_day_says_each_arrival_and_each_departure():
    here = site().wanting(events=ALL - {EventType.DETECTED})
    for day in range(3):
        here.now += 86_400
        modified = round(here.now * 1000)
        scanned(here, {"report.csv": (f"day {day}", modified, 1)})
        scanned(here, {})
        scanned(here, {})
    assert announced(here) == [("created", "report.csv"), ("deleted", "report.csv")] * 3
    assert here.states.objects() == {}


def test_what_is_still_gone_while_it_is_held_is_not_read_again():
    here = emptied()
    here.states.loads = 0
    scanned(here, {})
    assert here.states.loads == 0


def test_a_key_that_comes_back_changed_while_held_is_announced_as_updated():
    here = emptied()
    scanned(here, numbered(30, etag="new"))
    assert announced(here) == [("updated", key) for key in numbered(30)]


def test_a_released_deletion_is_announced_by_the_next_scan_and_only_that_once():
    here = emptied()
    here.states.released = 30
    assert here.scan_to_the_end(FakeStorage({})).held is None
    assert announced(here) == [("deleted", key) for key in numbered(30)]
    assert here.states.objects() == {}
    scanned(here, numbered(30))
    announced(here)
    assert here.scan_to_the_end(FakeStorage({})).held is not None


def test_a_release_does_not_delete_what_came_back_meanwhile():
    here = emptied()
    here.states.released = 30
    scanned(here, numbered(30))
    assert announced(here) == []


def test_a_second_look_releases_a_deletion_that_still_stands_after_so_long():
    here = emptied()
    here.settings = replace(here.settings, second_look_s=600)
    here.now += 599
    assert here.scan_to_the_end(FakeStorage({})).held is not None
    here.now += 1
    assert here.scan_to_the_end(FakeStorage({})).held is None
    assert announced(here) == [("deleted", key) for key in numbered(30)]


def test_a_second_look_begins_anew_when_the_objects_were_back_in_between():
    here = emptied()
    here.settings = replace(here.settings, second_look_s=600)
    scanned(here, numbered(30))
    here.now += 1000
    end = here.scan_to_the_end(FakeStorage({}))
    assert end.held is not None
    assert end.held.since == here.now
    assert announced(here) == []


def test_a_mass_deletion_is_counted_over_slices_crashes_and_lanes():
    here = site(page_size=50, lanes=4, slice_s=0.0)
    bucket = numbered(2000)
    scanned(here, bucket)
    announced(here)
    left = FakeStorage(dict(list(bucket.items())[1001:]))
    crashing = iter([False, True, False, False, True, True])

    here.states.before_commit = lambda: crash_if(next(crashing, False))
    slices = 0
    end: PassEnd | None = None
    while end is None or not end.complete:
        slices += 1
        try:
            end = here.scan(left)
        except Crash:
            continue
    assert slices > 10
    assert end.held is not None
    assert (end.held.missing, end.held.known) == (1001, 2000)
    assert announced(here) == []


def test_deletions_are_committed_over_slices_and_crashes_each_once():
    here = site(page_size=50, slice_s=0.0)
    bucket = numbered(2000)
    scanned(here, bucket)
    announced(here)
    crashing = iter([False, True] * 8)

    here.states.after_commit = lambda: crash_if(next(crashing, False))
    gone = list(bucket)[::3]
    end = here.scan_to_the_end(FakeStorage(without(bucket, *gone)))
    assert end.held is None
    assert announced(here) == [("deleted", key) for key in gone]
    assert here.states.objects() == without(bucket, *gone)


def test_between_deletions_the_slot_is_given_back_when_the_slice_is_over():
    here = site(page_size=50, slice_s=0.0)
    bucket = numbered(500)
    scanned(here, bucket)
    left = FakeStorage(without(bucket, *list(bucket)[::3]))
    while not here.states.progress or not here.states.progress.is_listed:
        assert not here.scan(left).complete
    pauses = count()
    while not here.scan(left).complete:
        next(pauses)
    assert next(pauses) >= 500 // 50 - 2  # not before the first deletion, nor after the last


def test_a_released_mass_deletion_is_not_held_again_half_way():
    here = site(page_size=50, slice_s=0.0)
    scanned(here, numbered(2000))
    left = FakeStorage(numbered(500))
    assert here.scan_to_the_end(left).held is not None
    announced(here)
    here.states.released = 1500
    assert here.scan_to_the_end(left).held is None
    assert len(announced(here)) == 1500


@pytest.mark.parametrize(("left", "is_held"), [(490, False), (200, True), (0, True)])
def test_what_is_gone_beyond_a_confirmed_deletion_may_be_a_mass_deletion_too(left, is_held):
    """Between the look and the confirmation the rest went as well, or the endpoint lies."""
    here = site(page_size=50, mass_minimum=400)
    scanned(here, numbered(2000))
    here.scan_to_the_end(FakeStorage(numbered(500)))
    announced(here)
    here.states.released = 1500
    held = here.scan_to_the_end(FakeStorage(numbered(left))).held
    assert (held is not None) == is_held
    assert len(announced(here)) == (0 if is_held else 2000 - left)


def test_a_deleted_object_says_what_it_was():
    here = site()
    scanned(here, {"key": ("one", OLD, 7), "other": ("e", OLD, 1)})
    here.states.queue.clear()
    scanned(here, {"other": ("e", OLD, 1)})
    [event] = here.states.queue
    assert (event["etag"], event["size"], event["last_modified"]) == ("one", 7, OLD / 1000)
    assert event["previous"] == {"etag": "one", "size": 7, "last_modified": OLD / 1000}
