"""`BucketScanner`: the documented thread that scans one bucket, a shell around `scan.Scan`."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from scanning import wiring
from scanning.adapters.configuration import parse_document
from scanning.conf import ScanningConf
from scanning.core import schedule
from scanning.core.errors import (
    BucketwatchError,
    CredentialsRejected,
    LeaseLost,
    PermanentError,
    ScanAborted,
)
from scanning.core.types import BucketConfig, Claim, KeyPair, ScanCounts, ScanResult
from scanning.scan import ReadOnlyStates, Scan

if TYPE_CHECKING:
    import queue
    from collections.abc import Callable, Mapping

    import redis

    from scanning.adapters.s3 import S3ClientCache

logger = logging.getLogger(__name__)


def _never_stop() -> None:
    """Keep going."""


class BucketScanner(threading.Thread):
    """Scans one bucket and puts a ``ScanResult`` into ``result_queue``.

    ``bucket_config`` is a ``BucketConfig`` or the documented JSON object; where that holds
    ``access_key`` and ``secret_key`` they are used, else the vault is asked. ``global_config`` is
    a ``ScanningConf`` or the documented YAML as a mapping. Without ``claim`` the scanner claims
    the bucket itself, and fails if somebody else is scanning it.

    Call ``run()`` to scan in this thread, ``start()`` to scan in another.
    """

    def __init__(
        self,
        bucket_config: BucketConfig | Mapping[str, Any],
        redis_client: redis.Redis,
        global_config: ScanningConf | Mapping[str, Any],
        result_queue: queue.Queue[ScanResult] | None,
        client_cache: S3ClientCache,
        *,
        claim: Claim | None = None,
        keep_going: Callable[[], None] = _never_stop,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.bucket, self._given_pair = _bucket_and_pair(bucket_config)
        super().__init__(name=f"scan-{self.bucket.name}", daemon=True)
        self.conf = (
            global_config
            if isinstance(global_config, ScanningConf)
            else ScanningConf.model_validate(dict(global_config))
        )
        self._engine = wiring.engine_over(redis_client, self.conf)
        self._results = result_queue
        self._clients = client_cache
        self._claim = claim
        self._keep_going = keep_going
        self._clock = clock
        self.result: ScanResult | None = None

    def run(self) -> None:
        counts = ScanCounts()
        outcome = _Outcome(self.bucket.name, counts, self._clock)
        claim = self._claim
        with outcome:
            claim = claim or self._take_claim()
            with self._engine.heartbeat.keeping(claim):
                _scan_with_credentials(self._scan(claim), self.bucket, self._given_pair, counts)
        self.result = outcome.result()
        if claim is not None:
            self._give_back(claim, self.result, outcome.error)
        if self._results is not None:
            self._results.put(self.result)

    def _take_claim(self) -> Claim:
        slots = self.conf.parallel.rate_limit_per_region
        claim = self._engine.leases.claim(self.bucket, slots=slots)
        if claim is None:
            raise LeaseLost(f"{self.bucket.name} is being scanned, or its region has no free slot")
        return claim

    def _scan(self, claim: Claim) -> Callable[[KeyPair], Scan]:
        return lambda pair: Scan(
            bucket=self.bucket,
            claim=claim,
            storage=wiring.storage(self._clients, self.bucket, pair, self.conf),
            states=self._engine.states,
            clock=self._clock,
            keep_going=self._keep_going,
            page_size=self.conf.page_size,
            ttl_s=self.conf.redis.ttl,
        )

    def _give_back(self, claim: Claim, result: ScanResult, error: Exception | None) -> None:
        try:
            if isinstance(error, ScanAborted):
                self._engine.leases.release(claim)
            else:
                self._engine.leases.finish(claim, result, next_due=self._next_due(claim))
        except BucketwatchError as exc:
            # The lease expires by itself; what was committed stays committed.
            logger.warning("%s: could not record the end of the scan: %s", self.bucket.name, exc)

    def _next_due(self, claim: Claim) -> float | None:
        if claim.offset_s is None:
            return None  # the schedule does not know this bucket (yet)
        interval_s = self.bucket.polling_interval_s or self.conf.defaults.polling_interval
        return schedule.next_due(claim.offset_s, interval_s, now=self._clock())


def dry_run(bucket: BucketConfig, conf: ScanningConf, clients: S3ClientCache) -> ScanResult:
    """Say what a scan would find; claims nothing, writes nothing, asks for no object's metadata."""
    counts = ScanCounts()
    outcome = _Outcome(bucket.name, counts, time.time)
    with outcome:
        _scan_with_credentials(
            lambda pair: Scan(
                bucket=replace(bucket, fetch_metadata=False),
                claim=Claim(bucket.name, bucket.region, 0, bucket.generation, 0.0, None, 0.0, 0),
                storage=wiring.storage(clients, bucket, pair, conf),
                states=ReadOnlyStates(wiring.engine().states),
                clock=time.time,
                keep_going=_never_stop,
                page_size=conf.page_size,
                ttl_s=conf.redis.ttl,
            ),
            bucket,
            None,
            counts,
        )
    return outcome.result()


def _scan_with_credentials(
    scan: Callable[[KeyPair], Scan], bucket: BucketConfig, given: KeyPair | None, counts: ScanCounts
) -> None:
    pair = given or wiring.credentials().get(bucket.credential)
    try:
        scan(pair).run(counts)
    except CredentialsRejected:
        # The keys may have been rotated since our snapshot: look once more, try once more.
        fresh = given or wiring.credentials().reload().get(bucket.credential)
        if fresh == pair:
            raise
        scan(fresh).run(counts)


class _Outcome:
    """Takes the errors of a block of scanning, and says how it ended."""

    def __init__(self, bucket: str, counts: ScanCounts, clock: Callable[[], float]) -> None:
        self._bucket, self._counts, self._clock = bucket, counts, clock
        self._started_at = clock()
        self.error: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: object
    ) -> bool:
        if isinstance(exc, BucketwatchError):
            level = logging.INFO if isinstance(exc, ScanAborted) else logging.WARNING
            logger.log(level, "%s: %s", self._bucket, exc)
            self.error = exc
        elif isinstance(exc, Exception):
            logger.error("%s: an error in bucketwatch broke the scan", self._bucket, exc_info=exc)
            self.error = BucketwatchError(f"internal error, see the log: {type(exc).__name__}")
        return isinstance(exc, Exception)

    def result(self) -> ScanResult:
        counts, error = self._counts, self.error
        result = ScanResult(
            bucket=self._bucket,
            started_at=self._started_at,
            duration_s=self._clock() - self._started_at,
            counts=counts,
            error=str(error) if error else "",
            error_class=type(error).__name__ if error else "",
            permanent=isinstance(error, PermanentError),
        )
        if error is None and counts.changes:
            logger.info(
                "%s: %d objects, %d created, %d updated, %d detected in %.3f s",
                self._bucket,
                counts.objects,
                counts.created,
                counts.updated,
                counts.detected,
                result.duration_s,
            )
        return result


def _bucket_and_pair(
    given: BucketConfig | Mapping[str, Any],
) -> tuple[BucketConfig, KeyPair | None]:
    if isinstance(given, BucketConfig):
        return given, None
    bucket = parse_document(str(given["name"]), given, notifications=True)
    if given.get("access_key") and given.get("secret_key"):
        return bucket, KeyPair(str(given["access_key"]), str(given["secret_key"]))
    return bucket, None
