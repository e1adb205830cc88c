"""The one way to wait in a test: for a condition, with a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(condition: Callable[[], T], timeout: float = 60, *, interval: float = 0.05) -> T:
    """Call ``condition`` until its answer is truthy, and return that answer.

    An AssertionError counts as "not yet"; at the deadline the last one is raised.
    """
    deadline = time.monotonic() + timeout
    while True:
        failure: AssertionError | None = None
        try:
            answer = condition()
            if answer:
                return answer
        except AssertionError as exc:
            failure = exc
        if time.monotonic() > deadline:
            raise failure or AssertionError(
                f"not within {timeout} s: {getattr(condition, '__name__', condition)}"
            )
        time.sleep(interval)
