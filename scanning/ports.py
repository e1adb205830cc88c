"""What a scan needs of the world. Adapters implement these; `wiring.py` chooses them.

Every method raises only errors of `core/errors.py`. Times are epoch seconds, UTC.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from scanning.core.totals import NO_CHANGE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from scanning.core.changes import Version
    from scanning.core.deletions import HeadAnswer
    from scanning.core.endpoint_profile import EndpointProfile, Fact
    from scanning.core.listing.body import Columns
    from scanning.core.listing.rows import ListedRows
    from scanning.core.pacing import EndpointHealth
    from scanning.core.request_costs import RequestKind
    from scanning.core.scan_warnings import ScanWarning
    from scanning.core.segments.key_ranges import Covered
    from scanning.core.segments.matcher import Page
    from scanning.core.segments.model import Entry, Piece
    from scanning.core.totals import Totals
    from scanning.core.types import (
        BucketConfig,
        Claim,
        EventType,
        KeyPair,
        ObjectMetadata,
        ObjectState,
        ScanResult,
    )


class Storage(Protocol):
    """One bucket at its S3 endpoint."""

    def page(self, start_after: str, max_keys: int) -> Page:
        """List the next keys after ``start_after``, in UTF-8 byte order, at most 1000: one answer.

        Only a page that says ``is_truncated`` false is the last. An answer that cannot be read
        raises instead of looking shorter than it was.
        """

    def begins_anywhere(self) -> bool:
        """Tell whether a page can begin after any key at the price of one request.

        Else whatever comes before that key is listed, too: a pass is one lane, without a pause.
        The endpoint may be asked.
        """

    def rows(self, entries: bytes) -> ListedRows:
        """Parse a page's ``entries``, or a part of them: each row once and in order."""

    def head(self, key: str) -> ObjectMetadata | None:
        """Read content type and user metadata of one object; None if it is gone."""

    def look_up(self, key: str) -> Version | HeadAnswer:
        """Send HEAD for a key: return the version it tells of, or how it is refused.

        The version's time is in whole seconds, 0 where HEAD tells none.

        Raises StorageUnavailable or Throttled where there is no answer to go by.
        """

    def totals(self) -> Totals | None:
        """Ask for the bucket's totals: one request; None where the server or the key tells none."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an unfinished pass over a bucket has come; kept with every commit.

    ``began`` is when the pass began; everything up to ``after`` is covered; ``listed`` and
    ``appeared`` count objects so far. ``is_listed`` says that only deletions are left to decide:
    up to ``after`` they are.
    """

    began: float
    after: str = ""
    listed: int = 0
    appeared: int = 0
    is_listed: bool = False

    def begun_anew(self) -> Progress:
        """Return the same pass with everything still to list.

        ``began`` stays: it decides what a baseline is silent about.
        """
        return replace(self, after="", listed=0, is_listed=False)


@dataclass(frozen=True, slots=True)
class Position:
    """Where a scan stands: under the claim of this fence, after this commit."""

    fence: int
    commit: int


