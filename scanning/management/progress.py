"""The progress bar of commands that scan; nothing at all where no terminal shows it."""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import TYPE_CHECKING, Self

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

if TYPE_CHECKING:
    from collections.abc import Iterator

# One process draws, and somebody calls show() often enough.
tqdm.set_lock(threading.RLock())
tqdm.monitor_interval = 0


class ProgressBar:
    """One line at the bottom of a terminal: objects, their rate, and some words.

    ``expected``: how many objects there will be, if that is known.
    """

    def __init__(self, *, expected: int | None) -> None:
        self._bar = tqdm(
            total=expected or None,
            file=sys.stderr,
            disable=None,  # unless it is a terminal
            unit=" objects",
            unit_scale=True,
            dynamic_ncols=True,
            leave=False,
            mininterval=0,
        )
        self._ends = contextlib.ExitStack()

    def __enter__(self) -> Self:
        if not self._bar.disable:
            self._ends.enter_context(logging_redirect_tqdm())
        self._ends.callback(self._bar.close)
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def show(self, objects: int, words: str = "") -> None:
        """Draw it anew; call it now and then."""
        if self._bar.disable:
            return
        self._bar.set_postfix_str(words, refresh=False)
        self._bar.update(objects - self._bar.n)
        self._bar.refresh()

    @contextlib.contextmanager
    def above(self) -> Iterator[None]:
        """Let what the block prints stand above the bar."""
        with self._bar.external_write_mode(sys.stdout):
            yield
