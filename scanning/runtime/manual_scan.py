"""Scans that somebody asked for: of some buckets, in this process, watched while they run."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from scanning import wiring
from scanning.adapters.redis.read_only_state import reading_only
from scanning.core.errors import BucketwatchError, Interrupted, LeaseLost
from scanning.core.types import Claim, ScanCounts, ScanResult
from scanning.core.verify import Fault, Findings
from scanning.inspection.verify import Repair, Verification
from scanning.runtime.bucket_scanner import BucketScanner, Outcome, in_one_go
from scanning.scan.bucket_pass import BucketPass
from scanning.scan.context import ScanContext

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from scanning.core.types import BucketConfig, KeyPair
    from scanning.ports import StateStore

_TRY_AGAIN_S = 0.25
_AHEAD = 16
# How long a scan that is told to stop may take to end before its lease is taken away from it.
_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class DryRunEvents:
    """The notifications that a commit would have queued."""

    notifications: Sequence[str]


@dataclass(frozen=True, slots=True)
class Message:
    """A sentence for people."""

    line: str


@dataclass(frozen=True, slots=True)
class VerificationResult:
    """What a look at everything that is stored has found; ``result`` is that of the scan after it.

    Without a repair there is no scan: ``result`` then counts what one would find.
    """

    result: ScanResult
    findings: Findings
    is_repaired: bool

    @property
    def ok(self) -> bool:
        return self.result.ok and (self.is_repaired or not self.findings.wrong)

    @property
    def was_interrupted(self) -> bool:
        return self.result.was_interrupted

    def as_json(self) -> dict[str, Any]:
        """For ``runscan --full --json``."""
        findings = self.findings
        return self.result.as_json() | {
            "ok": self.ok,
            "segments": findings.segments,
            "wrong": {fault.value: findings.wrong[fault] for fault in Fault},
            "examples": {fault.value: keys for fault, keys in findings.examples.items()},
            "repaired": self.is_repaired,
        }


Result = ScanResult | VerificationResult
RunEvent = Result | DryRunEvents | Message


class ManualScan:
    """One scan, seen from outside: ``counts`` grow as it goes on, ``claim`` is the lease it holds.

    ``tell`` is given what the scan has to say before it ends.
    """

    def __init__(
        self, bucket: BucketConfig, stopped: threading.Event, tell: Callable[[RunEvent], None]
    ) -> None:
        self.bucket, self.stopped, self.tell = bucket, stopped, tell
        self.counts = ScanCounts()
        self.claim: Claim | None = None

    def keep_going(self) -> None:
        """Raises Interrupted once the scan shall stop."""
        if self.stopped.is_set():
            raise Interrupted(f"{self.bucket.name}: interrupted")


class ManualScanRunner:
    """Runs ``scan`` for buckets, ``at_once`` of them at a time, in threads that can be left behind.

    ``scan`` is one of the functions below. However the block ends, no lease is kept.
    """

    def __init__(
        self,
        buckets: Sequence[BucketConfig],
        scan: Callable[[ManualScan], Result],
        *,
        at_once: int,
    ) -> None:
        self._stopped = threading.Event()
        self.watched = [ManualScan(bucket, self._stopped, self._put) for bucket in buckets]
        self._scan = scan
        self._waiting = deque(self.watched)
        # Bounded: a scan does not run ahead of whoever prints its events.
        self._arrived: queue.Queue[RunEvent | Exception] = queue.Queue(_AHEAD)
        # Daemons: one that waits for a server that never answers must not keep the process.
        self._threads = [
            threading.Thread(target=self._work, name=f"scan-{n}", daemon=True)
            for n in range(min(at_once, len(buckets)))
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._stopped.is_set():
            self.stop()

    def arrivals(self, *, every_s: float) -> Iterator[RunEvent | None]:
        """The results and what is told before, as they come; None after ``every_s`` of nothing.

        Raises what a scan raised instead of having a result.
        """
        left = len(self.watched)
        while left:
            try:
                arrival = self._arrived.get(timeout=every_s)
            except queue.Empty:
                yield None
                continue
            if isinstance(arrival, Exception):
                raise arrival
            left -= isinstance(arrival, Result)
            yield arrival

    def stop(self) -> list[Result]:
        """Let no scan go on; what does not end by itself loses its lease, and commits no more.

        Returns the results that nobody has taken, without those of interrupted scans.
        """
        self._stopped.set()
        until = time.monotonic() + _PATIENCE_S
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        for watched in self.watched:
            claim = watched.claim  # once: a scan that is ending sets it to None
            if claim is not None:
                with contextlib.suppress(BucketwatchError):  # it expires by itself
                    wiring.background().leases.release(claim)
        ended = [self._arrived.get() for _ in range(self._arrived.qsize())]
        return [r for r in ended if isinstance(r, Result) and not r.was_interrupted]

    def _work(self) -> None:
        with contextlib.suppress(Interrupted, IndexError):  # stopped, or nothing is left
            while not self._stopped.is_set():
                self._put(self._scanned(self._waiting.popleft()))

    def _scanned(self, watched: ManualScan) -> Result | Exception:
        try:
            return self._scan(watched)
        except Interrupted:
            raise
        except Exception as exc:  # noqa: BLE001 - raised again where results are taken
            return exc

    def _put(self, arrival: RunEvent | Exception) -> None:
        """Raises Interrupted if nobody takes it any more."""
        while True:
            try:
                self._arrived.put(arrival, timeout=_TRY_AGAIN_S)
            except queue.Full:
                if self._stopped.is_set():
                    raise Interrupted("nobody takes what arrives any more") from None
            else:
                return


def scan_now(watched: ManualScan, *, wait_s: float) -> ScanResult:
    """One scan that commits, as a worker's does; waits ``wait_s`` for a worker to end its own."""
    # Without a claim after the wait, the scanner tries once more and says what is in the way.
    watched.claim = _claim(watched, wait_s)
    return _scan(watched)


