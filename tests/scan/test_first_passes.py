"""A bucket of which nothing, or not much, is known is listed in lanes that split it on the way."""

import threading
from dataclasses import replace
from hashlib import md5

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.fakes import Bucket, Crash, FakePage, FakeStorage, Site, crash_if
from tests.support.sites import NEW, OLD, announced, numbered, site

PREFIXES = ["", "a/", "data/2024/", "é/\U0001f600"]
KEYS = st.tuples(st.sampled_from(PREFIXES), st.text("0123456789abcdef", min_size=1, max_size=4))
SETS = st.sets(KEYS.map("".join), max_size=60) | st.integers(0, 120).map(
    lambda count: {f"key-{number:05d}" for number in range(count)}
)


class Counted(FakeStorage):
    """Notes after which keys pages were asked for."""

    def __init__(self, objects: Bucket) -> None:
        super().__init__(objects)
        self.after: list[str] = []
        self._lock = threading.Lock()

    def page(self, start_after: str, max_keys: int) -> FakePage:
        with self._lock:
            self.after.append(start_after)
            return super().page(start_after, max_keys)


def found(here: Site) -> list[tuple[str, str]]:
    return sorted(announced(here))


def detected(keys: set[str]) -> list[tuple[str, str]]:
    return sorted(("detected", key) for key in keys)


def bucket_of(keys: set[str]) -> Bucket:
    return dict.fromkeys(keys, ("e", OLD, 1))


def check_segments(here: Site, keys: set[str]) -> None:
    after = ""
    for entry in here.states.open(here.bucket).entries:
        rows = here.states.segments[entry.id].keys
        assert after < rows[0]
        assert (rows[-1], len(rows)) == (entry.last_key, entry.count)
        after = entry.last_key
    assert set(here.states.objects()) == keys


def pages_of(keys: set[str], page_size: int) -> int:
    return max(1, -(-len(keys) // page_size))


@given(SETS, st.integers(1, 12), st.integers(1, 6))
def test_a_first_pass_tells_of_each_key_once_and_asks_for_not_much_more_than_its_pages(
    keys, page_size, lanes
):
    here, storage = site(page_size, lanes=lanes), Counted(bucket_of(keys))
    here.scan(storage)
    assert found(here) == detected(keys)
    check_segments(here, keys)
    pages = pages_of(keys, page_size)
    assert len(storage.after) <= (pages if lanes == 1 or pages == 1 else 2 * pages + 4)


@settings(max_examples=30)
@given(SETS, st.integers(1, 12), st.integers(2, 6), st.lists(st.booleans(), max_size=12))
def test_after_pauses_and_crashes_nothing_that_was_committed_is_listed_again(
    keys, page_size, lanes, crashes
):
    here, storage = site(page_size, lanes=lanes, slice_s=0.0), Counted(bucket_of(keys))
    crashing = iter(crashes)
    here.states.after_commit = lambda: crash_if(next(crashing, False))
    known: list[str] = []

    def page(start_after: str, max_keys: int) -> FakePage:
        listed = FakeStorage.page(storage, start_after, max_keys)
        known.extend(key for key in sorted(keys) if start_after < key <= listed.last_key)
        return listed

    storage.page = page  # type: ignore[method-assign]
    complete = False
    while not complete:
        before = set(here.states.objects())
        known.clear()
        try:
            complete = here.scan(storage).complete
        except Crash:
            complete = False
        # A page may begin in a gap, and reach into what is known behind that.
        assert len(before.intersection(known)) <= page_size * lanes * 2
    assert found(here) == detected(keys)
    check_segments(here, keys)


@settings(max_examples=30)
@given(SETS, SETS, st.integers(1, 12), st.integers(1, 6), st.sampled_from([0.0, 1e9]))
def test_what_is_appended_to_a_known_bucket_is_told_of_once(first, more, page_size, lanes, slice_s):
    here = site(page_size, lanes=lanes, slice_s=slice_s)
    here.scan_to_the_end(FakeStorage(bucket_of(first)))
    announced(here)
    appended = {"z" + key for key in more}
    here.scan_to_the_end(FakeStorage(bucket_of(first | appended)))
    assert found(here) == detected(appended)
    check_segments(here, first | appended)


@given(SETS, st.integers(1, 12), st.integers(2, 5), st.lists(st.booleans(), max_size=12))
@settings(max_examples=30)
def test_a_baseline_in_lanes_is_silent_whatever_breaks_it_off(keys, page_size, lanes, crashes):
    here = site(page_size, lanes=lanes, slice_s=0.0).wanting(first_scan="baseline")
    crashing = iter(crashes)
    here.states.after_commit = lambda: crash_if(next(crashing, False))
    # Whatever was committed meanwhile: what lanes were ahead is not known then.
    here.states.before_commit = lambda: setattr(here.states, "ahead", ())
    here.scan_to_the_end(FakeStorage(bucket_of(keys)))
    assert announced(here) == []
    check_segments(here, keys)


@pytest.mark.parametrize("is_forgotten", [False, True], ids=["goes-on", "begins-anew"])
def test_a_baseline_tells_of_what_came_into_what_it_had_listed(is_forgotten):
    here = site(10, lanes=3, slice_s=0.0).wanting(first_scan="baseline")
    bucket = numbered(300)
    while len(here.states.objects()) < 150:
        here.scan(FakeStorage(bucket))
    if is_forgotten:
        here.states.stuck = 5
    new = {f"{entry.last_key}-new": ("n", NEW, 1) for entry in here.states.manifest.values()}
    here.now += 3600
    later = {key: (etag, round(here.now * 1000), size) for key, (etag, _, size) in new.items()}
    here.scan(FakeStorage(bucket | later))
    here.states.stuck = 0
    for _ in range(2):
        here.scan_to_the_end(FakeStorage(bucket | later))
    assert found(here) == sorted(("created", key) for key in later)


def test_lanes_share_the_work_of_a_first_pass():
    digests = {md5(str(number).encode()).hexdigest() for number in range(600)}  # noqa: S324
    here, storage = site(10, lanes=4), Counted(bucket_of(digests))
    asking: set[int] = set()
    page = storage.page

    def seen(start_after: str, max_keys: int) -> FakePage:
        asking.add(threading.get_ident())
        return page(start_after, max_keys)

    storage.page = seen  # type: ignore[method-assign]
    here.scan(storage)
    assert len(asking) > 2
    assert found(here) == detected(digests)


def test_a_server_that_lists_all_that_is_before_a_key_is_asked_for_no_page_more():
    class BeginsAtTheStart(Counted):
        def begins_anywhere(self) -> bool:
            return False

    here, storage = site(10, lanes=4), BeginsAtTheStart(numbered(300))
    here.scan(storage)
    assert len(storage.after) == 30


def test_a_server_that_answers_at_once_is_asked_for_no_page_more():
    here, storage = site(10, lanes=4), Counted(numbered(300))
    here.settings = replace(here.settings, slow_page_s=60.0)
    here.scan(storage)
    assert len(storage.after) == 30
