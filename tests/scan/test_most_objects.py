"""A bucket with more objects than it may have: what is known stays watched, and it recovers."""

from dataclasses import replace
from typing import Any

import pytest

from scanning.core.errors import StorageUnavailable, TooManyObjects
from scanning.core.scan_warnings import WarningKind
from tests.support.fakes import Bucket, FakePage, FakeStorage, Site, columns_of
from tests.support.sites import NEW, announced, numbered, scanned, site

LIMIT = 40


def limited(**settings: Any) -> Site:
    return site(**{"mass_minimum": 100_000, "most_objects": LIMIT} | settings)


def grown_beyond_the_limit(more: Bucket, *, known: int = LIMIT, **settings: object) -> Site:
    """Scan a bucket that keeps to the limit, and then the same with ``more``."""
    here = limited(**settings)
    scanned(here, numbered(known))
    announced(here)
    end = here.scan_to_the_end(FakeStorage(numbered(known) | more))
    assert isinstance(end.error, TooManyObjects)
    return here


def named(prefix: str, count: int) -> Bucket:
    return {f"{prefix}-{number:05d}": ("new", NEW, 1) for number in range(count)}


def test_up_to_the_limit_nothing_is_left_out():
    here = limited()
    end = here.scan_to_the_end(FakeStorage(numbered(LIMIT)))
    assert (end.error, end.warnings, len(here.states.objects())) == (None, (), LIMIT)


@pytest.mark.parametrize("lanes", [1, 4])
@pytest.mark.parametrize(
    "prefix",
    [
        pytest.param("key-0001", id="between-the-known"),
        pytest.param("a", id="before-them"),
        pytest.param("z", id="behind-them"),
    ],
)
def test_what_is_known_stays_watched_while_new_objects_are_left_out(prefix, lanes):
    here = grown_beyond_the_limit(named(prefix, 25), known=LIMIT - 3, lanes=lanes)
    assert len(announced(here)) == 3
    known = here.states.objects()
    bucket = numbered(LIMIT - 3) | named(prefix, 25)
    bucket["key-00020"] = ("other", NEW, 2)
    gone = next(key for key in known if key.startswith(prefix))
    bucket.pop(gone)

    end = here.scan_to_the_end(FakeStorage(bucket))

    assert sorted(announced(here)) == [("deleted", gone), ("updated", "key-00020")]
    assert isinstance(end.error, TooManyObjects)
    assert "has more than 40 objects, the most that it may (SCAN_MOST_OBJECTS" in str(end.error)
    assert len(here.states.objects()) == LIMIT - 1  # its place is free for the next scan


def test_what_was_left_out_is_announced_once_when_there_is_room():
    here = grown_beyond_the_limit(named("key-0001", 10))
    bucket = numbered(LIMIT) | named("key-0001", 10)
    assert announced(here) == []

    here.settings = replace(here.settings, most_objects=100)
    end = here.scan_to_the_end(FakeStorage(bucket))

    assert (end.error, end.warnings) == (None, ())
    assert announced(here) == [("created", key) for key in named("key-0001", 10)]
    scanned(here, bucket)
    assert announced(here) == []
    assert here.states.objects() == bucket


@pytest.mark.parametrize("is_baseline", [False, True])
def test_a_bucket_that_was_too_large_and_has_shrunk_recovers_by_itself(is_baseline):
    here = limited().wanting(first_scan="baseline" if is_baseline else "announce")
    end = here.scan_to_the_end(FakeStorage(numbered(90)))
    assert isinstance(end.error, TooManyObjects)
    assert len(here.states.objects()) == LIMIT
    announced(here)

    # None of the objects that are left was known.
    left = {key: numbered(90)[key] for key in list(numbered(90))[60:]}
    here.now += 3600
    ends = [here.scan_to_the_end(FakeStorage(left)) for _ in range(3)]

    assert [end.error is None for end in ends] == [False, True, True]
    assert here.states.objects() == left
    found = announced(here)
    assert [key for kind, key in found if kind == "deleted"] == list(numbered(LIMIT))
    detected = [key for kind, key in found if kind == "detected"]
    assert detected == ([] if is_baseline else list(left))
    here.scan_to_the_end(FakeStorage(left | {"new": ("new", round(here.now * 1000), 1)}))
    assert announced(here) == [("created", "new")]


def test_a_baseline_is_silent_about_what_it_left_out_also_when_there_is_room():
    here = limited().wanting(first_scan="baseline")
    here.scan_to_the_end(FakeStorage(numbered(90)))
    here.settings = replace(here.settings, most_objects=0)
    end = here.scan_to_the_end(FakeStorage(numbered(90)))
    assert (end.error, announced(here)) == (None, [])
    assert here.states.objects() == numbered(90)