def dry_run(watched: ManualScan) -> ScanResult:
    """Say what a scan would find; claims nothing, writes nothing, asks for no object's metadata."""
    bucket = watched.bucket
    claim = Claim(bucket.name, bucket.region, 0, bucket.generation, 0.0, None, 0.0, 0)
    outcome = Outcome(bucket.name, time.time, watched.counts)

    def announce(notifications: Sequence[str]) -> None:
        watched.tell(DryRunEvents(notifications))

    with outcome, reading_only(wiring.background().states, announce) as states:
        without_heads = replace(bucket, fetch_metadata=False)
        outcome.end = wiring.with_keys(
            bucket,
            lambda pair: BucketPass(without_heads, claim, _means(watched, pair, states)).run(),
        )
    return outcome.result()


def verify(watched: ManualScan, *, wait_s: float) -> VerificationResult:
    """Compare all that is stored with a listing, under a lease, so that no scan comes between."""
    result, findings = _look_at_all(Verification, watched, wait_s)
    _release(watched)
    return VerificationResult(result, findings, is_repaired=False)


def repair(watched: ManualScan, *, wait_s: float) -> VerificationResult:
    """The same, mend what is wrong, and scan under the same lease."""
    result, findings = _look_at_all(Repair, watched, wait_s)
    if result.ok:
        watched.counts = ScanCounts()
        result = _scan(watched)
    _release(watched)
    return VerificationResult(result, findings, is_repaired=result.ok)


def _look_at_all(
    kind: type[Verification], watched: ManualScan, wait_s: float
) -> tuple[ScanResult, Findings]:
    bucket, adapters = watched.bucket, wiring.background()
    findings = Findings()
    outcome = Outcome(bucket.name, time.time, watched.counts)
    with outcome:
        claim = watched.claim = _claim(watched, wait_s)
        if claim is None:
            raise LeaseLost.not_to_be_had(bucket.name)
        [status] = wiring.background().bucket_status.read([bucket.name])
        with adapters.heartbeat.keeping(claim):
            findings = wiring.with_keys(
                bucket,
                lambda pair: kind(bucket, claim, _means(watched, pair, adapters.states)).run(
                    noted=status.objects if status.last_scan_at else None
                ),
            )
    return outcome.result(), findings


def _release(watched: ManualScan) -> None:
    if watched.claim is not None:
        wiring.background().leases.release(watched.claim)
        watched.claim = None


def _scan(watched: ManualScan) -> ScanResult:
    scanner = BucketScanner(
        watched.bucket,
        wiring.background().connection.client,
        wiring.conf(),
        None,
        wiring.client_cache(),
        claim=watched.claim,
        keep_going=watched.keep_going,
        counts=watched.counts,
    )
    scanner.run()
    watched.claim = None
    assert scanner.result is not None  # noqa: S101 - run() always sets it
    return scanner.result


def _means(watched: ManualScan, pair: KeyPair, states: StateStore) -> ScanContext:
    """One lane: looking without commits reads its own rows again."""
    bucket, conf = watched.bucket, wiring.conf()
    gates = wiring.background().gates
    gates.at(bucket.endpoint).probe_now(bucket.name)
    return ScanContext(
        storage=wiring.storage(wiring.client_cache(), bucket, pair, gates),
        states=states,
        clock=time.time,
        keep_going=watched.keep_going,
        settings=replace(in_one_go(bucket, conf), lanes=1),
        counts=watched.counts,
    )


def _claim(watched: ManualScan, wait_s: float) -> Claim | None:
    """The bucket's lease; None if somebody else keeps it for ``wait_s``."""
    leases, slots = wiring.background().leases, wiring.conf().parallel.rate_limit_per_region
    bucket = watched.bucket
    wiring.background().gates.at(bucket.endpoint).probe_now(bucket.name)
    until = time.monotonic() + wait_s
    said = False
    while (claim := leases.claim(bucket, slots=slots)) is None and time.monotonic() < until:
        if not said:
            said = True
            watched.tell(
                Message(
                    f"{bucket.name}: a worker is scanning it, or its region has no free slot; "
                    f"waiting up to {wait_s:g} s"
                )
            )
        watched.stopped.wait(_TRY_AGAIN_S)
        watched.keep_going()
    return claim
