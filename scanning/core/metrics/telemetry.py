"""What pages, commands and `/metrics` show of all processes together: values only.

Times are epoch seconds, durations seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

# A bucket that is due waits a moment for its wake-up and a free slot; from then on it is late.
LATE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class TimeBucket:
    """What happened from ``at`` on for ``span_s``, in all processes on all hosts.

    ``created`` to ``deleted`` are notifications. ``queue_length`` is the last one seen in it; None
    if nobody looked.
    """

    at: float
    span_s: float
    created: int = 0
    updated: int = 0
    detected: int = 0
    deleted: int = 0
    objects: int = 0
    list_calls: int = 0
    scans: int = 0
    failed: int = 0
    queue_length: int | None = None


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of the last hour; None while there is nothing to tell of."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


@dataclass(frozen=True, slots=True)
class RegionLoad:
    """One region now: ``late`` buckets are due for ``LATE_S``; ``running`` of ``slots`` scan."""

    region: str
    buckets: int
    late: int
    running: int
    slots: int


@dataclass(frozen=True, slots=True)
class NextScan:
    """When a bucket is due, None if it is not scheduled; ``running``: it is being scanned now."""

    at: float | None
    running: bool = False

    def is_late(self, *, now: float) -> bool:
        return self.at is not None and not self.running and self.at <= now - LATE_S


@dataclass(frozen=True, slots=True)
class PassUnderWay:
    """A pass over a bucket that began a while ago and has ``listed`` so many objects since."""

    began: float
    listed: int


@dataclass(frozen=True, slots=True)
class EndpointLoad:
    """How an endpoint may be asked now: ``dead`` ones are only probed, until they answer.

    ``list_per_s`` is what all processes together may send it a second, while it is ``slowed``; 0
    otherwise. ``wait_until`` is when a dead one is asked again; ``why`` is for people.
    """

    endpoint: str
    state: Literal["normal", "slowed", "dead"]
    list_per_s: float
    wait_until: float | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class ScanRecord:
    """One scan of one bucket, for its history.

    One that took several time slices counts once, from its beginning to its end; ``changes`` are
    those of the last slice. A look's ``objects`` are those that it saw.
    """

    at: float
    duration_s: float
    objects: int
    changes: int
    error_class: str = ""
    kind: Literal["pass", "look"] = "pass"


@dataclass(frozen=True, slots=True)
class Telemetry:
    """The state of the whole installation.

    ``last_hour`` has 60 moments of a minute, ``last_day`` 96 of 15 minutes, oldest first, empty
    ones included; the last one of each is not over yet. ``lateness`` is scheduled start to start
    of a scan, ``lag`` is an object's last_modified to its notification. ``queue_oldest_s`` is the
    age of the notification that consumers read next, ``leader`` the monitor that schedules, ""
    while none does.
    """

    last_hour: tuple[TimeBucket, ...]
    last_day: tuple[TimeBucket, ...]
    lateness: Percentiles
    lag: Percentiles
    queue_length: int
    queue_oldest_s: float | None
    leader: str
    regions: tuple[RegionLoad, ...]
