"""The values that cross module borders. Times are epoch seconds, UTC."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from scanning.core.endpoints import endpoint_host
from scanning.core.texts import watch_and_bucket

if TYPE_CHECKING:
    from scanning.core.scan_warnings import ScanWarning
    from scanning.core.totals import SeenTotals


class EventType(StrEnum):
    CREATED = "created"
    UPDATED = "updated"
    DETECTED = "detected"
    DELETED = "deleted"

    # It equals its text, so it has the same hash; and Enum's own costs a call in Python each time.
    __hash__ = str.__hash__


# Of one bucket: seconds between two scans, listings at once, and objects that may be known.
LONGEST_INTERVAL_S: Final = 604_800
MOST_LANES: Final = 16
MOST_OBJECTS: Final = 1_000_000_000_000
# Of one bucket at once: keys named by hints. Where there are more, the bucket is listed.
MOST_HINTED_KEYS: Final = 1000
WANTED_BY_DEFAULT: Final = frozenset({EventType.CREATED, EventType.UPDATED, EventType.DETECTED})


class ObjectState(NamedTuple):
    """What is remembered of one key; ``last_processed`` is when that was written.

    It and ``Change`` are tuples because a first scan makes one for each object.
    """

    etag: str
    last_modified: float
    size: int
    last_processed: float = 0.0


@dataclass(frozen=True, slots=True)
class ObjectMetadata:
    """What HEAD says; used only if ``etag`` is the listed one: the object may have changed."""

    etag: str
    content_type: str
    metadata: dict[str, str]


class Change(NamedTuple):
    """What happened to one key between the last scan and this one.

    ``current`` of a deleted object is what was last known of it.
    """

    event_type: EventType
    key: str
    current: ObjectState
    previous: ObjectState | None


@dataclass(frozen=True, slots=True)
class KeyPair:
    """S3 credentials. ``repr`` hides both halves, so that no log line can show them."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class BucketConfig:
    """One bucket as the engine sees it; read from Redis, where `buckets/sync/outbox.py` writes it.

    ``name`` is the watch's, by which everything goes; ``bucket_name`` is S3's, "" if it is that.
    ``endpoint`` is a host (https is implied) or an http(s) URL. ``region`` groups buckets for
    queues and limits. ``credential`` is the vault prefix of the key pair. ``generation`` changes
    when what the state was compared with no longer counts (deleted and added again, new endpoint).
    ``polling_interval_s`` and ``polling_longest_s`` None mean the configured defaults, and so does
    ``probe_interval_s``, of which 0 means that the bucket is not asked for its totals.

    ``prefix`` limits what is listed and known; ``suffix`` and ``events`` only what is announced.
    ``trust_etags``: where only the time moved, and an ETag and the size are the same, is no update.
    ``lanes``: most listings at once in this bucket; None means the configured default, and so it
    does of ``most_objects``, how many may be known of it, and of ``requests_per_day``, a budget;
    0: any number of either.
    ``taken_over``: an older monitor's states count as known before the first complete scan.
    ``filter_fingerprint`` stands for what decides which events are announced; commits compare it.
    """

    name: str
    endpoint: str
    region: str
    credential: str
    generation: int = 0
    polling_interval_s: int | None = None
    polling_longest_s: int | None = None
    probe_interval_s: int | None = None
    active: bool = True
    notifications: bool = True
    fetch_metadata: bool = True
    trust_etags: bool = False
    webhook_url: str = ""
    prefix: str = ""
    suffix: str = ""
    events: frozenset[EventType] = WANTED_BY_DEFAULT
    first_scan: Literal["announce", "baseline"] = "announce"
    taken_over: bool = False
    lanes: int | None = None
    requests_per_day: int | None = None
    filter_fingerprint: str = ""
    bucket_name: str = ""
    most_objects: int | None = None

    @property
    def s3_name(self) -> str:
        """What S3 calls the bucket, and notifications carry as ``bucket``."""
        return self.bucket_name or self.name

    @property
    def endpoint_host(self) -> str:
        """What notifications carry as ``region``: host, and port where there is one."""
        return endpoint_host(self.endpoint)


