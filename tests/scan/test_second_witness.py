"""A deletion takes two witnesses: a complete listing, and HEAD or another listing."""

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

import pytest

from scanning.core.changes import Version
from scanning.core.deletions import Confirm, HeadAnswer
from scanning.core.errors import StorageUnavailable
from scanning.core.scan_warnings import ScanWarning, WarningKind
from scanning.scan.second_witness import (
    BULK_THRESHOLD,
    HEADS_AT_ONCE,
    SAMPLE_SIZE,
    UNANSWERED_LIMIT,
)
from tests.support.fakes import Bucket, Crash, FakeStorage, Site, crash_if
from tests.support.sites import NEW, OLD, announced, numbered, scanned, site, without

CONTRADICTED = WarningKind.CONTRADICTED_ABSENCE
UNCONFIRMED = WarningKind.UNCONFIRMED_ABSENCE
INTERVAL_S = 60.0


class Lying(FakeStorage):
    """Leaves ``hidden`` keys out of its listings; HEAD tells the truth, or what ``head`` says."""

    def __init__(
        self,
        objects: Bucket,
        hidden: Collection[str] = (),
        *,
        head: Callable[[str], Version | HeadAnswer] | None = None,
    ) -> None:
        super().__init__(without(objects, *hidden))
        self.truth, self.head_says = objects, head
        self.looked_up: list[str] = []

    def look_up(self, key: str) -> Version | HeadAnswer:
        self.looked_up.append(key)
        if self.head_says is not None:
            return self.head_says(key)
        return FakeStorage(self.truth).look_up(key)


def refused(key: str) -> HeadAnswer:
    return HeadAnswer.REFUSED


def fails(key: str) -> HeadAnswer:
    raise StorageUnavailable(f"no answer for {key}")


def knowing(bucket: Bucket, **settings: Any) -> Site:
    here = site(page_size=100, **settings)
    scanned(here, bucket)
    announced(here)
    return here


def deleted(*keys: str) -> list[tuple[str, str]]:
    return [("deleted", key) for key in keys]


# --- HEAD


def test_a_key_that_is_missing_from_the_listing_and_by_head_is_deleted():
    bucket = numbered(50)
    here = knowing(bucket)
    storage = Lying(without(bucket, "key-00007"))
    end = here.scan_to_the_end(storage)
    assert announced(here) == deleted("key-00007")
    assert end.warnings == ()
    [no_key, gone] = storage.looked_up
    assert no_key not in bucket
    assert gone == "key-00007"


def test_what_a_listing_leaves_out_and_head_shows_is_kept_and_warned_of():
    bucket = numbered(50)
    here = knowing(bucket)
    hidden = ["key-00003", "key-00007", "key-00049"]
    for _ in range(2):
        end = here.scan_to_the_end(Lying(without(bucket, "key-00008"), hidden))
        assert end.warnings == (ScanWarning(CONTRADICTED, 3, tuple(hidden)),)
        assert here.states.objects() == without(bucket, "key-00008")
    assert announced(here) == deleted("key-00008")
    assert here.scan_to_the_end(Lying(without(bucket, "key-00008"))).warnings == ()
    assert announced(here) == []


def test_an_object_that_changed_unseen_is_updated_when_it_is_listed_again():
    bucket = numbered(50)
    here = knowing(bucket)
    scanned_end = here.scan_to_the_end(Lying(bucket, ["key-00007"]))
    assert [warning.kind for warning in scanned_end.warnings] == [CONTRADICTED]
    scanned(here, bucket | {"key-00007": ("n", NEW, 2)})
    assert announced(here) == [("updated", "key-00007")]


def test_an_object_that_is_put_back_before_it_is_asked_for_is_no_contradiction():
    bucket = numbered(50)
    here = knowing(bucket)
    now = bucket | {"key-00007": ("n", NEW, 2)}
    assert here.scan_to_the_end(Lying(now, ["key-00007"])).warnings == ()
    assert announced(here) == []
    scanned(here, now)
    assert announced(here) == [("updated", "key-00007")]


def test_a_head_that_a_witness_refuses_means_that_the_object_is_there():
    """Who may list and not read is told 404 for a missing key, and 403 for one that is there."""
    bucket = numbered(50)
    here = knowing(bucket)
    truth = without(bucket, "key-00008")

    def head(key: str) -> HeadAnswer:
        return HeadAnswer.REFUSED if key in truth else HeadAnswer.GONE

    end = here.scan_to_the_end(Lying(truth, ["key-00007"], head=head))
    assert end.warnings == (ScanWarning(CONTRADICTED, 1, ("key-00007",)),)
    assert announced(here) == deleted("key-00008")


def test_a_head_that_fails_confirms_nothing_and_fails_no_scan():
    bucket = numbered(50)
    here = knowing(bucket)
    truth = without(bucket, "key-00007", "key-00008")

    def head(key: str) -> HeadAnswer:
        return fails(key) if key == "key-00007" else HeadAnswer.GONE

    assert here.scan_to_the_end(Lying(truth, head=head)).warnings == ()
    assert announced(here) == deleted("key-00008")
    here.scan_to_the_end(Lying(truth, head=fails))
    assert announced(here) == []
    here.scan_to_the_end(Lying(truth))
    assert announced(here) == deleted("key-00007")


