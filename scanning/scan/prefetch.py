"""Listing that runs ahead of comparing and committing, in one or several lanes."""

from __future__ import annotations

import contextlib
import contextvars
import queue
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Self

from scanning.core.errors import StorageUnavailable
from scanning.core.listing.body import UnreadableListing
from scanning.core.segments.matcher import end_of_rows
from scanning.scan.lane_splitter import Lane, LaneSplitter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scanning.core.segments.matcher import Page
    from scanning.ports import Storage

SLOW_S = 0.005
PAGES_AHEAD = 3  # for each lane; a page of 1000 objects is about 300 KiB


def list_pages(storage: Storage, lane: Lane, *, page_size: int) -> Iterator[Page]:
    """List all pages of a lane; the last page may reach beyond the lane."""
    after: str | None = lane.after
    while after is not None:
        page = storage.page(after, page_size)
        yield page
        after = page.last_key if lane.goes_on_after(page) else None


class PageLister:
    """Lists lanes; pages come as they arrive, in order in each lane, with the lane's number.

    Threads start with the first page that took ``slow_s`` of waiting, if more are to come. Until
    then, lane by lane, a page is asked for when it is wanted: there is nothing to gain by running
    ahead of a server that answers at once, and threads cost a fifth of a scan in waking each other.
    ``at_once`` threads take a lane each, and one that has none takes half of another's unknown
    part. Raises what listing raises.
    """

    def __init__(
        self,
        storage: Storage,
        lanes: Sequence[Lane],
        *,
        page_size: int,
        slow_s: float = SLOW_S,
        at_once: int | None = None,
    ) -> None:
        self._storage, self._page_size, self._slow_s = storage, page_size, slow_s
        self._at_once = at_once or len(lanes)
        self._splitter = LaneSplitter(lanes)
        # Lanes that wait for a thread, and how many have one.
        self._waiting = deque(range(len(lanes)))
        self._listing = 0
        self._changed = threading.Condition()
        self._is_closed = False
        # What a thread puts: a page and its lane, what ended it, or None when it is done.
        self._pages: queue.Queue[tuple[int, Page] | BaseException | None] = queue.Queue(
            PAGES_AHEAD * self._at_once
        )
        self._threads: list[threading.Thread] = []

    def lane(self, number: int) -> tuple[Lane, int]:
        """Tell where a lane ends by now, and how many lanes there are: some were split meanwhile.

        No page before the one that came last reaches beyond that end.
        """
        with self._changed:
            return self._splitter[number], len(self._splitter)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads:
            while thread.is_alive():
                with contextlib.suppress(queue.Empty):  # it may wait for a place in the queue
                    self._pages.get_nowait()
                thread.join(0.01)

    def __iter__(self) -> Iterator[tuple[int, Page]]:
        while self._waiting:
            number = self._waiting[0]
            page, waited_s = self._timed_page(self._splitter.listed_to(number))
            is_slow = waited_s >= self._slow_s
            if not self._take(number, page, may_split=is_slow):
                self._waiting.popleft()
            if is_slow:
                self._start_threads()
            yield number, page
            if is_slow:
                yield from self._arriving()

    def _timed_page(self, after: str) -> tuple[Page, float]:
        """Ask for a page; tell the seconds that this thread waited for it instead of working."""
        began, busy = time.perf_counter(), time.thread_time()
        page = self._storage.page(after, self._page_size)
        return page, time.perf_counter() - began - (time.thread_time() - busy)

    def _take(self, number: int, page: Page, *, may_split: bool = True) -> bool:
        """Note a page of a lane; tell whether there are more."""
        may_split = may_split and self._at_once > 1
        keys: Sequence[str] = ()
        if may_split and self._splitter.wants_keys_of(number, page):
            keys = self._keys_of(page.entries)
        with self._changed:
            self._splitter.learn(keys)
            goes_on = self._splitter.take_page(number, page)
            self._changed.notify_all()
        return goes_on

    def _keys_of(self, entries: bytes) -> Sequence[str]:
        """Read keys; none where that is an error, which comparing the page will find, too."""
        try:
            return self._storage.rows(entries).columns.keys
        except (UnreadableListing, StorageUnavailable):
            return ()

    # --- threads

    def _start_threads(self) -> None:
        if not self._waiting:
            return
        number = self._at_once if self._splitter.has_unknown() else len(self._waiting)
        self._threads = [
            threading.Thread(
                # The thread's log lines are about this scan too.
                target=contextvars.copy_context().run,
                args=(self._run,),
                name=f"list-{n}",
                daemon=True,
            )
            for n in range(min(number, self._at_once))
        ]
        for thread in self._threads:
            thread.start()

    def _arriving(self) -> Iterator[tuple[int, Page]]:
        left = len(self._threads)
        while left:
            arrived = self._pages.get()
            if isinstance(arrived, BaseException):
                raise arrived
            if arrived is None:
                left -= 1
            else:
                yield arrived

    def _run(self) -> None:
        try:
            while (number := self._next_lane()) is not None:
                self._list(number)
            self._pages.put(None)
        except BaseException as exc:  # noqa: BLE001 - raised again where the pages are taken
            self._pages.put(exc)

    def _list(self, number: int) -> None:
        """List a lane to its end, which may come nearer meanwhile."""
        goes_on = True
        while goes_on and not self._is_closed:
            page = self._storage.page(self._splitter.listed_to(number), self._page_size)
            goes_on = self._put(number, page)
        self._end_lane()

    def _put(self, number: int, page: Page) -> bool:
        goes_on = self._take(number, page)
        if not self._is_closed:
            self._pages.put((number, page))
        return goes_on

    def _end_lane(self) -> None:
        with self._changed:
            self._listing -= 1
            self._changed.notify_all()

    def _next_lane(self) -> int | None:
        """Take a lane that waits, or a part of another's; None when none is left to take."""
        while True:
            with self._changed:
                while not self._waiting:
                    if self._is_closed or not self._listing or not self._splitter.has_unknown():
                        return None
                    if (cut := self._splitter.next_cut()) is not None:
                        break
                    self._changed.wait()
                else:
                    self._listing += 1
                    return self._waiting.popleft()
            number = self._split_at(cut)
            if number is not None:
                return number

    def _split_at(self, cut: str) -> int | None:
        """List what is after a key in the middle of a lane: if it is the lane's, it is a new lane.

        Returns the new lane's number, if there is more of it to list than this page.
        """
        page = self._storage.page(cut, self._page_size)
        first_entry = page.entries[: end_of_rows(page.entries, 0, 1)] if page.entries else b""
        first = self._keys_of(first_entry)
        with self._changed:
            number = self._splitter.split(cut, first[0] if first else None)
            if number is None:
                return None
            self._listing += 1
        if self._put(number, page):
            return number
        self._end_lane()
        return None