@dataclass(frozen=True, slots=True)
class LookRequest:
    """A wish to have a bucket looked at before its pass is due, at ``pass_due`` by Redis's clock.

    ``keys`` are those that hints named, in any order, maybe some twice.
    """

    keys: tuple[str, ...]
    pass_due: float


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to scan one bucket until ``expires_at``; every commit proves it by ``fence``.

    ``scheduled_at`` is the start that the schedule asked for (lateness is counted from it);
    ``taken_at`` is when it was claimed, by Redis's clock like the other two, and ``arrived_s``
    when that was known here, by this process's monotonic clock.
    ``offset_s`` is the bucket's place in its polling interval, None before the schedule knows it.
    ``commit`` is the number of the bucket's last commit, ``failures`` how many of its last scans
    failed in a row, ``objects`` how many its last complete pass saw, ``changed_at`` when the last
    scan began that found a change. ``look``: what the bucket is to be looked at for; None means a
    pass.
    """

    bucket: str
    region: str
    fence: int
    generation: int
    scheduled_at: float
    offset_s: float | None
    expires_at: float
    commit: int
    failures: int = 0
    objects: int | None = None
    taken_at: float = 0.0
    arrived_s: float = 0.0
    changed_at: float | None = None
    look: LookRequest | None = None

    def redis_time(self, monotonic_s: float) -> float:
        """Tell what Redis's clock says at a moment of this process's monotonic clock."""
        return self.taken_at + monotonic_s - self.arrived_s


@dataclass(slots=True)
class ScanCounts:
    """What one scan has seen so far.

    ``unchanged`` segments were recognised by their digest, ``compared`` ones were not.
    """

    objects: int = 0
    pages: int = 0
    unchanged: int = 0
    compared: int = 0
    created: int = 0
    updated: int = 0
    detected: int = 0
    deleted: int = 0

    def add(self, event_type: EventType, number: int = 1) -> None:
        setattr(self, event_type.value, getattr(self, event_type.value) + number)

    @property
    def changes(self) -> int:
        return self.created + self.updated + self.detected + self.deleted


@dataclass(frozen=True, slots=True)
class Held:
    """A mass deletion that waits to be confirmed: ``missing`` of ``known`` objects are gone."""

    missing: int
    known: int
    since: float


@dataclass(frozen=True, slots=True)
class HeldTimes:
    """A storm of moved times that waits for a choice: ``moved`` of ``known`` objects.

    Their ETags and sizes are as known.
    """

    moved: int
    known: int
    since: float


@dataclass(frozen=True, slots=True)
class ScanResult:
    """How one scan of one bucket ended; ``error`` is for people, ``error_class`` for programs.

    ``complete`` is false when a long pass paused, with ``progress`` (JSON) to go on from; ``began``
    is when the pass began, which may have been some scans ago, ``listed`` what all of it saw, or
    would see after a look.
    ``commit`` is the last commit's number; None of a scan that broke off. ``warnings`` are those
    of the whole pass. ``bucket_name`` is S3's, "" where it is the watch's. A complete pass that
    left objects out has an error too; the first one is then to be done ``again``. ``ahead`` (JSON)
    is what lanes have covered behind the ``progress``. A *look* lists some ``ranges`` of keys, and
    may ask for a pass in ``pass_in_s``. ``totals``: as seen; None if nobody goes by them.
    """

    bucket: str
    started_at: float
    duration_s: float
    counts: ScanCounts
    complete: bool = True
    began: float = 0.0
    listed: int = 0
    progress: str = ""
    held: Held | None = None
    held_times: HeldTimes | None = None
    error: str = ""
    error_class: str = ""
    permanent: bool = False
    commit: int | None = None
    warnings: tuple[ScanWarning, ...] = ()
    bucket_name: str = ""
    again: bool = False
    ahead: str = ""
    kind: Literal["pass", "look"] = "pass"
    totals: SeenTotals | None = None
    pass_in_s: float | None = None
    ranges: tuple[tuple[str, str | None], ...] = ()

    @property
    def title(self) -> str:
        """Name the watch, and the bucket where S3 has another name for it."""
        return watch_and_bucket(self.bucket, self.bucket_name or self.bucket)

    @property
    def ok(self) -> bool:
        return not self.error_class

    @property
    def is_look(self) -> bool:
        return self.kind == "look"

    @property
    def is_complete_pass(self) -> bool:
        return self.complete and not self.again and not self.is_look

    @property
    def was_interrupted(self) -> bool:
        return self.error_class == "Interrupted"

    def as_json(self) -> dict[str, Any]:
        """For ``runscan --json`` and logs."""
        counts = self.counts
        return {
            "bucket": self.bucket,
            "ok": self.ok,
            "objects": counts.objects,
            "created": counts.created,
            "updated": counts.updated,
            "detected": counts.detected,
            "deleted": counts.deleted,
            "pages": counts.pages,
            "held_missing": self.held.missing if self.held else 0,
            "held_moved": self.held_times.moved if self.held_times else 0,
            "warnings": {str(warning.kind): warning.count for warning in self.warnings},
            "started_at": self.started_at,
            "duration_s": round(self.duration_s, 3),
            "error": self.error or None,
        } | ({"bucket_name": self.bucket_name} if self.bucket_name else {})


@dataclass(frozen=True, slots=True)
class BucketStatus:
    """How a bucket's last scan ended, for the status columns of the database.

    ``last_scan_at`` is when the last complete scan began; ``error`` is empty after a complete one.
    ``lag_s`` is how long after its scheduled start the scan began, ``next_scan_at`` when it is due
    again. ``commit`` is the number of the last commit in ``generation``, ``commit_at`` when it
    was, None before the first; ``lost_since`` is set while the bucket is not scanned because Redis
    forgot it. ``warnings`` are those of the last complete pass.
    """

    bucket: str
    last_scan_at: float | None
    duration_s: float
    objects: int
    changes: int
    error: str
    error_class: str
    error_at: float | None
    lag_s: float = 0.0
    held_since: float | None = None
    held_missing: int = 0
    held_moved_since: float | None = None
    held_moved: int = 0
    next_scan_at: float | None = None
    generation: int = 0
    commit: int = 0
    commit_at: float | None = None
    lost_since: float | None = None
    warnings: tuple[ScanWarning, ...] = ()


@dataclass(frozen=True, slots=True)
class CommitExpectation:
    """What Redis has to remember of a bucket: the commit of this number, or a later one.

    It was at ``commit_at``, None if nothing was committed yet in this ``generation`` or an
    operator gave it up. ``commit`` is None if only the time is known, as an earlier version stored
    it: then any commit counts that is not older than that by more than ``window_s``.
    """

    bucket: str
    generation: int
    commit: int | None
    commit_at: float | None
    window_s: float = 0.0


@dataclass(frozen=True, slots=True)
class SetBack:
    """A bucket of which Redis forgot no more than a failover may; what it still knows.

    ``expected`` is the number of the commit that it should have known.
    """

    bucket: str
    generation: int
    expected: int
    commit: int
    commit_at: float


@dataclass(frozen=True, slots=True)
class Compared:
    """The buckets found lost just now, and those of which a failover forgot something."""

    lost: list[str]
    set_back: list[SetBack]
