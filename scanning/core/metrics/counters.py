"""What is counted: the fields of the ``stats`` hash, and of the hash of each minute."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from scanning.core.metrics import histograms
from scanning.core.request_costs import RequestKind
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
PROBES: Final = "probes:"  # and what came of them
# Requests that were sent, whether they were answered or not; `list_calls` gave a page.
REQUESTS: Final = {
    RequestKind.LIST: "list_requests",
    RequestKind.METADATA: f"{HEAD_CALLS}metadata",
    RequestKind.WITNESS: f"{HEAD_CALLS}witness",
    RequestKind.BUCKET: f"{HEAD_CALLS}bucket",
}
LOOKS: Final = "looks"
FAILED_LOOKS: Final = "failed_looks"
LOOK_LIST_CALLS: Final = "look_list_calls"
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
    """Count one scan, by how it ended; it began ``late_s`` after its scheduled start.

    A look is none of the scans that are counted, nor late.
    """
    counts, has_failed = result.counts, int(not result.ok)
    if result.is_look:
        counted = {LOOKS: 1, FAILED_LOOKS: has_failed, LOOK_LIST_CALLS: counts.pages}
    else:
        counted = {"total_scans": int(result.complete or not result.ok), "failed_scans": has_failed}
        counted |= _histogram(LATENESS, histograms.LATENESS_S, [late_s])
    counted |= {
        "errors": has_failed,
        "total_objects_scanned": counts.objects,
        "list_calls": counts.pages,
        "segments_unchanged": counts.unchanged,
        "segments_compared": counts.compared,
    }
    if result.error_class:
        counted[f"{ERROR}{result.error_class}"] = 1
    if result.complete:
        counted |= {f"{WARNING}{one.kind}": one.count for one in result.warnings}
    return {field: number for field, number in counted.items() if number}


def of_requests(
    sent: Mapping[RequestKind, int], *, throttled: int, unanswered: int
) -> dict[str, int]:
    """Count requests that were sent to an endpoint, and those of them that went wrong."""
    counted = {REQUESTS[kind]: number for kind, number in sent.items()}
    counted |= {THROTTLED: throttled, UNANSWERED: unanswered}
    return {field: number for field, number in counted.items() if number}


def _histogram(name: str, bounds: Sequence[float], values_s: Iterable[float]) -> dict[str, int]:
    values = [max(0.0, value) for value in values_s]
    if not values:
        return {}
    by_place = Counter(histograms.place(value, bounds) for value in values)
    counted = {f"{name}:{n}": number for n, number in by_place.items()}
    return counted | {total_ms(name): round(sum(values) * 1000)}
