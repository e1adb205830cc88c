"""Scans that somebody asked for: of some buckets, in this process, seen while they run."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from scanning import wiring
from scanning.adapters.redis.endpoint_profiles import ReadOnlyEndpointProfiles
from scanning.adapters.redis.read_only_state import reading_only
from scanning.core.errors import BucketwatchError, Interrupted, LeaseLost
from scanning.core.types import Claim, ScanCounts, ScanResult
from scanning.core.verify import Fault, Findings
from scanning.inspection.verify import Repair, Verification
from scanning.runtime.bucket_scanner import BucketScanner, Outcome, unsliced_settings
from scanning.scan.bucket_pass import BucketPass
from scanning.scan.context import ScanContext

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from scanning.core.types import BucketConfig, KeyPair
    from scanning.ports import StateStore

_RETRY_S = 0.25
_MOST_EVENTS = 16
# How long a scan that is told to stop may take to end before its lease is taken away from it.
_STOPS_WITHIN_S = 5.0


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
    """The findings of a comparison with all that is stored, and the result of the scan after it.

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
        """Return what ``runscan --full --json`` prints."""
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

    ``report`` is given the events before its end.
    """

    def __init__(
        self, bucket: BucketConfig, stopped: threading.Event, report: Callable[[RunEvent], None]
    ) -> None:
        self.bucket, self.stopped, self.report = bucket, stopped, report
        self.counts = ScanCounts()
        self.claim: Claim | None = None

    def keep_going(self) -> None:
        """Raise Interrupted once the scan shall stop."""
        if self.stopped.is_set():
            raise Interrupted(f"{self.bucket.name}: interrupted")


class ManualScanRunner:
    """Scans buckets, ``at_once`` of them at a time, in threads that can be left behind.

    ``run`` is one of the functions below. However the block ends, no lease is kept.
    """

    def __init__(
        self,
        buckets: Sequence[BucketConfig],
        run: Callable[[ManualScan], Result],
        *,
        at_once: int,
    ) -> None:
        self._stopped = threading.Event()
        self.scans = [ManualScan(bucket, self._stopped, self._put) for bucket in buckets]
        self._run = run
        self._waiting = deque(self.scans)
        # Bounded: a scan does not run ahead of whoever prints its events.
        self._events: queue.Queue[RunEvent | Exception] = queue.Queue(_MOST_EVENTS)
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

    def events(self, *, every_s: float) -> Iterator[RunEvent | None]:
        """Give the results and the events before them, as they come; None ``every_s`` without one.

        Raises what a scan raised instead of having a result.
        """
        left = len(self.scans)
        while left:
            try:
                event = self._events.get(timeout=every_s)
            except queue.Empty:
                yield None
                continue
            if isinstance(event, Exception):
                raise event
            left -= isinstance(event, Result)
            yield event

    def stop(self) -> list[Result]:
        """Let no scan go on; what does not end by itself loses its lease, and commits no more.

        Returns the results that nobody has taken, without those of interrupted scans.
        """
        self._stopped.set()
        until = time.monotonic() + _STOPS_WITHIN_S
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        for scan in self.scans:
            claim = scan.claim  # once: a scan that is ending sets it to None
            if claim is not None:
                with contextlib.suppress(BucketwatchError):  # it expires by itself
                    wiring.background().leases.release(claim)
        ended = [self._events.get() for _ in range(self._events.qsize())]
        return [r for r in ended if isinstance(r, Result) and not r.was_interrupted]

    def _work(self) -> None:
        with contextlib.suppress(Interrupted, IndexError):  # stopped, or nothing is left
            while not self._stopped.is_set():
                self._put(self._outcome_of(self._waiting.popleft()))

    def _outcome_of(self, scan: ManualScan) -> Result | Exception:
        try:
            return self._run(scan)
        except Interrupted:
            raise
        except Exception as exc:  # noqa: BLE001 - raised again where results are taken
            return exc

    def _put(self, event: RunEvent | Exception) -> None:
        """Raise Interrupted if nobody takes events any more."""
        while True:
            try:
                self._events.put(event, timeout=_RETRY_S)
            except queue.Full:
                if self._stopped.is_set():
                    raise Interrupted("nobody takes events any more") from None
            else:
                return


def scan_now(scan: ManualScan, *, wait_s: float) -> ScanResult:
    """Scan and commit as a worker does; waits ``wait_s`` for a worker to end its own scan."""
    # Without a claim after the wait, the scanner tries once more and says what is in the way.
    scan.claim = _claim(scan, wait_s)
    return _scan(scan)


def dry_run(scan: ManualScan) -> ScanResult:
    """Say what a scan would find; claims nothing, writes nothing, asks for no object's metadata."""
    bucket = scan.bucket
    claim = Claim(bucket.name, bucket.region, 0, bucket.generation, 0.0, None, 0.0, 0)
    outcome = Outcome(bucket, time.time, scan.counts)

    def announce(notifications: Sequence[str]) -> None:
        scan.report(DryRunEvents(notifications))

    with outcome, reading_only(wiring.background().states, announce) as states:
        without_heads = replace(bucket, fetch_metadata=False)
        outcome.end = wiring.with_keys(
            bucket,
            lambda pair: BucketPass(without_heads, claim, _context(scan, pair, states)).run(),
        )
    return outcome.result()


