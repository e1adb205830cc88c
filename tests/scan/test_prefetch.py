"""Listing ahead: in order in each lane, errors reach the taker, no thread outlives the block."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from scanning.core.errors import StorageUnavailable
from scanning.core.segments.matcher import Page
from scanning.scan.lane_splitter import Lane
from scanning.scan.prefetch import PAGES_AHEAD, PageLister, list_pages
from tests.support.fakes import Bucket, FakePage, FakeStorage
from tests.support.waiting import eventually

BUCKET: Bucket = {f"{number:03d}": ("e", 1, 1) for number in range(100)}
LANES = [Lane("", "029"), Lane("029", "059"), Lane("059", None)]


@contextmanager
def prefetch_pages(
    storage: FakeStorage, lanes: Sequence[Lane], *, slow_s: float = -1.0, **others: Any
) -> Iterator[Iterator[tuple[int, Page]]]:
    """List lanes; as a rule every page is slow enough to start threads."""
    with PageLister(storage, lanes, slow_s=slow_s, **others) as lister:
        yield iter(lister)


def listers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("list-")]


@pytest.fixture(autouse=True)
def _no_thread_outlives_a_test() -> Iterator[None]:
    yield
    assert listers() == []


class WatchedStorage(FakeStorage):
    """Calls ``at_page`` before each page, in the thread that lists."""

    def __init__(self, at_page: Callable[[str], object]) -> None:
        super().__init__(BUCKET)
        self.at_page = at_page

    def page(self, start_after: str, max_keys: int) -> FakePage:
        self.at_page(start_after)
        return super().page(start_after, max_keys)


def last_keys(pages: Iterable[Page]) -> list[str]:
    return [page.last_key for page in pages]


@pytest.mark.parametrize(
    ("lane", "expected"),
    [
        (Lane("", None), ["039", "079", "099"]),
        (Lane("050", None), ["090", "099"]),
        (Lane("", "039"), ["039"]),  # ends with a page
        (Lane("", "040"), ["039", "079"]),  # the last page reaches beyond the lane
        (Lane("090", "095"), ["099"]),
        (Lane("099", None), [""]),
    ],
)
def test_a_lane_is_listed_until_it_is_covered(lane, expected):
    assert last_keys(list_pages(FakeStorage(BUCKET), lane, page_size=40)) == expected


@pytest.mark.parametrize("lanes", [LANES, [Lane("", None)], [Lane("050", None)]])
def test_each_lanes_pages_come_in_their_order(lanes):
    taken: dict[int, list[str]] = {}
    with prefetch_pages(FakeStorage(BUCKET), lanes, page_size=7) as pages:
        for number, page in pages:
            taken.setdefault(number, []).append(page.last_key)
    expected = {
        number: last_keys(list_pages(FakeStorage(BUCKET), lane, page_size=7))
        for number, lane in enumerate(lanes)
    }
    assert taken == expected


def test_no_thread_is_started_for_a_bucket_of_one_page():
    asking = []
    storage = WatchedStorage(lambda _: asking.append(threading.current_thread()))
    with prefetch_pages(storage, [Lane("", None)], page_size=1000) as pages:
        assert listers() == []
        [(number, page)] = pages
    assert (number, page.last_key) == (0, "099")
    assert asking == [threading.current_thread()]


def test_the_first_page_is_asked_for_once():
    storage = FakeStorage(BUCKET)
    with prefetch_pages(storage, [Lane("", None)], page_size=40) as pages:
        assert len(list(pages)) == 3
    assert storage.requests == 3


def test_listing_runs_ahead_by_a_bounded_number_of_pages():
    storage = FakeStorage(BUCKET)
    with prefetch_pages(storage, [Lane("", None)], page_size=1) as pages:
        next(pages)
        # first page, a full queue, and the one that waits for a place
        eventually(lambda: storage.requests == 1 + PAGES_AHEAD + 1)
        next(pages)
        next(pages)
        eventually(lambda: storage.requests == 1 + PAGES_AHEAD + 3)


@pytest.mark.parametrize("failing", ["", "029", "059", "066"])
def test_an_error_in_one_lane_reaches_the_taker_and_ends_the_others(failing):
    def fail(start_after: str) -> None:
        if start_after == failing:
            raise StorageUnavailable("no answer")

    with (
        pytest.raises(StorageUnavailable, match="no answer"),
        prefetch_pages(WatchedStorage(fail), LANES, page_size=7) as pages,
    ):
        for _ in pages:
            pass
    assert listers() == []


def test_an_error_on_the_first_page_of_a_single_lane_reaches_the_taker():
    def fail(_: str) -> None:
        raise StorageUnavailable("no answer")

    with (
        pytest.raises(StorageUnavailable),
        prefetch_pages(WatchedStorage(fail), [Lane("", None)], page_size=7) as pages,
    ):
        next(pages)


def test_what_is_no_error_of_ours_reaches_the_taker_too():
    """A thread that dies without a word would leave the scan waiting for ever."""

    def stop(start_after: str) -> None:
        if start_after == "059":
            raise SystemExit

    with (
        pytest.raises(SystemExit),
        prefetch_pages(WatchedStorage(stop), LANES, page_size=7) as pages,
    ):
        for _ in pages:
            pass


@pytest.mark.parametrize("lanes", [LANES, [Lane("", None)]])
def test_leaving_early_ends_the_threads_although_they_wait_for_a_place(lanes):
    storage = FakeStorage(BUCKET)
    with prefetch_pages(storage, lanes, page_size=1) as pages:
        next(pages)
        eventually(lambda: storage.requests >= PAGES_AHEAD)
    assert listers() == []
    assert storage.requests < len(BUCKET)


def test_leaving_by_an_error_ends_the_threads_and_keeps_the_error():
    def take_one() -> None:
        with prefetch_pages(FakeStorage(BUCKET), LANES, page_size=1) as pages:
            next(pages)
            raise KeyError("ours")

    with pytest.raises(KeyError, match="ours"):
        take_one()
    assert listers() == []


def test_leaving_waits_for_a_request_under_way_and_asks_for_nothing_more():
    asked, answer = threading.Event(), threading.Event()

    def slow(start_after: str) -> None:
        if start_after == "029":
            asked.set()
            assert answer.wait(10)

    storage = WatchedStorage(slow)
    with prefetch_pages(storage, LANES, page_size=1000) as pages:
        next(pages)
        assert asked.wait(10)
        answer.set()
    assert storage.requests <= len(LANES)


@pytest.mark.parametrize("lanes", [LANES, [Lane("", None)], [Lane("050", None)]])
def test_a_server_that_answers_at_once_is_listed_lane_by_lane_without_threads(lanes):
    asking = set()
    storage = WatchedStorage(lambda _: asking.add(threading.current_thread()))
    with prefetch_pages(storage, lanes, page_size=7, slow_s=60.0) as pages:
        taken = [(number, page.last_key) for number, page in pages]
    assert taken == [
        (number, last)
        for number, lane in enumerate(lanes)
        for last in last_keys(list_pages(FakeStorage(BUCKET), lane, page_size=7))
    ]
    assert asking == {threading.current_thread()}


@pytest.mark.parametrize("slow_at", ["", "013", "027", "029", "059", "094"])
def test_from_the_first_slow_page_on_lanes_are_listed_ahead(slow_at, monkeypatch):
    now = 0.0

    def wait(start_after: str) -> None:
        nonlocal now
        now += start_after == slow_at

    monkeypatch.setattr(time, "perf_counter", lambda: now)
    monkeypatch.setattr(time, "thread_time", lambda: 0.0)
    taken: dict[int, list[str]] = {}
    with prefetch_pages(WatchedStorage(wait), LANES, page_size=7, slow_s=1.0) as pages:
        for number, page in pages:
            taken.setdefault(number, []).append(page.last_key)
    assert taken == {
        number: last_keys(list_pages(FakeStorage(BUCKET), lane, page_size=7))
        for number, lane in enumerate(LANES)
    }
