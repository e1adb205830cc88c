"""What a django-q2 worker runs. A task is a wake-up: lost, late or twice, it costs nothing.

The truth of what is due, and who may scan it, is in Redis (`adapters/leases.py`).
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Protocol

from scanning import wiring
from scanning.adapters.stats import ClientCacheReport
from scanning.core.errors import BucketwatchError, Interrupted
from scanning.scanner import BucketScanner

if TYPE_CHECKING:
    from scanning.core.types import BucketConfig, Claim

logger = logging.getLogger(__name__)

# A task ends well before django-q2 would kill it; the next tick wakes the region again.
TIME_BUDGET_S = 20.0
# A slot that another host gives back is noticed no later than this.
_LOOK_AGAIN_S = 0.5
# A bucket that is due and may not be scanned: the monitor will soon take it off the schedule.
_PUT_OFF_S = 5.0


class StopSignal(Protocol):
    def is_set(self) -> bool: ...
    def wait(self, timeout: float | None = None) -> bool: ...


# Workers are told to stop through this; the process that forks them puts a shared event here.
stop_signal: StopSignal = threading.Event()


def scan_region(region: str) -> None:
    """Scan a region's due buckets until none is due soon, for at most ``TIME_BUDGET_S``."""
    try:
        _RegionRun(region).run()
    except BucketwatchError as exc:
        logger.warning("%s: scanning waits: %s", region, exc)


def stop_if_asked() -> None:
    """Raise Interrupted once this process was told to stop."""
    if stop_signal.is_set():
        raise Interrupted("this process is stopping")


class _RegionRun:
    """One wake-up of one region."""

    def __init__(self, region: str) -> None:
        self._region = region
        self._conf = wiring.conf()
        self._leases = wiring.engine().leases
        self._slots = self._conf.parallel.rate_limit_per_region
        self._threads = min(self._slots, self._conf.parallel.max_workers)
        self._version = -1
        self._buckets: dict[str, BucketConfig] = {}

    def run(self) -> None:
        until = time.monotonic() + TIME_BUDGET_S
        running: set[Future[None]] = set()
        with ThreadPoolExecutor(self._threads, thread_name_prefix="scan") as pool:
            while not stop_signal.is_set():
                if time.monotonic() < until:
                    claims = self._claim(self._threads - len(running))
                    running |= {pool.submit(self._scan, claim) for claim in claims}
                if running:
                    _, running = wait(running, timeout=_LOOK_AGAIN_S, return_when=FIRST_COMPLETED)
                elif not self._sleep_until_due(until):
                    break
        _report().send(wiring.client_cache().get_stats(), vault_age_s=wiring.vault_age_s())

    def _claim(self, most: int) -> list[Claim]:
        if most <= 0:
            return []
        claims = self._leases.claim_due(self._region, most=most, slots=self._slots)
        if claims:
            self._refresh_buckets()
        return claims

    def _refresh_buckets(self) -> None:
        store = wiring.configuration()
        if (version := store.version()) != self._version:
            self._buckets = dict(store.load().buckets)
            self._version = version

    def _scan(self, claim: Claim) -> None:
        try:
            bucket = self._buckets.get(claim.bucket)
            if bucket is None or not bucket.active or bucket.generation != claim.generation:
                self._put_off(claim)  # removed or changed since it was scheduled
                return
            BucketScanner(
                bucket,
                wiring.connection().client,
                self._conf,
                None,
                wiring.client_cache(),
                claim=claim,
                keep_going=stop_if_asked,
                settings=wiring.scan_settings(self._conf),
            ).run()
        except BucketwatchError as exc:
            logger.warning("%s: %s", claim.bucket, exc)
        except Exception:
            logger.exception("%s: an error in bucketwatch; its lease expires", claim.bucket)

    def _put_off(self, claim: Claim) -> None:
        """Give a claim back, and do not take it again in the next moment, and the next."""
        at = time.time() + _PUT_OFF_S
        wiring.schedule().due_at(claim.bucket, claim.region, at=at)
        self._leases.release(claim)

    def _sleep_until_due(self, until: float) -> bool:
        """Wait for the next due bucket; False if none comes within the time budget."""
        due = self._leases.next_due(self._region)
        left = until - time.monotonic()
        if due is None or due - time.time() > left or left <= 0:
            return False
        # Due but not to be had: its region is full on other hosts, or it is being cleared.
        stop_signal.wait(max(due - time.time(), 0.05))
        return True


_reports: dict[int, ClientCacheReport] = {}


def _report() -> ClientCacheReport:
    link = wiring.connection()
    return _reports.setdefault(id(link), ClientCacheReport(link))
