"""A bucket of which nothing, or not much, is known is listed in lanes that split it on the way."""

import threading
from contextlib import suppress
from dataclasses import replace
from hashlib import md5

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanning.ports import Progress
from tests.support.fakes import Bucket, Crash, FakePage, FakeStorage, Site, crash_if
from tests.support.sites import OLD, announced, numbered, site

PREFIXES = ["", "a/", "data/2024/", "é/\U0001f600"]
KEYS = st.tuples(st.sampled_from(PREFIXES), st.text("0123456789abcdef", min_size=1, max_size=4))
SETS = st.sets(KEYS.map("".join), max_size=60) | st.integers(0, 120).map(
    lambda count: {f"key-{number:05d}" for number in range(count)}
)


class Counted(FakeStorage):
    """Notes which keys were listed, and after which ones."""

    def __init__(self, objects: Bucket) -> None:
        super().__init__(objects)
        self.after: list[str] = []
        self.listed: list[str] = []
        self._lock = threading.Lock()

    def page(self, start_after: str, max_keys: int) -> FakePage:
        with self._lock:
            page = super().page(start_after, max_keys)
            self.after.append(start_after)
            self.listed += (key for key in self.objects if start_after < key <= page.last_key)
            return page


def in_slices(slice_s: float, page_size: int, lanes: int) -> Site:
    """A site where each commit takes a second."""
    here = site(page_size, lanes=lanes, slice_s=slice_s)

    def pass_a_second() -> None:
        here.now += 1

    here.states.before_commit = pass_a_second
    return here


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
    here = site(page_size, lanes=lanes)
    storage = Counted(bucket_of(keys))
    here.settings = replace(here.settings, slice_s=1e9)
    here.scan(storage)
    assert found(here) == detected(keys)
    check_segments(here, keys)
    pages = pages_of(keys, page_size)
    assert len(storage.after) <= (pages if lanes == 1 or pages == 1 else 2 * pages + 4)


SLICES = st.integers(0, 30).map(float)


@settings(max_examples=50)
@given(SETS, st.integers(1, 8), st.integers(2, 6), SLICES, st.lists(st.booleans(), max_size=12))
def test_after_pauses_and_crashes_nothing_that_was_committed_is_listed_again(
    keys, page_size, lanes, slice_s, crashes
):
    here = in_slices(slice_s, page_size, lanes)
    storage = Counted(bucket_of(keys))
    crashing = iter(crashes)
    here.states.after_commit = lambda: crash_if(next(crashing, False))
    complete = False
    while not complete:
        before, gaps = set(here.states.objects()), len(here.states.ahead) + 1
        storage.listed.clear()
        with suppress(Crash):
            complete = here.scan(storage).complete
        # The last page of a gap may reach into what is known behind that, as may a page that was
        # under way when its lane was split.
        again = len(before.intersection(storage.listed))
        assert again <= page_size * (gaps + lanes)
    assert found(here) == detected(keys)
    check_segments(here, keys)


@settings(max_examples=30)
@given(SETS, SETS, st.integers(1, 8), st.integers(1, 6), SLICES)
def test_what_is_appended_to_a_known_bucket_is_told_of_once(first, more, page_size, lanes, slice_s):
    here = in_slices(slice_s, page_size, lanes)
    here.scan_to_the_end(Counted(bucket_of(first)))
    announced(here)
    appended = {"z" + key for key in more}
    here.scan_to_the_end(Counted(bucket_of(first | appended)))
    assert found(here) == detected(appended)
    check_segments(here, first | appended)


@given(SETS, st.integers(1, 8), st.integers(2, 5), SLICES, st.lists(st.booleans(), max_size=12))
@settings(max_examples=30)
def test_a_baseline_in_lanes_is_silent_whatever_breaks_it_off(
    keys, page_size, lanes, slice_s, crashes
):
    here = in_slices(slice_s, page_size, lanes).wanting(first_scan="baseline")
    crashing = iter(crashes)
    here.states.after_commit = lambda: crash_if(next(crashing, False))
    storage, complete = Counted(bucket_of(keys)), False
    while not complete:
        here.states.ahead = ()  # as if something else had committed meanwhile
        with suppress(Crash):
            complete = here.scan(storage).complete
    assert announced(here) == []
    check_segments(here, keys)


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("begins_anew", [False, True])
def test_a_baseline_tells_of_what_came_into_what_a_lane_had_listed(begins_anew, lanes):
    bucket = numbered(300)
    here = site(10, lanes=lanes).wanting(first_scan="baseline")
    # As lanes leave it: 100 objects are listed, and behind a gap 50 more.
    here.scan_to_the_end(FakeStorage({key: bucket[key] for key in sorted(bucket)[:100]}))
    here.scan_to_the_end(
        FakeStorage({key: bucket[key] for key in [*sorted(bucket)[:100], *sorted(bucket)[203:253]]})
    )
    announced(here)
    here.states.complete = False
    here.states.progress = Progress(began=here.now, after="key-00099", listed=150)
    here.states.ahead = (("key-00202", "key-00252"),)
    if begins_anew:
        here.states.stuck = 5
    here.now += 3600
    came_late = ("n", OLD, 1)  # when its upload began, says the server
    there = {"key-00055-new": came_late, "key-00225-new": came_late, "key-00300": came_late}
    storage = Counted(bucket | there)
    here.scan_to_the_end(storage)
    if begins_anew:
        assert found(here) == [("detected", "key-00055-new"), ("detected", "key-00225-new")]
    else:
        assert found(here) == []
        assert "key-00247" not in storage.listed
        here.states.stuck = 0
        here.scan_to_the_end(storage)
        assert found(here) == [("detected", "key-00055-new"), ("detected", "key-00225-new")]
    check_segments(here, set(storage.objects))


def test_lanes_share_the_work_of_a_first_pass():
    digests = {md5(str(number).encode()).hexdigest() for number in range(600)}  # noqa: S324
    here = site(10, lanes=4)
    storage = Counted(bucket_of(digests))
    asking: set[int] = set()
    page = storage.page

    def seen(start_after: str, max_keys: int) -> FakePage:
        asking.add(threading.get_ident())
        return page(start_after, max_keys)

    storage.page = seen  # type: ignore[method-assign]
    here.scan_to_the_end(storage)
    assert len(asking) > 2
    assert found(here) == detected(digests)


def test_a_server_that_lists_all_that_is_before_a_key_is_asked_for_no_page_more():
    class BeginsAtTheStart(Counted):
        def begins_anywhere(self) -> bool:
            return False

    here = site(10, lanes=4)
    storage = BeginsAtTheStart(numbered(300))
    here.scan_to_the_end(storage)
    assert len(storage.after) == 30


def test_a_server_that_answers_at_once_is_asked_for_no_page_more():
    here = site(10, lanes=4)
    storage = Counted(numbered(300))
    here.settings = replace(here.settings, slow_page_s=60.0)
    here.scan_to_the_end(storage)
    assert len(storage.after) == 30
