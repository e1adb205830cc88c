"""Histograms with fixed bounds, as counts by place, and the percentiles that they tell of.

Place ``n`` counts the values up to ``bounds[n]`` and above the bound before it; one more place
counts what is above all of them.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from scanning.core.metrics.telemetry import Percentiles

if TYPE_CHECKING:
    from collections.abc import Sequence

# Bounds are never changed: what was counted with others would be read wrongly. Seconds.
LATENESS_S: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 900, 3600)
LAG_S: Final = (1, 2.5, 5, 10, 15, 20, 30, 45, 60, 75, 90, 120, 180, 300, 600, 1800, 3600, 21600)


def place(value: float, bounds: Sequence[float]) -> int:
    return bisect_left(bounds, value)


def percentile(counts: Sequence[int], bounds: Sequence[float], share: float) -> float | None:
    """Find the value that ``share`` of all are not above, as if spread evenly between the bounds.

    What is above all bounds counts as the last of them; None where nothing was counted.
    """
    wanted = share * sum(counts)
    below = 0
    for low, high, count in zip((0.0, *bounds), (*bounds, bounds[-1]), counts, strict=True):
        if count and below + count >= wanted:
            return low + (high - low) * (wanted - below) / count
        below += count
    return None


def percentiles(counts: Sequence[int], bounds: Sequence[float]) -> Percentiles:
    p50, p95, p99 = (percentile(counts, bounds, share) for share in (0.5, 0.95, 0.99))
    return Percentiles(p50, p95, p99)