def verify(scan: ManualScan, *, wait_s: float) -> VerificationResult:
    """Compare all that is stored with a listing, under a lease, so that no scan comes between."""
    result, findings = _compare_all(Verification, scan, wait_s)
    _release(scan)
    return VerificationResult(result, findings, is_repaired=False)


def repair(scan: ManualScan, *, wait_s: float) -> VerificationResult:
    """Verify, mend what is wrong, and scan under the same lease."""
    result, findings = _compare_all(Repair, scan, wait_s)
    if result.ok:
        scan.counts = ScanCounts()
        result = _scan(scan)
    _release(scan)
    return VerificationResult(result, findings, is_repaired=result.ok)


def _compare_all(
    kind: type[Verification], scan: ManualScan, wait_s: float
) -> tuple[ScanResult, Findings]:
    bucket, adapters = scan.bucket, wiring.background()
    findings = Findings()
    outcome = Outcome(bucket, time.time, scan.counts)
    with outcome:
        claim = scan.claim = _claim(scan, wait_s)
        if claim is None:
            raise LeaseLost.not_to_be_had(bucket.name)
        [status] = wiring.background().bucket_status.read([bucket.name])
        with adapters.heartbeat.keeping(claim):
            findings = wiring.with_keys(
                bucket,
                lambda pair: kind(bucket, claim, _context(scan, pair, adapters.states)).run(
                    noted=status.objects if status.last_scan_at else None
                ),
            )
    return outcome.result(), findings


def _release(scan: ManualScan) -> None:
    if scan.claim is not None:
        wiring.background().leases.release(scan.claim)
        scan.claim = None


def _scan(scan: ManualScan) -> ScanResult:
    scanner = BucketScanner(
        scan.bucket,
        wiring.background().connection.client,
        wiring.conf(),
        None,
        wiring.client_cache(),
        claim=scan.claim,
        keep_going=scan.keep_going,
        counts=scan.counts,
    )
    scanner.run()
    scan.claim = None
    assert scanner.result is not None  # noqa: S101 - run() always sets it
    return scanner.result


def _context(scan: ManualScan, pair: KeyPair, states: StateStore) -> ScanContext:
    """Use one lane: without commits, lanes would read their own rows again."""
    bucket, conf = scan.bucket, wiring.conf()
    endpoints = wiring.background().endpoints
    profiles = ReadOnlyEndpointProfiles(wiring.background().endpoint_profiles)
    endpoints.limiter_for(bucket.endpoint).claim_probe_now(bucket.name)
    return ScanContext(
        storage=wiring.storage(wiring.client_cache(), bucket, pair, endpoints, profiles=profiles),
        states=states,
        clock=time.time,
        keep_going=scan.keep_going,
        settings=replace(unsliced_settings(bucket, conf), lanes=1),
        counts=scan.counts,
    )


def _claim(scan: ManualScan, wait_s: float) -> Claim | None:
    """Take the bucket's lease; None if somebody else keeps it for ``wait_s``."""
    leases, slots = wiring.background().leases, wiring.conf().parallel.rate_limit_per_region
    bucket = scan.bucket
    wiring.background().endpoints.limiter_for(bucket.endpoint).claim_probe_now(bucket.name)
    until = time.monotonic() + wait_s
    is_announced = False
    while (claim := leases.claim(bucket, slots=slots)) is None and time.monotonic() < until:
        if not is_announced:
            is_announced = True
            scan.report(
                Message(
                    f"{bucket.name}: a worker is scanning it, or its region has no free slot; "
                    f"waiting up to {wait_s:g} s"
                )
            )
        scan.stopped.wait(_RETRY_S)
        scan.keep_going()
    return claim
