"""`BucketScanner`: the documented thread that scans one bucket, a shell around `scan.Scan`."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Self

from scanning import wiring
from scanning.adapters.configuration import parse_document
from scanning.conf import ScanningConf
from scanning.core import schedule
from scanning.core.errors import (
    BucketwatchError,
    ConfigurationChanged,
    CredentialsRejected,
    LeaseLost,
    PermanentError,
    ScanAborted,
)
from scanning.core.types import BucketConfig, Claim, KeyPair, ScanCounts, ScanResult
from scanning.read_only import ReadOnlyStates
from scanning.scan import Scan, ScanEnd, ScanSettings

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

    def __init__(  # noqa: PLR0913 - documented
        self,
        bucket_config: BucketConfig | Mapping[str, Any],
        redis_client: redis.Redis,
        global_config: ScanningConf | Mapping[str, Any],
        result_queue: queue.Queue[ScanResult] | None,
        client_cache: S3ClientCache,
        *,
        claim: Claim | None = None,
        keep_going: Callable[[], None] = _never_stop,
        settings: ScanSettings | None = None,
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
        self._settings = _of(self.bucket, settings or _in_one_go(self.conf))
        self._clock = clock
        self.result: ScanResult | None = None

    def run(self) -> None:
        outcome = _Outcome(self.bucket.name, self._clock)
        claim = self._claim
        with outcome:
            claim = claim or self._take_claim()
            with self._engine.heartbeat.keeping(claim):
                outcome.end = _scan_with_credentials(
                    self._scan(claim, outcome.counts), self.bucket, self._given_pair
                )
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
        # A documented JSON object of the older monitor's knows no generation.
        if self.bucket.generation not in {0, claim.generation}:
            self._engine.leases.release(claim)
            raise ConfigurationChanged(f"{self.bucket.name}: changed since it was read")
        self.bucket = replace(self.bucket, generation=claim.generation)
        return claim

    def _scan(self, claim: Claim, counts: ScanCounts) -> Callable[[KeyPair], Scan]:
        return lambda pair: Scan(
            self.bucket,
            claim,
            storage=wiring.storage(self._clients, self.bucket, pair, self.conf),
            states=self._engine.states,
            clock=self._clock,
            keep_going=self._keep_going,
            settings=self._settings,
            counts=counts,
        )

    def _give_back(self, claim: Claim, result: ScanResult, error: Exception | None) -> None:
        try:
            if isinstance(error, ScanAborted):
                self._engine.leases.release(claim)
            else:
                paused = result.ok and not result.complete
                due = self._clock() if paused else self._next_due(claim)
                self._engine.leases.finish(claim, result, next_due=due)
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
    outcome = _Outcome(bucket.name, time.time)
    with outcome:
        outcome.end = _scan_with_credentials(
            lambda pair: Scan(
                replace(bucket, fetch_metadata=False),
                Claim(bucket.name, bucket.region, 0, bucket.generation, 0.0, None, 0.0, 0),
                storage=wiring.storage(clients, bucket, pair, conf),
                states=ReadOnlyStates(wiring.engine().states),
                clock=time.time,
                keep_going=_never_stop,
                settings=replace(_of(bucket, _in_one_go(conf)), lanes=1),
                counts=outcome.counts,
            ),
            bucket,
            None,
        )
    return outcome.result()


def _in_one_go(conf: ScanningConf) -> ScanSettings:
    """Somebody waits for this scan: it does not pause for other buckets."""
    return replace(wiring.scan_settings(conf), slice_s=math.inf)


def _of(bucket: BucketConfig, settings: ScanSettings) -> ScanSettings:
    return replace(settings, lanes=bucket.lanes or settings.lanes)


def _scan_with_credentials(
    scan: Callable[[KeyPair], Scan], bucket: BucketConfig, given: KeyPair | None
) -> ScanEnd:
    pair = given or wiring.credentials().get(bucket.credential)
    try:
        return scan(pair).run()
    except CredentialsRejected:
        # The keys may have been rotated since our snapshot: look once more, try once more.
        fresh = given or wiring.credentials().reload().get(bucket.credential)
        if fresh == pair:
            raise
        return scan(fresh).run()


class _Outcome:
    """Takes the errors of a block of scanning, and says how it ended."""

    def __init__(self, bucket: str, clock: Callable[[], float]) -> None:
        self._bucket, self._clock = bucket, clock
        self._started_at = clock()
        self.counts = ScanCounts()
        self.end: ScanEnd | None = None
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
        error, end = self.error, self.end
        result = ScanResult(
            bucket=self._bucket,
            started_at=self._started_at,
            duration_s=self._clock() - self._started_at,
            counts=self.counts,
            complete=end is not None and end.complete,
            began=end.progress.began if end else self._started_at,
            listed=end.progress.listed if end else 0,
            progress=json.dumps(asdict(end.progress)) if end else "",
            held=end.held if end else None,
            error=str(error) if error else "",
            error_class=type(error).__name__ if error else "",
            permanent=isinstance(error, PermanentError),
        )
        if error is None and self.counts.changes:
            _log_changes(result)
        if result.held is not None:
            logger.warning(
                "%s: %d of %d known objects are gone; held until somebody confirms the deletion",
                self._bucket,
                result.held.missing,
                result.held.known,
            )
        return result


def _log_changes(result: ScanResult) -> None:
    counts = result.counts
    logger.info(
        "%s: %d objects, %d created, %d updated, %d detected, %d deleted in %.3f s",
        result.bucket,
        counts.objects,
        counts.created,
        counts.updated,
        counts.detected,
        counts.deleted,
        result.duration_s,
    )


def _bucket_and_pair(
    given: BucketConfig | Mapping[str, Any],
) -> tuple[BucketConfig, KeyPair | None]:
    if isinstance(given, BucketConfig):
        return given, None
    bucket = parse_document(str(given["name"]), given, notifications=True)
    if "bucketwatch" not in given:  # written by or for an older monitor: what it knew counts
        bucket = replace(bucket, taken_over=True)
    if given.get("access_key") and given.get("secret_key"):
        return bucket, KeyPair(str(given["access_key"]), str(given["secret_key"]))
    return bucket, None