@dataclass(frozen=True, slots=True)
class KnownState:
    """What is remembered of a bucket when a scan begins; ``entries`` in key order.

    ``commit`` is the number of the commit that wrote it last.
    ``is_first`` until the first pass over the bucket is complete. ``held_since`` is set while a
    mass deletion waits to be confirmed; of how many objects somebody confirmed it says
    ``released``. ``held_moved_since`` and ``released_moved`` say the same of a storm of moved
    times; ``takes_times``: somebody chose to take the times silently. ``older_scan_at`` is when an
    older monitor last scanned a bucket that was taken over, until its first pass is complete.
    ``is_whole``: there are as many segments as the last commit left. S3 broke off the last
    ``stuck`` scans where the pass stands. ``warnings`` are those of the pass so far, ``ahead`` the
    ranges that it has covered behind its ``progress`` (none where something else was committed
    since), and ``totals_before`` the bucket's totals before it began. ``last_pass_at`` is when the
    last complete pass began. ``listed`` moves as the rows do that are not missing; the bucket's
    totals differed from it by ``totals_apart`` after that pass, if that is known.
    """

    entries: Sequence[Entry]
    progress: Progress | None
    is_first: bool
    held_since: float | None
    released: int
    commit: int
    older_scan_at: float | None = None
    is_whole: bool = True
    stuck: int = 0
    warnings: tuple[ScanWarning, ...] = ()
    ahead: Sequence[Covered] = ()
    held_moved_since: float | None = None
    released_moved: int = 0
    takes_times: bool = False
    last_pass_at: float | None = None
    listed: Totals = NO_CHANGE
    totals_apart: Totals | None = None
    totals_before: Totals | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    """What one commit writes: all of it or nothing.

    ``pieces`` are new or changed segments, ``removed`` the ids of those that are no more;
    ``gained`` is by how much the objects in them that are not missing are more.
    ``notifications`` are JSON texts in key order; ``recent`` one JSON text for the stream of
    recent events, or "". ``strings`` are documented states to write, ``no_strings`` keys whose
    documented state must go. Of the changes ``counted``, so many were ``announced``; ``lags_s`` is
    how long before them the objects of some were modified. ``filter_fingerprint`` is that of
    the bucket by which they were chosen; "" where that does not matter. ``warnings`` are those of
    the pass so far, and ``ahead`` the ranges that it has covered behind its ``progress``.
    ``took_times``: all moved times are taken silently, which ends their hold.
    """

    number: int
    pieces: Sequence[Piece] = ()
    removed: Sequence[str] = ()
    gained: Totals = NO_CHANGE
    notifications: Sequence[str] = ()
    recent: str = ""
    strings: Mapping[str, ObjectState] = field(default_factory=dict)
    no_strings: Sequence[str] = ()
    counted: Mapping[EventType, int] = field(default_factory=dict)
    announced: Mapping[EventType, int] = field(default_factory=dict)
    lags_s: Sequence[float] = ()
    progress: Progress | None = None
    ahead: Sequence[Covered] = ()
    filter_fingerprint: str = ""
    warnings: tuple[ScanWarning, ...] = ()
    took_times: bool = False


class StateStore(Protocol):
    """What is remembered of a bucket's objects, and the queue that is written with it.

    A server that was master before a failover may answer for a while, from before it. Whoever reads
    in order to commit says what the answer has to know: the claim, and the last commit under it.
    Such reads raise LeaseLost or CommitOutOfStep.
    """

    def open(self, bucket: BucketConfig, claim: Claim | None = None) -> KnownState:
        """Read everything but the rows; one round trip. Raises StateLost and StateDamaged."""

    def load(
        self, bucket: BucketConfig, segments: Sequence[str], at: Position | None = None
    ) -> list[Columns]:
        """Read the rows of some segments, in the order asked; one round trip."""

    def read_segment(self, bucket: BucketConfig, entry: Entry) -> Columns | None:
        """Read the rows that ``entry`` describes, without a lease; None once a scan has changed it.

        Whoever gets None opens the bucket again. Raises StateDamaged.
        """

    def older_states(self, bucket: BucketConfig, keys: Sequence[str]) -> list[ObjectState | None]:
        """Read documented states that an older monitor left, in the order of ``keys``; one MGET."""

    def commit(self, claim: Claim, commit: Commit) -> None:
        """Write it all, or nothing; repeating the same number changes nothing.

        Raises LeaseLost, ConfigurationChanged, QueueFull, or CommitOutOfStep when the number does
        not follow the stored one.
        """

    def begin(self, claim: Claim, commit: Commit) -> Callable[[], None]:
        """Send a commit. What is returned waits for its end, and raises what ``commit`` raises.

        It has to be called before anything else of the bucket is read or written.
        """


class Leases(Protocol):
    """Who scans what, and when it is due. A claim is a region's slot and a bucket's lock in one."""

    def claim_due(self, region: str, *, limit: int, slots: int) -> list[Claim]:
        """Take up to ``limit`` due buckets of a region while it runs fewer than ``slots`` scans.

        None while it is not known whether Redis still is the one that was written to.
        """

    def claim(self, bucket: BucketConfig, *, slots: int) -> Claim | None:
        """Take one bucket now, due or not; None while it is being scanned or its region is full."""

    def renew(self, claim: Claim) -> bool:
        """Keep the claim for another lease time; False if it is no longer ours."""

    def finish(
        self,
        claim: Claim,
        result: ScanResult,
        *,
        next_due: float | None,
        failures: int = 0,
        broke_off: bool = False,
        stretched: bool = False,
    ) -> None:
        """Release the claim, record how the scan ended and when the bucket is due again.

        ``failures`` is how many scans failed in a row, this one included: the bucket is postponed
        until ``next_due``, whatever its polling interval. ``broke_off``: an endpoint that answers
        others broke it off, maybe because of where the pass stands. ``stretched``: a budget has the
        bucket be due later than its polling interval does. Of a bucket that was removed or pointed
        elsewhere meanwhile nothing is recorded, and it stays due.
        """

    def release(self, claim: Claim) -> None:
        """Release a claim unused: the bucket stays due, and nothing is recorded."""

    def running(self, region: str) -> list[str]:
        """Name the buckets of a region that are being scanned, on all hosts."""

    def next_due_in_s(self, region: str) -> float | None:
        """Tell in how many seconds a region's next bucket that nobody is scanning is due.

        Less than 0 if it is late, None without any.
        """


