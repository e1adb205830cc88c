"""The metrics as Prometheus and OpenMetrics write them; what each means: `docs/metrics.md`.

Every number comes from Redis and is of all processes on all hosts. Labels take few values: regions,
types, classes of errors; never a bucket's name or an error's text.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal

from prometheus_client import exposition as plain
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from scanning.core.metrics import counters, histograms

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from scanning.core.metrics.telemetry import EndpointLoad, Telemetry
    from scanning.core.request_costs import Requests

# Labels are not without end, however many endpoints somebody enters; dead ones come first.
MOST_ENDPOINTS = 100
Format = Literal["prometheus", "openmetrics"]
_Values = dict[str, float]


@dataclass(frozen=True, slots=True)
class Measured:
    """``counted`` are the counters since ever, ``documented`` the JSON sections of `/metrics`.

    ``sent`` are the requests since ever, by endpoint.
    """

    counted: Mapping[str, int]
    documented: Mapping[str, Any]
    telemetry: Telemetry
    states: Mapping[str, int]
    endpoints: Sequence[EndpointLoad]
    sent: Mapping[str, Requests]


def write(measured: Measured | None, form: Format, *, version: str) -> tuple[bytes, str]:
    """Write the text and its content type; ``measured`` is None while Redis is away."""
    families = _Families(measured, version)
    if form == "openmetrics":
        text: bytes = openmetrics.generate_latest(families)  # type: ignore[no-untyped-call]
        return text, openmetrics.CONTENT_TYPE_LATEST
    return plain.generate_latest(families), plain.CONTENT_TYPE_PLAIN_0_0_4


class _Families(Collector):
    def __init__(self, measured: Measured | None, version: str) -> None:
        self._measured, self._version = measured, version

    def collect(self) -> Iterator[Metric]:
        measured = self._measured
        yield InfoMetricFamily("bucketwatch", "What answers", {"version": self._version})
        yield _gauge("redis_up", "1 while Redis answers, else 0", float(measured is not None))
        if measured is not None:
            yield from _scans(measured.counted)
            yield from _times(measured.counted, measured.documented["scan_stats"])
            yield from _queue(measured.telemetry, measured.documented["redis"])
            yield from _buckets(measured.telemetry, measured.states)
            yield from _endpoints(measured)
            yield from _processes(measured.documented)


def _scans(counted: Mapping[str, int]) -> Iterator[Metric]:
    def of(field: str) -> int:
        return counted.get(field, 0)

    failed = of("failed_scans")
    results: _Values = {"ok": of("total_scans") - failed, "failed": failed}
    yield _counter("scans", "Scans that ended", results, label="result")
    failed_looks = of(counters.FAILED_LOOKS)
    looks: _Values = {"ok": of(counters.LOOKS) - failed_looks, "failed": failed_looks}
    yield _counter("looks", "Looks between two passes that ended", looks, label="result")
    pages = of(counters.LOOK_LIST_CALLS)
    yield _counter("look_list_requests", "Listing pages that came for looks", pages)
    errors = _by_suffix(counted, counters.ERROR)
    yield _counter("scan_errors", "Scans that failed", errors, label="class")
    warnings = _by_suffix(counted, counters.WARNING)
    yield _counter("scan_warnings", "Objects that scans warned of", warnings, label="kind")
    yield _counter("objects_scanned", "Objects that listings showed", of("total_objects_scanned"))
    yield _counter("list_requests", "Listing pages that came", of("list_calls"))
    heads = _by_suffix(counted, counters.HEAD_CALLS)
    yield _counter("head_requests", "HEAD requests that were sent", heads, label="purpose")
    probes = _by_suffix(counted, counters.PROBES)
    yield _counter("probes", "Probes of buckets, by what they found", probes, label="result")
    yield _counter("wakeups", "Wake-ups of regions' workers", of("wakeups"))
    segments: _Values = {
        "unchanged": of("segments_unchanged"),
        "compared": of("segments_compared"),
    }
    yield _counter(
        "segments", "Segments recognised by their digest, or compared", segments, label="result"
    )
    found: _Values = {str(kind): of(field) for kind, field in counters.CHANGES.items()}
    yield _counter("events", "Changes found", found, label="type")
    told: _Values = {str(kind): of(field) for kind, field in counters.ANNOUNCED.items()}
    yield _counter("notifications", "Notifications put into the queue", told, label="type")


def _by_suffix(counted: Mapping[str, int], prefix: str) -> _Values:
    """Pick the counters that begin with ``prefix``, keyed by the rest of their names."""
    return {
        field.removeprefix(prefix): number
        for field, number in counted.items()
        if field.startswith(prefix)
    }


def _times(counted: Mapping[str, int], scan_stats: Mapping[str, Any]) -> Iterator[Metric]:
    yield _histogram(
        "scan_lateness_seconds",
        "From the scheduled start of a scan to its start",
        counted,
        counters.LATENESS,
        histograms.LATENESS_S,
    )
    yield _histogram(
        "detection_lag_seconds",
        "From the last modification of an object to its notification",
        counted,
        counters.LAG,
        histograms.LAG_S,
    )
    yield _gauge(
        "last_scan_timestamp_seconds",
        "When the newest complete scan began",
        scan_stats["last_scan_time"],
    )


def _queue(telemetry: Telemetry, documented: Mapping[str, Any]) -> Iterator[Metric]:
    yield _gauge("queue_length", "Notifications in the queue", telemetry.queue_length)
    yield _gauge(
        "queue_high_water",
        "Notifications from which scanning pauses",
        documented["queue_high_water"],
    )
    yield _gauge(
        "queue_oldest_age_seconds",
        "Age of the notification that is read next",
        telemetry.queue_oldest_s,
    )


def _buckets(telemetry: Telemetry, states: Mapping[str, int]) -> Iterator[Metric]:
    regions = telemetry.regions

    def of(member: str) -> _Values:
        return {load.region: getattr(load, member) for load in regions}

    yield _gauge("buckets", "Buckets by what they are doing", dict(states), label="state")
    yield _gauge("leader", "1 while a monitor schedules, else 0", float(bool(telemetry.leader)))
    for name, about, member in (
        ("region_buckets", "Buckets that are scheduled", "buckets"),
        ("region_late_buckets", "Buckets that are due and wait for their scan", "late"),
        ("region_slots_used", "Scans that are running", "running"),
        ("region_slots", "Most scans at once", "slots"),
    ):
        yield _gauge(name, about, of(member), label="region")


def _endpoints(measured: Measured) -> Iterator[Metric]:
    counted, endpoints = measured.counted, measured.endpoints
    yield _counter(
        "throttled_requests",
        "Requests that S3 asked to send later",
        counted.get(counters.THROTTLED, 0),
    )
    yield _counter(
        "unanswered_requests",
        "Requests that S3 did not answer",
        counted.get(counters.UNANSWERED, 0),
    )
    by_state = Counter(one.state for one in endpoints)
    states: _Values = {state: by_state[state] for state in ("normal", "slowed", "dead")}
    yield _gauge("endpoints", "Endpoints asked lately, by how they answer", states, label="state")
    shown = sorted(endpoints, key=lambda one: one.state != "dead")[:MOST_ENDPOINTS]
    up: _Values = {one.endpoint: float(one.state != "dead") for one in shown}
    yield _gauge("endpoint_up", "1 while the endpoint answers, else 0", up, label="endpoint")
    sent = CounterMetricFamily(
        "bucketwatch_endpoint_requests", "Requests that were sent", labels=["endpoint", "kind"]
    )
    for one in shown:
        for kind, number in measured.sent.get(one.endpoint, {}).items():
            sent.add_metric([one.endpoint, kind], number)
    yield sent


def _processes(documented: Mapping[str, Any]) -> Iterator[Metric]:
    cache = documented["client_cache"]
    requests: _Values = {"hit": cache["cache_hits"], "miss": cache["cache_misses"]}
    yield _counter("client_cache_requests", "S3 clients asked for", requests, label="result")
    yield _counter("client_cache_evictions", "S3 clients dropped", cache["evictions"])
    yield _gauge("client_cache_clients", "S3 clients kept", cache["total_clients"])
    yield _counter(
        "unrecognised_listings",
        "Listings that only botocore's own parser could read",
        cache["unrecognised_bodies"],
    )
    yield _gauge(
        "vault_snapshot_age_seconds",
        "Age of the oldest keys in any worker",
        cache["vault_snapshot_age_s"],
    )
    sentinel = documented["sentinel"]
    is_used = sentinel["status"] != "disabled"
    yield _gauge(
        "sentinel_up",
        "1 while a sentinel names the master, else 0",
        float(sentinel["status"] == "ok") if is_used else None,
    )
    yield _gauge(
        "sentinel_replicas",
        "Replicas that Sentinel knows",
        sentinel["slave_count"] if is_used else None,
    )


def _counter(name: str, about: str, value: float | _Values, *, label: str = "") -> Metric:
    family = CounterMetricFamily(f"bucketwatch_{name}", about, labels=[label] if label else [])
    return _filled(family, value)


def _gauge(name: str, about: str, value: float | _Values | None, *, label: str = "") -> Metric:
    """Leave the sample out where ``value`` is None: it is not known."""
    family = GaugeMetricFamily(f"bucketwatch_{name}", about, labels=[label] if label else [])
    return family if value is None else _filled(family, value)


def _filled(
    family: CounterMetricFamily | GaugeMetricFamily, value: float | _Values
) -> CounterMetricFamily | GaugeMetricFamily:
    if not isinstance(value, dict):
        family.add_metric([], value)
        return family
    for of, number in sorted(value.items()):
        family.add_metric([of], number)
    return family


def _histogram(
    name: str, about: str, counted: Mapping[str, int], field: str, bounds: Sequence[float]
) -> Metric:
    counts = [counted.get(place, 0) for place in counters.places(field, bounds)]
    up_to = [*(str(float(bound)) for bound in bounds), "+Inf"]
    return HistogramMetricFamily(
        f"bucketwatch_{name}",
        about,
        buckets=list(zip(up_to, accumulate(counts), strict=True)),
        sum_value=counted.get(counters.total_ms(field), 0) / 1000,
    )