def test_a_server_that_answers_no_head_is_not_asked_for_every_key():
    bucket = numbered(900)
    here = knowing(bucket)
    first = iter([HeadAnswer.GONE])
    storage = Lying(numbered(10), head=lambda key: next(first, None) or fails(key))
    assert here.scan_to_the_end(storage).complete
    assert len(storage.looked_up) <= 1 + UNANSWERED_LIMIT + HEADS_AT_ONCE
    assert announced(here) == []


def test_several_keys_are_asked_for_at_once():
    bucket = numbered(50)
    here = knowing(bucket)
    all_asked = threading.Barrier(HEADS_AT_ONCE)

    def head(key: str) -> HeadAnswer:
        if key in bucket:
            all_asked.wait(timeout=30)
        return HeadAnswer.GONE

    here.scan_to_the_end(Lying(without(bucket, *list(bucket)[:HEADS_AT_ONCE]), head=head))
    assert announced(here) == deleted(*list(bucket)[:HEADS_AT_ONCE])


@pytest.mark.parametrize("commits", range(4))
def test_a_crash_between_witness_and_commit_asks_again(commits):
    bucket = numbered(500)
    here = knowing(bucket)
    gone = ["key-00007", "key-00207", "key-00407"]
    left = iter([False] * commits + [True])
    here.states.before_commit = lambda: crash_if(next(left, False))
    storage = Lying(without(bucket, *gone))
    here.scan_to_the_end(storage)
    assert announced(here) == deleted(*gone)
    assert set(gone) <= set(storage.looked_up)


def test_what_is_not_confirmed_is_asked_once_a_pass_also_in_time_slices():
    bucket = numbered(500)
    here = knowing(bucket, slice_s=0.0)
    hidden = ["key-00007", "key-00207", "key-00407"]
    storage = Lying(bucket, hidden)
    end = here.scan_to_the_end(storage)
    assert [key for key in storage.looked_up if key in bucket] == hidden
    assert end.warnings == (ScanWarning(CONTRADICTED, 3, tuple(hidden)),)


# --- the next listing


def refusing(bucket: Bucket, *hidden: str) -> Lying:
    return Lying(bucket, hidden, head=refused)


def test_where_head_is_refused_the_next_listing_an_interval_later_confirms():
    bucket = numbered(50)
    here = knowing(bucket)
    left = without(bucket, "key-00007")
    end = here.scan_to_the_end(refusing(left))
    assert end.warnings == (ScanWarning(UNCONFIRMED, 1, ("key-00007",)),)
    here.now += INTERVAL_S / 2  # somebody scans by hand
    here.scan_to_the_end(refusing(left))
    assert announced(here) == []
    here.now += INTERVAL_S / 2
    assert here.scan_to_the_end(refusing(left)).warnings == ()
    assert announced(here) == deleted("key-00007")


def test_what_only_one_listing_leaves_out_is_never_deleted():
    bucket = numbered(50)
    here = knowing(bucket)
    for turn in range(10):
        here.scan_to_the_end(refusing(bucket, f"key-{turn % 2:05d}"))
        here.now += INTERVAL_S
    assert announced(here) == []
    assert here.states.objects() == bucket


def test_marks_of_the_earlier_listing_stay_with_their_rows():
    bucket = numbered(300, step=2)
    here = knowing(bucket)
    gone = ["key-00100", "key-00104"]
    left = without(bucket, *gone)
    here.scan_to_the_end(refusing(left))
    here.now += INTERVAL_S
    # Rows come and go around them, and a segment is cut into two.
    new: Bucket = {f"key-{number:05d}": ("e", OLD, 1) for number in range(1, 300, 2)}
    here.scan_to_the_end(refusing(without(left | new, "key-00106")))
    events = announced(here)
    assert [key for kind, key in events if kind == "deleted"] == gone
    here.now += INTERVAL_S
    here.scan_to_the_end(refusing(without(left | new, "key-00106")))
    assert announced(here) == deleted("key-00106")


def test_a_hold_that_is_released_was_the_first_listing_where_head_is_refused():
    bucket = numbered(200)
    here = knowing(bucket, mass_minimum=100)
    left = numbered(10)
    assert here.scan_to_the_end(refusing(left)).held is not None
    here.now += INTERVAL_S
    here.states.released = 190
    assert here.scan_to_the_end(refusing(left)).held is None
    assert announced(here) == deleted(*list(bucket)[10:])