@dataclass(frozen=True, slots=True)
class RequestReport:
    """What one process sent to an endpoint since its last report, by bucket and kind.

    A report that is sent twice, with the same ``number``, counts once; they are numbered by each
    ``reporter`` for itself. ``throttled`` and ``unanswered`` are those that went wrong.
    """

    reporter: str
    number: int
    sent: Mapping[tuple[str, RequestKind], int] = field(default_factory=dict)
    throttled: int = 0
    unanswered: int = 0


@dataclass(frozen=True, slots=True)
class EndpointUsage:
    """How one process uses an endpoint, and how many connections it wants.

    ``limit`` is the most that all processes may have; 0: any number.
    """

    endpoint: str
    sent_per_s: float = 0.0
    connections: int = 0
    limit: int = 0
    report: RequestReport | None = None


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """How an endpoint answers at ``now``, by the clock that all processes go by, Redis's.

    ``connections`` are granted to who asked; ``others_per_s`` is what the other processes send.
    """

    health: EndpointHealth
    now: float
    connections: int = 0
    others_per_s: float = 0.0


class EndpointHealthStore(Protocol):
    """How endpoints answer, shared by all processes; endpoints by `endpoint_name`."""

    def share_usage(self, usage: EndpointUsage) -> EndpointStatus:
        """Report a second's usage, and learn the endpoint's status."""

    def update(
        self, endpoint: str, change: Callable[[EndpointHealth, float], EndpointHealth]
    ) -> EndpointStatus:
        """Replace what is stored by ``change`` of it and the time, which may be called again."""

    def reserve(
        self, endpoint: str, *, count: int, spacing_s: float, max_wait_s: float
    ) -> float | None:
        """Reserve moments to ask at; seconds from now to the first, None if that is too long."""

    def postpone_until_answer(
        self, claims: Sequence[Claim], endpoint: str, *, until: float
    ) -> None:
        """Release claims; their buckets wait until the endpoint answers again.

        The first few buckets are due at ``until`` to try the endpoint, and all of them once it
        answered one.
        """

    def postpone(self, claims: Sequence[Claim], *, until: float) -> None:
        """Release claims; their buckets are due at ``until``."""


class RequestCounts(Protocol):
    """How many requests all processes sent."""

    def sent_today(self, bucket: str, endpoint: str) -> tuple[int, int]:
        """Count what was sent for a bucket, and to an endpoint, since midnight UTC."""


class EndpointProfileStore(Protocol):
    """What endpoints are known to do, shared by all processes; endpoints by `endpoint_name`."""

    def read(self, endpoint: str) -> EndpointProfile:
        """Read what is known of an endpoint by now; nothing where Redis is away."""

    def learn(
        self, endpoint: str, facts: Mapping[Fact, str], *, asked: bool = False
    ) -> EndpointProfile:
        """Remember what it showed; ``asked``: it was asked for all of its facts just now."""


class Vault(Protocol):
    """Where S3 key pairs live, by vault prefix. Nothing secret is stored anywhere else."""

    def read_all(self) -> Mapping[str, KeyPair]:
        """Read every complete key pair. Raises VaultUnavailable."""

    def write(self, prefix: str, pair: KeyPair) -> None:
        """Create or replace one key pair and verify that it can be read back."""

    def delete_many(self, names: Collection[str]) -> None:
        """Forget these entries; those that are not there are as good."""

    def names(self) -> frozenset[str]:
        """Name all entries, halves of key pairs included."""

    def read_secrets(self, names: Collection[str]) -> Mapping[str, str]:
        """Read the values of some entries; those that are not there are left out."""

    def write_many(self, entries: Mapping[str, str]) -> None:
        """Create or replace entries by name, and verify them. A failure may leave some written."""