def test_a_lower_limit_forgets_nothing():
    here = limited(most_objects=0)
    scanned(here, numbered(90))
    announced(here)
    here.settings = replace(here.settings, most_objects=LIMIT)
    end = here.scan_to_the_end(FakeStorage(numbered(90)))
    assert (end.error, announced(here), here.states.objects()) == (None, [], numbered(90))


def test_what_was_left_out_before_a_pause_counts_at_the_end_of_the_pass():
    here = limited(slice_s=0.0)
    here.scan_to_the_end(FakeStorage(numbered(LIMIT)))
    bucket = numbered(LIMIT) | named("key-00001", 25)
    ends = [here.scan(FakeStorage(bucket))]
    while not ends[-1].complete:
        ends.append(here.scan(FakeStorage(bucket)))
    assert len(ends) > 2
    [warning] = ends[-1].warnings
    assert (warning.kind, warning.count) == (WarningKind.LEFT_OUT, 25)


def test_a_held_mass_deletion_of_a_bucket_that_is_too_large_is_held_still():
    here = grown_beyond_the_limit(named("z", 25), mass_minimum=10)
    announced(here)
    end = here.scan_to_the_end(FakeStorage(named("z", 25)))
    assert end.held is not None
    assert (end.held.missing, announced(here)) == (LIMIT, [])
    # What somebody has to decide comes first: it makes room.
    assert end.error is None
    assert [warning.kind for warning in end.warnings] == [WarningKind.LEFT_OUT]
    here.states.released = LIMIT
    here.scan_to_the_end(FakeStorage(named("z", 25)))
    end = here.scan_to_the_end(FakeStorage(named("z", 25)))
    assert (end.error, end.warnings, here.states.objects()) == (None, (), named("z", 25))


class Endless(FakeStorage):
    """Lists known objects, and new ones without an end: behind ``before`` in each listing."""

    def __init__(self, objects: Bucket, *, before: str) -> None:
        super().__init__(objects)
        self.before, self.made = before, 0

    def page(self, start_after: str, max_keys: int) -> FakePage:
        if start_after < self.before:
            return super().page(start_after, max_keys)
        self.requests += 1
        keys = [f"{self.before}{self.made + n:012d}" for n in range(max_keys)]
        self.made += max_keys
        columns = columns_of(dict.fromkeys(keys, ("e", NEW, 1)))
        return FakePage(self.render(columns), keys[-1], is_truncated=True)


def test_an_endless_listing_behind_all_known_objects_costs_a_page():
    here = limited()
    scanned(here, numbered(LIMIT))
    endless = Endless(numbered(LIMIT) | {"y": ("e", NEW, 1)}, before="y")
    end = here.scan(endless)
    assert (end.complete, type(end.error)) == (True, TooManyObjects)
    assert endless.requests <= LIMIT // 10 + 3


def test_an_endless_listing_before_known_objects_ends_and_deletes_nothing():
    here = limited()
    known = numbered(LIMIT)
    scanned(here, known)
    announced(here)
    for _ in range(3):
        changed = known | {"key-00003": (f"{here.fence}", NEW, 1)}
        endless = Endless(changed, before="key-00009")
        end = here.scan(endless)
        # What is known before the endless rows is watched each time.
        assert announced(here) == [("updated", "key-00003")]
        assert (end.complete, type(end.error)) == (False, TooManyObjects)
        assert endless.requests <= 2 * LIMIT // 10 + 3
        assert here.states.objects() == changed


def test_keys_that_are_new_in_each_listing_fill_no_more_than_the_limit():
    here = limited()
    for number in range(10):
        here.scan_to_the_end(FakeStorage(named(f"{number}", 35)))
        assert len(here.states.objects()) <= LIMIT


def test_an_error_of_the_server_is_no_reason_to_forget_what_was_left_out():
    here = limited(slice_s=0.0)
    here.scan_to_the_end(FakeStorage(numbered(LIMIT)))
    bucket = numbered(LIMIT) | named("key-00001", 25)
    here.scan(FakeStorage(bucket))

    class Away(FakeStorage):
        def page(self, start_after: str, max_keys: int) -> FakePage:
            raise StorageUnavailable("away")

    with pytest.raises(StorageUnavailable):
        here.scan(Away(bucket))
    assert here.scan_to_the_end(FakeStorage(bucket)).error is not None
