"""What is counted: the fields of the ``stats`` hash, and of the hash of each minute."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from scanning.core.metrics import histograms
from scanning.core.types import EventType

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from scanning.core.types import ScanResult

CHANGES: Final = {
    EventType.CREATED: "total_new_objects",
    EventType.UPDATED: "total_updated_objects",
    EventType.DETECTED: "total_detected_objects",
    EventType.DELETED: "total_deleted_objects",
}
ANNOUNCED: Final = {kind: f"announced:{kind}" for kind in EventType}
ERROR: Final = "error:"  # and the error's class
WARNING: Final = "warning:"  # and its kind
HEAD_CALLS: Final = "head_calls:"  # and what for
LAG: Final = "lag"
LATENESS: Final = "lateness"
# Requests that an endpoint asked us to send later, and those that it did not answer at all.
THROTTLED: Final = "throttled_requests"
UNANSWERED: Final = "unanswered_requests"
# Of a minute only: how long the queue was when somebody last looked.
QUEUE_LENGTH: Final = "queue_length"


def places(histogram: str, bounds: Sequence[float]) -> list[str]:
    """Name the fields of a histogram's counts, in order."""
    return [f"{histogram}:{n}" for n in range(len(bounds) + 1)]


def total_ms(histogram: str) -> str:
    """Name the field that adds up all values of a histogram, in milliseconds."""
    return f"{histogram}_ms"


def of_commit(
    changes: Mapping[EventType, int], announced: Mapping[EventType, int], lags_s: Sequence[float]
) -> dict[str, int]:
    """Count ``changes`` that were found, ``announced`` of them queued, with these lags."""
    counted = {CHANGES[kind]: number for kind, number in changes.items()}
    counted |= {ANNOUNCED[kind]: number for kind, number in announced.items()}
    return counted | _histogram(LAG, histograms.LAG_S, lags_s)


def of_scan(result: ScanResult, *, late_s: float) -> dict[str, int]:
    """Count one scan, by how it ended; it began ``late_s`` after its scheduled start."""
    counts = result.counts
    counted = {
        "total_scans": int(result.complete or not result.ok),
        "failed_scans": int(not result.ok),
        "errors": int(not result.ok),
        "total_objects_scanned": counts.objects,
        "list_calls": counts.pages,
        f"{HEAD_CALLS}witness": counts.witness_heads,
        "segments_unchanged": counts.unchanged,
        "segments_compared": counts.compared,
    }
    if result.error_class:
        counted[f"{ERROR}{result.error_class}"] = 1
    if result.complete:
        counted |= {f"{WARNING}{one.kind}": one.count for one in result.warnings}
    counted |= _histogram(LATENESS, histograms.LATENESS_S, [late_s])
    return {field: number for field, number in counted.items() if number}


def _histogram(name: str, bounds: Sequence[float], values_s: Iterable[float]) -> dict[str, int]:
    values = [max(0.0, value) for value in values_s]
    if not values:
        return {}
    by_place = Counter(histograms.place(value, bounds) for value in values)
    counted = {f"{name}:{n}": number for n, number in by_place.items()}
    return counted | {total_ms(name): round(sum(values) * 1000)}
