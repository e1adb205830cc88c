"""Many rows, some at a time: a query takes only so many values."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

T = TypeVar("T")


def in_batches(rows: Iterable[T], *, size: int = 1000) -> Iterator[list[T]]:
    everything = list(rows)
    for at in range(0, len(everything), size):
        yield everything[at : at + size]
