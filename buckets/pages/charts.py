"""Charts as SVG paths, made here, so that pages need neither scripts nor inline styles for them.

The x axis has one unit for each column, the y axis 100 from the bottom to the top of the scale;
templates stretch that over the width there is (`templates/buckets/chart.html`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from buckets.formatting import format_compact

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HEIGHT = 100
_BAR = 0.78
_GAP = (1 - _BAR) / 2


@dataclass(frozen=True, slots=True)
class Series:
    """One colour of a chart; ``total`` is for the legend, "" leaves it out of it."""

    name: str
    path: str
    total: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """Where the pointer finds what a column says; ``is_marked`` for a scan that failed, say."""

    x: int
    label: str
    is_marked: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """``scale`` is what the top of the y axis stands for; ``summary`` says it all in words."""

    title: str
    summary: str
    series: tuple[Series, ...]
    columns: tuple[Column, ...]
    scale: str
    ticks: tuple[str, ...]

    @property
    def width(self) -> int:
        return max(1, len(self.columns))

    @property
    def has_legend(self) -> bool:
        return any(series.total for series in self.series)


def bars(values: Sequence[float], top: float, *, on: Sequence[float] | None = None) -> str:
    """Draw the path of a bar for each value, standing on the values ``on``."""
    below = on or [0.0] * len(values)
    return "".join(
        f"M{x + _GAP:.2f} {_y(base, top)}h{_BAR:.2f}V{_y(base + value, top)}h-{_BAR:.2f}z"
        for x, (value, base) in enumerate(zip(values, below, strict=True))
        if value
    )


def stacked(
    named: Iterable[tuple[str, Sequence[float]]], top: float
) -> list[tuple[str, str, Sequence[float]]]:
    """Draw each series on those before it; returns name, path and values of each."""
    made = []
    below: list[float] = []
    for name, values in named:
        below = below or [0.0] * len(values)
        made.append((name, bars(values, top, on=below), values))
        below = [a + b for a, b in zip(below, values, strict=True)]
    return made


def line(values: Sequence[float | None], top: float) -> str:
    """Draw the path of a line through the middle of the columns; a gap where nothing is known."""
    path, pen_is_down = "", False
    for x, value in enumerate(values):
        if value is not None:
            path += f"{'L' if pen_is_down else 'M'}{x + 0.5} {_y(value, top)}"
        pen_is_down = value is not None
    return path


def round_up(value: float, *, least: float = 1.0) -> float:
    """Find the next number that reads well at the top of a scale."""
    if value <= least:
        return least
    magnitude = 10.0 ** math.floor(math.log10(value))
    steps = (1, 1.5, 2, 3, 4, 5, 6, 8, 10)
    return next(step * magnitude for step in steps if value <= step * magnitude * (1 + 1e-9))


def scale(top: float) -> str:
    return format_compact(top)


def _y(value: float, top: float) -> str:
    return f"{HEIGHT - HEIGHT * value / top:.2f}".rstrip("0").rstrip(".")