def test_the_setting_may_ask_for_a_second_listing_or_for_no_witness():
    bucket = numbered(50)
    here = knowing(bucket, confirm=Confirm.LISTING)
    storage = Lying(bucket, ["key-00007"])
    assert here.scan_to_the_end(storage).warnings == ()
    assert announced(here) == []
    here.now += INTERVAL_S
    here.scan_to_the_end(storage)
    assert announced(here) == deleted("key-00007")
    here.settings = replace(here.settings, confirm=Confirm.NONE)
    here.scan_to_the_end(Lying(bucket, ["key-00007", "key-00008"]))
    assert announced(here) == deleted("key-00008")
    assert storage.looked_up == []


def test_a_released_hold_takes_a_second_witness_too():
    bucket = numbered(200)
    here = knowing(bucket, mass_minimum=100)
    hidden = list(bucket)[10:]
    assert here.scan_to_the_end(Lying(bucket, hidden)).held is not None
    here.states.released = 190
    end = here.scan_to_the_end(Lying(bucket, hidden))
    assert announced(here) == []
    assert [(warning.kind, warning.count) for warning in end.warnings] == [(CONTRADICTED, 190)]
    scanned(here, bucket)
    assert announced(here) == []


# --- many missing keys at once


@dataclass
class Many:
    here: Site
    bucket: Bucket
    gone: list[str]

    @property
    def left(self) -> Bucket:
        return without(self.bucket, *self.gone)


@pytest.fixture
def many() -> Many:
    bucket = numbered(4000)
    return Many(knowing(bucket), bucket, list(bucket)[1000 : 1000 + BULK_THRESHOLD + 500])


def test_many_missing_keys_are_listed_again_and_a_sample_is_asked_for(many):
    storage = Lying(many.left)
    assert many.here.scan_to_the_end(storage).warnings == ()
    assert announced(many.here) == deleted(*many.gone)
    assert len(storage.looked_up) == 1 + SAMPLE_SIZE
    pages = -(-len(many.left) // 100)
    assert storage.requests <= pages + 2  # the range that they were in is empty


def test_if_head_shows_one_of_many_none_of_them_is_announced(many):
    storage = Lying(many.bucket, many.gone)
    end = many.here.scan_to_the_end(storage)
    assert announced(many.here) == []
    assert [(warning.kind, warning.count) for warning in end.warnings] == [
        (CONTRADICTED, len(many.gone))
    ]
    assert many.here.states.objects() == many.bucket
    many.here.scan_to_the_end(Lying(many.left))
    assert announced(many.here) == deleted(*many.gone)


class ShowsOneAgain(Lying):
    """Its HEAD and its first listing know nothing of a key that the second listing shows."""

    def __init__(self, objects: Bucket, again: Bucket) -> None:
        super().__init__(objects)
        self._again = again

    def look_up(self, key: str) -> Version | HeadAnswer:
        self.objects = self.objects | self._again
        return HeadAnswer.GONE


def test_if_the_second_listing_shows_one_of_many_none_of_them_is_announced(many):
    key = many.gone[700]
    end = many.here.scan_to_the_end(ShowsOneAgain(many.left, {key: many.bucket[key]}))
    assert announced(many.here) == []
    assert end.warnings == (ScanWarning(CONTRADICTED, len(many.gone), (key,)),)


def test_one_of_many_that_is_put_back_meanwhile_is_waited_for_and_not_warned_of(many):
    key = many.gone[700]
    back: Bucket = {key: ("n", NEW, 2)}
    assert many.here.scan_to_the_end(ShowsOneAgain(many.left, back)).warnings == ()
    assert announced(many.here) == []
    many.here.scan_to_the_end(Lying(many.left | back))
    many.gone.remove(key)
    assert announced(many.here) == [("updated", key), *deleted(*many.gone)]


def test_many_are_deleted_in_slices_that_each_confirm_what_is_left(many):
    many.here.settings = replace(many.here.settings, slice_s=0.0)
    many.here.scan_to_the_end(Lying(many.left))
    assert announced(many.here) == deleted(*many.gone)


def test_many_are_not_deleted_because_an_earlier_slice_had_another_witness(many):
    many.here.settings = replace(many.here.settings, slice_s=0.0)
    progress = many.here.states
    while not (progress.progress and progress.progress.is_listed and progress.progress.after):
        assert not many.here.scan(refusing(many.bucket, *many.gone)).complete
    many.here.scan_to_the_end(Lying(many.bucket, many.gone))
    assert announced(many.here) == []


def test_many_wait_for_the_next_pass_if_head_fails(many):
    first = iter([HeadAnswer.GONE])
    end = many.here.scan_to_the_end(
        Lying(many.left, head=lambda key: next(first, None) or fails(key))
    )
    assert end.warnings == ()
    assert announced(many.here) == []


def test_a_pass_that_crashes_among_many_says_each_of_them_once(many):
    crashes = iter([False] * 3 + [True] + [False] * 2 + [True])
    many.here.states.after_commit = lambda: crash_if(next(crashes, False))
    with pytest.raises(Crash):
        many.here.scan(Lying(many.left))
    many.here.scan_to_the_end(Lying(many.left))
    assert announced(many.here) == deleted(*many.gone)
