"""Listing that runs ahead of comparing and committing, in one or several lanes."""

from __future__ import annotations

import contextlib
import contextvars
import queue
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scanning.core.segments.matcher import Page
    from scanning.ports import Storage

SLOW_S = 0.005
PAGES_AHEAD = 3  # for each lane; a page of 1000 objects is about 300 KiB


@dataclass(frozen=True, slots=True)
class Lane:
    """A range of keys: after ``after``, up to ``until`` (None: to the end of the bucket)."""

    after: str
    until: str | None


def list_pages(storage: Storage, lane: Lane, *, page_size: int) -> Iterator[Page]:
    """List all pages of a lane; the last page may reach beyond the lane."""
    left: Lane | None = lane
    while left is not None:
        page = storage.page(left.after, page_size)
        yield page
        left = _rest_of(left, page)


def _rest_of(lane: Lane, page: Page) -> Lane | None:
    """Tell what is left of a lane after one of its pages; None if nothing is."""
    covered = lane.until is not None and page.last_key >= lane.until
    return Lane(page.last_key, lane.until) if page.is_truncated and not covered else None


@contextlib.contextmanager
def prefetch_pages(
    storage: Storage, lanes: Sequence[Lane], *, page_size: int, slow_s: float = SLOW_S
) -> Iterator[Iterator[tuple[int, Page]]]:
    """List lanes; pages come as they arrive, in order in each lane, with the lane's number.

    Threads start with the first page that took ``slow_s`` of waiting, if more are to come. Until
    then, lane by lane, a page is asked for when it is wanted: there is nothing to gain by running
    ahead of a server that answers at once, and threads cost a fifth of a scan in waking each other.
    Raises what listing raises.
    """
    with contextlib.ExitStack() as stack:
        yield _pages(storage, lanes, page_size, slow_s, stack)


def _pages(
    storage: Storage,
    lanes: Sequence[Lane],
    page_size: int,
    slow_s: float,
    stack: contextlib.ExitStack,
) -> Iterator[tuple[int, Page]]:
    for number, lane in enumerate(lanes):
        left: Lane | None = lane
        while left is not None:
            page, waited_s = _timed_page(storage, left.after, page_size)
            left = _rest_of(left, page)
            if waited_s < slow_s:
                yield number, page
                continue
            first = number if left else number + 1
            others = _PagePrefetcher(
                storage, [*filter(None, [left]), *lanes[number + 1 :]], page_size
            )
            pages = stack.enter_context(others)
            yield number, page
            for other, later in pages:
                yield first + other, later
            return


def _timed_page(storage: Storage, after: str, page_size: int) -> tuple[Page, float]:
    """Ask for a page; tell the seconds that this thread waited for it instead of working."""
    began, busy = time.perf_counter(), time.thread_time()
    page = storage.page(after, page_size)
    return page, time.perf_counter() - began - (time.thread_time() - busy)


class _PagePrefetcher:
    """Runs one thread a lane; all put their pages into one bounded queue."""

    def __init__(self, storage: Storage, lanes: Sequence[Lane], page_size: int) -> None:
        self._storage, self._lanes, self._page_size = storage, lanes, page_size
        # What a lane puts: a page, its error, or None when it is done.
        self._pages: queue.Queue[tuple[int, Page | BaseException | None]] = queue.Queue(
            PAGES_AHEAD * len(lanes)
        )
        self._closed = threading.Event()
        self._threads = [
            threading.Thread(
                # The thread's log lines are about this scan too.
                target=contextvars.copy_context().run,
                args=(self._list, n),
                name=f"list-{n}",
                daemon=True,
            )
            for n in range(len(lanes))
        ]

    def __enter__(self) -> Iterator[tuple[int, Page]]:
        for thread in self._threads:
            thread.start()
        return self._arriving()

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        for thread in self._threads:
            while thread.is_alive():
                with contextlib.suppress(queue.Empty):  # it may wait for a place in the queue
                    self._pages.get_nowait()
                thread.join(0.01)

    def _arriving(self) -> Iterator[tuple[int, Page]]:
        left = len(self._lanes)
        while left:
            number, page = self._pages.get()
            if isinstance(page, BaseException):
                raise page
            if page is None:
                left -= 1
            else:
                yield number, page

    def _list(self, number: int) -> None:
        try:
            lane = self._lanes[number]
            for page in list_pages(self._storage, lane, page_size=self._page_size):
                if self._closed.is_set():
                    return
                self._pages.put((number, page))
            self._pages.put((number, None))
        except BaseException as exc:  # noqa: BLE001 - raised again where the pages are taken
            self._pages.put((number, exc))
