"""What a django-q2 worker runs. A task is a wake-up: lost, late or twice, it costs nothing.

The truth of what is due, and who may scan it, is in Redis (`adapters/redis/leases.py`).
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import TYPE_CHECKING

from scanning import wiring
from scanning.adapters.redis.stats import ClientCacheReport
from scanning.core.errors import BucketwatchError, Interrupted
from scanning.pacing.admission import Admission
from scanning.runtime.bucket_scanner import BucketScanner
from scanning.runtime.processes import StopSignal, give_back_memory

if TYPE_CHECKING:
    from scanning.core.types import BucketConfig, Claim
    from scanning.scan.context import ScanSettings

logger = logging.getLogger(__name__)

# A task ends well before django-q2 would kill it: with nothing to scan after TIME_BUDGET_S. While
# something runs it claims other buckets too, but only for LONGEST_S, so that all may end.
TIME_BUDGET_S = 20.0
LONGEST_S = 300.0
# A scan that still runs so long after the last claim may take minutes: other buckets do not wait.
PATIENCE_S = 5.0
# A slot that another host gives back, and a bucket that somebody made due (*scan now*, or a new
# one), are noticed no later than this.
_POLL_S = 0.5
# How often S3 clients and the vault's age are reported: a report of 120 s ago counts as gone.
_REPORT_S = 30.0
# For a bucket that is due and may not be scanned: the monitor will soon take it off the schedule.
_POSTPONE_S = 5.0
# How long a process that is to stop waits for answers that are under way.
_LAST_ANSWER_S = 2.0


# Workers are told to stop through this; the process that forks them puts a shared event here.
stop_signal: threading.Event | StopSignal = threading.Event()


def scan_region(region: str) -> None:
    """Scan a region's due buckets for ``TIME_BUDGET_S``, or until none is due in that time."""
    try:
        RegionSession(region).run()
    except BucketwatchError as exc:
        logger.warning("%s: scanning waits: %s", region, exc)


def stop_if_asked() -> None:
    """Raise Interrupted once this process was told to stop."""
    if stop_signal.is_set():
        raise Interrupted("this process is stopping")


def _end(running: set[Future[None]]) -> None:
    """Let scans end at their next page or commit; break off requests that wait for an answer."""
    wiring.background().endpoints.close()
    _, waiting = wait(running, timeout=_LAST_ANSWER_S)
    if waiting:
        wiring.client_cache().break_off()


class Deadline:
    """A moment some seconds from when it is made."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    @property
    def left_s(self) -> float:
        return self._at - time.monotonic()

    @property
    def is_over(self) -> bool:
        return self.left_s <= 0


class RegionSession:
    """One wake-up of one region."""

    def __init__(self, region: str) -> None:
        self._region = region
        self._conf = wiring.conf()
        self._leases = wiring.background().leases
        self._slots = self._conf.parallel.rate_limit_per_region
        self._threads = min(self._slots, self._conf.parallel.max_workers)
        self._admission = Admission(
            region,
            wiring.background().endpoints,
            self._leases,
            wiring.background().bucket_cache.get,
            endpoints=wiring.background().schedule.endpoints(region),
            slots=self._slots,
            threads=self._threads,
        )

    def run(self) -> None:
        idle_until = Deadline(TIME_BUDGET_S)
        self._claim_until = Deadline(LONGEST_S)
        report_at = Deadline(_REPORT_S)
        running: set[Future[None]] = set()
        with ThreadPoolExecutor(self._threads, thread_name_prefix="scan") as pool:
            while not stop_signal.is_set():
                if report_at.is_over:
                    _report_clients()
                    report_at = Deadline(_REPORT_S)
                # What runs had its time to end, and has not: the others are claimed again.
                if self._claim_until.left_s < -PATIENCE_S:
                    self._claim_until = Deadline(LONGEST_S)
                # With nothing running the task could end now; with something it cannot, and claims.
                if not (self._claim_until if running else idle_until).is_over:
                    for claim, bucket in self._claim(self._threads - len(running)):
                        running.add(pool.submit(self._scan, claim, bucket))
                if running:
                    _, running = wait(running, timeout=_POLL_S, return_when=FIRST_COMPLETED)
                elif not self._sleep_until_due(idle_until):
                    break
            if stop_signal.is_set():
                _end(running)
        wiring.report_requests()
        _report_clients()
        give_back_memory()

    def _claim(self, limit: int) -> list[tuple[Claim, BucketConfig | None]]:
        admitted: list[tuple[Claim, BucketConfig | None]] = []
        while (room := limit - len(admitted)) > 0:
            claims = self._leases.claim_due(self._region, limit=room, slots=self._slots)
            if not claims:
                break
            buckets = wiring.background().bucket_cache.get([claim.bucket for claim in claims])
            may_scan = self._admission.admit(claims, buckets)
            admitted += [(claim, buckets.get(claim.bucket)) for claim in may_scan]
            if len(may_scan) == len(claims):
                break  # else the claims that were turned away made room
        return admitted

    def _scan(self, claim: Claim, bucket: BucketConfig | None) -> None:
        try:
            if bucket is None or not _is_current(claim, bucket):
                self._postpone(claim)  # removed or changed since it was scheduled
                return
            BucketScanner(
                bucket,
                wiring.background().connection.client,
                self._conf,
                None,
                wiring.client_cache(),
                claim=claim,
                keep_going=stop_if_asked,
                settings=self._settings(),
            ).run()
        except BucketwatchError as exc:
            logger.warning("%s: %s", claim.bucket, exc)
        except Exception:
            logger.exception("%s: an error in bucketwatch; its lease expires", claim.bucket)
        finally:
            self._admission.ended(claim)

    def _settings(self) -> ScanSettings:
        """Give each scan a time slice that ends soon after the last claim."""
        settings = wiring.scan_settings(self._conf)
        left_s = max(1.0, self._claim_until.left_s)
        return replace(settings, slice_s=min(settings.slice_s, left_s))

    def _postpone(self, claim: Claim) -> None:
        """Give a claim back, and do not take it again in the next moment, and the next."""
        at = claim.taken_at + _POSTPONE_S
        wiring.background().schedule.postpone(claim.bucket, claim.region, until=at)
        self._leases.release(claim)

    def _sleep_until_due(self, idle_until: Deadline) -> bool:
        """Wait for the next due bucket; False if none comes until then."""
        while not stop_signal.is_set():
            due_in_s = self._leases.next_due_in_s(self._region)
            left_s = idle_until.left_s
            if due_in_s is None or due_in_s > left_s or left_s <= 0:
                return False
            # Due but not to be had: its region is full on other hosts, or it is being cleared.
            stop_signal.wait(min(max(due_in_s, 0.05), _POLL_S))
            if due_in_s <= _POLL_S:
                break
        return True


def _is_current(claim: Claim, bucket: BucketConfig) -> bool:
    """Say whether the bucket is still configured as it was when it was claimed."""
    claimed = (claim.region, claim.generation)
    return bucket.active and (bucket.region, bucket.generation) == claimed


_reports: dict[int, ClientCacheReport] = {}


def _report_clients() -> None:
    link = wiring.background().connection
    report = _reports.setdefault(id(link), ClientCacheReport(link))
    report.send(wiring.client_cache().get_stats(), vault_age_s=wiring.vault_age_s())
