"""`BucketScanner`: the documented thread that scans one bucket, a shell around `BucketPass`."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Self

from scanning import logs, wiring
from scanning.config import active
from scanning.core import bucket_document, pacing, request_costs, schedule
from scanning.core.errors import (
    BucketwatchError,
    ConfigurationChanged,
    LeaseLost,
    PermanentError,
    QueueFull,
    ScanAborted,
    StateLost,
    StorageUnavailable,
    TooManyObjects,
)
from scanning.core.segments import key_ranges
from scanning.core.types import (
    BucketConfig,
    Claim,
    KeyPair,
    LookRequest,
    ScanCounts,
    ScanResult,
)
from scanning.scan.bucket_pass import BucketPass, PassEnd
from scanning.scan.context import ScanContext, ScanSettings
from scanning.scan.look import BucketLook, LookEnd

if TYPE_CHECKING:
    import queue
    from collections.abc import Callable, Mapping

    import redis

    from scanning.adapters.s3.storage import S3ClientCache
    from scanning.config.settings import EngineSettings

logger = logging.getLogger(__name__)


def _never_stop() -> None: ...


class BucketScanner(threading.Thread):
    """Scans one bucket and puts a ``ScanResult`` into ``result_queue``.

    ``bucket_config`` is a ``BucketConfig`` or the documented JSON object; where that holds
    ``access_key`` and ``secret_key`` they are used, else the vault is asked; whether it announces
    is read from Redis (``…:notifications_disabled``) as the scan begins. ``redis_client`` may be
    the older monitor's ``{"master": …, "slave": …}``: the master is asked. ``global_config`` is
    a ``EngineSettings`` or the documented YAML as a mapping, over the settings in force. Without
    ``claim`` the scanner claims the bucket itself, and fails if somebody else is scanning it.
    ``counts`` grow as it goes on.

    Call ``run()`` to scan in this thread, ``start()`` to scan in another.
    """

    def __init__(  # noqa: PLR0913 - documented
        self,
        bucket_config: BucketConfig | Mapping[str, Any],
        redis_client: redis.Redis | Mapping[str, Any],
        global_config: EngineSettings | Mapping[str, Any],
        result_queue: queue.Queue[ScanResult] | None,
        client_cache: S3ClientCache,
        *,
        claim: Claim | None = None,
        keep_going: Callable[[], None] = _never_stop,
        settings: ScanSettings | None = None,
        counts: ScanCounts | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        wiring.ensure_django()
        self.conf = active.conf_of(global_config)
        self.bucket = bucket_of(bucket_config, self.conf)
        self._is_document = not isinstance(bucket_config, BucketConfig)
        self._given_pair = _key_pair_in(bucket_config)
        super().__init__(name=f"scan-{self.bucket.name}", daemon=True)
        self._adapters = wiring.container_over(redis_client, self.conf)
        self._results = result_queue
        self._clients = client_cache.under(self.conf)
        self._claim = claim
        self._keep_going = keep_going
        self._settings = (
            _with_own_settings(self.bucket, settings, self.conf)
            if settings
            else unsliced_settings(self.bucket, self.conf)
        )
        self._counts = counts or ScanCounts()
        self._clock = clock
        self.result: ScanResult | None = None

    def run(self) -> None:
        claim = self._claim
        is_look = claim is not None and claim.look is not None
        outcome = Outcome(self.bucket, self._clock, self._counts, is_look=is_look)
        with ExitStack() as log_lines:
            with outcome:
                claim = claim or self._take_claim()
                log_lines.enter_context(logs.about(claim))
                if self._is_document:
                    self.bucket = self._adapters.bucket_configs.as_switched(self.bucket)
                with self._adapters.heartbeat.keeping(claim):
                    outcome.end = self._run_scan(claim)
            self.result = outcome.result()
            _log_result(self.result)
            if claim is not None:
                self.result = self._record_end(claim, self.result, outcome.error)
        if self._adapters is not wiring.background():
            self._adapters.endpoints.report_requests()
            self._adapters.endpoints.close()
        if self._results is not None:
            self._results.put(self.result)

    def _take_claim(self) -> Claim:
        slots = self.conf.parallel.rate_limit_per_region
        claim = self._adapters.leases.claim(self.bucket, slots=slots)
        if claim is None:
            raise LeaseLost.not_to_be_had(self.bucket.name)
        # A documented JSON object of the older monitor's knows no generation.
        if self.bucket.generation not in {0, claim.generation}:
            self._adapters.leases.release(claim)
            raise ConfigurationChanged(f"{self.bucket.name}: changed since it was read")
        self.bucket = replace(self.bucket, generation=claim.generation)
        self._adapters.endpoints.limiter_for(self.bucket.endpoint).claim_probe_now(self.bucket.name)
        return claim

    def _run_scan(self, claim: Claim) -> PassEnd | LookEnd:
        def run(pair: KeyPair) -> PassEnd | LookEnd:
            context = ScanContext(
                storage=wiring.storage(self._clients, self.bucket, pair, self._adapters.endpoints),
                states=self._adapters.states,
                clock=self._clock,
                keep_going=self._keep_going,
                settings=replace(self._settings, asks_totals=self._asks_totals(claim)),
                counts=self._counts,
            )
            if claim.look:
                return BucketLook(self.bucket, claim, claim.look, context).run()
            return BucketPass(self.bucket, claim, context).run()

        if self._given_pair is not None:
            return run(self._given_pair)
        return wiring.with_keys(self.bucket, run)

    def _asks_totals(self, claim: Claim) -> bool:
        """Tell whether probes will go by totals that this scan saw; a first pass cannot know."""
        plan = self.conf.probe_plan(
            self.bucket.probe_interval_s, own_polling_s=self.bucket.polling_interval_s
        )
        if claim.objects is None:
            return plan.every_s > 0
        return plan.is_worth_it(claim.objects, page_size=self.conf.page_size)

    def _record_end(self, claim: Claim, result: ScanResult, error: Exception | None) -> ScanResult:
        """Give the claim back; returns the result, with the time of the next try if that is far."""
        try:
            # That Redis forgot the bucket is kept apart from how its last scan ended.
            if isinstance(error, ScanAborted | StateLost):
                self._adapters.leases.release(claim)
                return result
            due, stretched = self._within_budget(
                claim, result, self._next_due(claim, result, error)
            )
            if due and result.permanent:
                note = _retry_note(due - self._redis_time(claim))
                result = replace(result, error=f"{result.error}; {note}")
            failures = 0 if result.ok else claim.failures + 1
            limiter = self._adapters.endpoints.limiter_for(self.bucket.endpoint)
            broke_off = isinstance(error, StorageUnavailable) and not limiter.health().is_dead
            self._adapters.leases.finish(
                claim,
                result,
                next_due=due,
                failures=failures,
                broke_off=broke_off,
                stretched=stretched,
            )
        except BucketwatchError as exc:
            # The lease expires by itself; what was committed stays committed.
            logger.warning("%s: could not record the end of the scan: %s", self.bucket.name, exc)
        return result

    def _next_due(self, claim: Claim, result: ScanResult, error: Exception | None) -> float | None:
        if claim.offset_s is None:
            return None  # the schedule does not know this bucket (yet)
        now = self._redis_time(claim)
        jitter = pacing.draw_jitter()
        intervals = self.conf.polling_intervals(
            self.bucket.polling_interval_s, self.bucket.polling_longest_s
        )
        quiet_s = schedule.quiet_s(claim, result)
        next_pass = intervals.next_due(claim.offset_s, quiet_s=quiet_s, now=now)
        failures, retry = claim.failures + 1, self.conf.retry
        limiter = self._adapters.endpoints.limiter_for(self.bucket.endpoint)
        match error:
            case StorageUnavailable() if limiter.blocks(self.bucket.name):
                return limiter.health().wait_until  # to try it then, or to wait with the others
            case None if result.is_look or not result.complete:
                rest = _rest_due(claim.look, result, now)
                return rest if quiet_s else min(rest, next_pass)
            # Consumers may make room at any moment; what is known of too many objects is watched.
            case None | QueueFull() | TooManyObjects():
                return next_pass
            case PermanentError():
                return now + pacing.slow_poll_s(
                    failures,
                    interval_s=intervals.shortest_s,
                    longest_s=retry.permanent,
                    jitter=jitter,
                )
        return now + pacing.back_off_s(failures, longest_s=retry.longest, jitter=jitter)

    def _within_budget(
        self, claim: Claim, result: ScanResult, due: float | None
    ) -> tuple[float | None, bool]:
        """Put the next pass off until there are requests left for it; tell whether it is put off.

        It keeps its place in the polling interval. A pass that is not through goes on, also after a
        look; one that a look asks for comes no later than it would have come without that look.
        """
        now = self._redis_time(claim)
        if due is None or due <= now or claim.offset_s is None:
            return due, False
        if not (result.ok and result.complete):
            return due, False
        if claim.look and result.is_look and due >= claim.look.pass_due:
            return due, False
        requests = request_costs.pass_requests(result.listed, page_size=self.conf.page_size)
        left = self._adapters.budgets.left_today(self.bucket, pass_requests=requests)
        earliest = now + request_costs.pass_wait_s(
            left, pass_requests=requests, day_left_s=request_costs.day_left_s(now)
        )
        if earliest <= due:
            return due, False
        if claim.look and result.is_look:
            return min(claim.look.pass_due, earliest), False
        interval_s = self.conf.defaults.interval_s(self.bucket.polling_interval_s)
        return schedule.next_due(claim.offset_s, interval_s, now=earliest), True

    @staticmethod
    def _redis_time(claim: Claim) -> float:
        """Tell the time by Redis's clock, which the schedule goes by.

        By a clock that is behind it a scan ends before its own scheduled start: that would come
        next, over and over again.
        """
        return claim.redis_time(time.monotonic())


def unsliced_settings(bucket: BucketConfig, conf: EngineSettings) -> ScanSettings:
    """Have a scan that somebody waits for not pause for other buckets."""
    return _with_own_settings(bucket, replace(wiring.scan_settings(conf), slice_s=math.inf), conf)


def _with_own_settings(
    bucket: BucketConfig, settings: ScanSettings, conf: EngineSettings
) -> ScanSettings:
    return replace(
        settings,
        lanes=bucket.lanes or settings.lanes,
        most_objects=conf.scan.objects_limit(bucket.most_objects),
        interval_s=conf.defaults.interval_s(bucket.polling_interval_s),
    )


class Outcome:
    """The end of a block of scanning; its errors go no further than the log and the result."""

    def __init__(
        self,
        bucket: BucketConfig,
        clock: Callable[[], float],
        counts: ScanCounts,
        *,
        is_look: bool = False,
    ) -> None:
        self._bucket, self._clock, self._is_look = bucket, clock, is_look
        self._started_at = clock()
        self.counts = counts
        self.end: PassEnd | LookEnd | None = None
        self.error: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: object
    ) -> bool:
        if exc is None and isinstance(self.end, PassEnd):
            exc = self.end.error
        if isinstance(exc, BucketwatchError):
            level = logging.INFO if isinstance(exc, ScanAborted) else logging.WARNING
            logger.log(level, "%s: %s", self._bucket.name, exc)
            self.error = exc
        elif isinstance(exc, Exception):
            logger.error(
                "%s: an error in bucketwatch broke the scan", self._bucket.name, exc_info=exc
            )
            self.error = BucketwatchError(f"internal error, see the log: {type(exc).__name__}")
        return isinstance(exc, Exception)

    def result(self) -> ScanResult:
        error, end = self.error, self.end
        result = ScanResult(
            bucket=self._bucket.name,
            bucket_name=self._bucket.bucket_name,
            started_at=self._started_at,
            duration_s=self._clock() - self._started_at,
            counts=self.counts,
            complete=False,
            began=self._started_at,
            error=str(error) if error else "",
            error_class=type(error).__name__ if error else "",
            permanent=isinstance(error, PermanentError),
            kind="look" if self._is_look else "pass",
        )
        if end is None:
            return result
        result = replace(result, commit=end.commit, warnings=end.warnings, totals=end.totals)
        if isinstance(end, LookEnd):
            return replace(
                result,
                complete=error is None,
                listed=end.known,
                pass_in_s=end.pass_in_s,
                ranges=end.ranges,
            )
        return replace(
            result,
            kind="pass",
            complete=end.complete and error is end.error,
            began=end.progress.began,
            listed=end.progress.listed,
            progress=json.dumps(asdict(end.again or end.progress)),
            held=end.held,
            held_times=end.held_times,
            again=end.again is not None,
            ahead=key_ranges.as_json(end.ahead, end.commit),
        )


def _rest_due(look: LookRequest | None, result: ScanResult, now: float) -> float:
    """Find when the pass is due of which a scan was a slice, or before which it was a look."""
    if look is None or not result.is_look:
        return now  # it only let others go first
    sooner = look.pass_due if result.pass_in_s is None else now + result.pass_in_s
    return min(look.pass_due, sooner)


def _retry_note(seconds: float) -> str:
    pause = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
    return f"tried again after {pause}, or once the bucket or its credential is saved"


def _log_result(result: ScanResult) -> None:
    counts = result.counts
    if result.ok and counts.changes:
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
    if result.held is not None:
        logger.warning(
            "%s: %d of %d known objects are gone; held until somebody confirms the deletion",
            result.bucket,
            result.held.missing,
            result.held.known,
        )
    if result.held_times is not None:
        logger.warning(
            "%s: of %d of %d known objects only the time moved; held until somebody chooses",
            result.bucket,
            result.held_times.moved,
            result.held_times.known,
        )


def bucket_of(given: BucketConfig | Mapping[str, Any], conf: EngineSettings) -> BucketConfig:
    """Read a bucket that is given as such, or as the documented JSON object."""
    if isinstance(given, BucketConfig):
        return given
    document = {"endpoint": conf.defaults.endpoint} | dict(given)
    bucket = bucket_document.parse(str(given["name"]), document, notifications=True)
    # Written by or for an older monitor: what it knew counts.
    return bucket if "bucketwatch" in given else replace(bucket, taken_over=True)


def _key_pair_in(given: BucketConfig | Mapping[str, Any]) -> KeyPair | None:
    if isinstance(given, BucketConfig) or not (given.get("access_key") and given.get("secret_key")):
        return None
    return KeyPair(str(given["access_key"]), str(given["secret_key"]))
