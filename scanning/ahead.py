"""Listing that runs ahead of comparing and committing, in one or several lanes."""

from __future__ import annotations

import contextlib
import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scanning.core.matching import Page
    from scanning.ports import Storage

PAGES_AHEAD = 3  # for each lane; a page of 1000 objects is about 300 KiB


@dataclass(frozen=True, slots=True)
class Lane:
    """A range of keys: after ``after``, up to ``until`` (None: to the end of the bucket)."""

    after: str
    until: str | None


def list_pages(
    storage: Storage, lane: Lane, *, page_size: int, first: Page | None = None
) -> Iterator[Page]:
    """All pages of a lane; the last may reach beyond it. ``first`` is one that was asked before."""
    page = first or storage.page(lane.after, page_size)
    if first is None:
        yield page
    while page.is_truncated and (lane.until is None or page.last_key < lane.until):
        page = storage.page(page.last_key, page_size)
        yield page


@contextlib.contextmanager
def listed_ahead(
    storage: Storage, lanes: Sequence[Lane], *, page_size: int
) -> Iterator[Iterator[tuple[int, Page]]]:
    """The pages of all lanes as they arrive, each with its lane's number; in order in each lane.

    Raises what listing raises. No thread is started for a bucket of one page.
    """
    if len(lanes) == 1:
        first = storage.page(lanes[0].after, page_size)
        if not first.is_truncated:
            yield iter([(0, first)])
            return
        with _Ahead(storage, lanes, page_size, first) as pages:
            yield _after_first(first, pages)
        return
    with _Ahead(storage, lanes, page_size, None) as pages:
        yield pages


def _after_first(first: Page, others: Iterator[tuple[int, Page]]) -> Iterator[tuple[int, Page]]:
    yield 0, first
    yield from others


class _Ahead:
    """One thread a lane, all putting their pages into one bounded queue."""

    def __init__(
        self, storage: Storage, lanes: Sequence[Lane], page_size: int, first: Page | None
    ) -> None:
        self._storage, self._lanes = storage, lanes
        self._page_size, self._first = page_size, first
        # What a lane puts: a page, its error, or None when it is done.
        self._pages: queue.Queue[tuple[int, Page | BaseException | None]] = queue.Queue(
            PAGES_AHEAD * len(lanes)
        )
        self._closed = threading.Event()
        self._threads = [
            threading.Thread(target=self._list, args=(n,), name=f"list-{n}", daemon=True)
            for n in range(len(lanes))
        ]

    def __enter__(self) -> Iterator[tuple[int, Page]]:
        for thread in self._threads:
            thread.start()
        return self._arriving()

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        while any(thread.is_alive() for thread in self._threads):
            with contextlib.suppress(queue.Empty):  # a thread may wait for a place in the queue
                self._pages.get(timeout=0.05)
        for thread in self._threads:
            thread.join()

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
            pages = list_pages(
                self._storage, self._lanes[number], page_size=self._page_size, first=self._first
            )
            for page in pages:
                if self._closed.is_set():
                    return
                self._pages.put((number, page))
            self._pages.put((number, None))
        except BaseException as exc:  # noqa: BLE001 - raised again where the pages are taken
            self._pages.put((number, exc))
