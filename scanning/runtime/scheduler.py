"""Keeps the schedule in Redis in step with the configurations, and wakes the workers.

Nothing here waits for Redis: the next tick asks again. A monitor that waits loses the lead, starts
no child that ended, and keeps a stop waiting.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from typing import TYPE_CHECKING

from scanning import wiring
from scanning.core import schedule
from scanning.core.endpoints import endpoint_name
from scanning.runtime import django_q2, processes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scanning.config.settings import EngineSettings
    from scanning.core.schedule import PollingIntervals
    from scanning.core.types import BucketConfig

logger = logging.getLogger(__name__)

TICK_S = 1.0
# The schedule is written again now and then, in case Redis was emptied or restored.
RESCHEDULE_S = 15.0
# How long scanning waits, with a Redis that nobody vouches for, for the database to be asked.
UNCHECKED_AFTER_S = 60.0


class Scheduler:
    """Says when each bucket is due, and wakes the workers of its region then."""

    def __init__(self, conf: EngineSettings) -> None:
        self._conf = conf
        self.buckets: dict[str, BucketConfig] = {}
        self.last_scans: dict[str, float] = {}
        self.offsets: dict[str, float] = {}
        self._version = -1
        self._written_at = float("-inf")
        self._unverified_since: float | None = None

    def tick(self) -> None:
        """Bring the schedule in step and wake who is due. Raises RedisUnavailable."""
        self.refresh()
        if self._may_scan():
            self.wake_due_regions()
        wiring.interactive().telemetry.sample_queue()

    def _may_scan(self) -> bool:
        """Say whether Redis is known to hold what was written (`adapters/redis/losses.py`).

        Housekeeping compares it with the database when that is not known. Scanning goes on without
        when the database cannot be asked.
        """
        continuity, now = wiring.interactive().continuity, time.monotonic()
        if continuity.renew_verified():
            self._unverified_since = None
            return True
        if self._unverified_since is None:
            self._unverified_since = now
        if now - self._unverified_since < UNCHECKED_AFTER_S:
            return False
        logger.warning(
            "the database could not be asked whether Redis still holds what was known of buckets; "
            "scanning goes on, and it is asked later"
        )
        continuity.mark_unverified()
        return True

    # --- the schedule

    def refresh(self) -> None:
        """Read the configurations if they changed, and bring the schedule in step."""
        store, now = wiring.interactive().bucket_configs, time.monotonic()
        has_changed = store.version() != self._version
        if not has_changed and now - self._written_at < RESCHEDULE_S:
            return
        if has_changed:
            configuration = store.load()
            self.buckets = {n: b for n, b in configuration.buckets.items() if b.active}
            logger.info("watching %d buckets in %d regions", len(self.buckets), len(self.regions()))
            self._version = configuration.version
            self._written_at = float("-inf")  # should Redis go away before it is written
        self.load_last_scans()
        self.write()
        self._written_at = now
        processes.give_back_memory()

    def invalidate(self) -> None:
        """Have the next refresh read and write everything."""
        self._version = -1

    def regions(self) -> list[str]:
        return sorted({bucket.region for bucket in self.buckets.values()})

    def load_last_scans(self) -> None:
        self.last_scans = wiring.interactive().schedule.last_scans(self.buckets)

    def write(self) -> None:
        """Give each new bucket its due time, take buckets that are gone off the schedule."""
        store = wiring.interactive().schedule
        self._draw_offsets()
        regions = set(self.regions())
        stored = store.due_times(regions | store.regions())
        store.write(
            added=self._missing_due_times(stored),
            removed=self._gone_buckets(stored),
            offsets=self.offsets,
            regions=regions,
        )
        store.write_endpoints(self._endpoints_of_mixed_regions())

    def _draw_offsets(self) -> None:
        method = self._conf.parallel.stagger_method
        intervals = {name: self._interval_s(bucket) for name, bucket in self.buckets.items()}
        drawn = schedule.stagger_offsets(intervals, method=method)
        if method == "random":  # a bucket that has an offset keeps it
            drawn |= {name: at for name, at in self.offsets.items() if name in intervals}
        self.offsets = drawn

    def _missing_due_times(
        self, stored: Mapping[str, Mapping[str, float]]
    ) -> dict[str, dict[str, float]]:
        """Find due times, by region and bucket, where none is stored or one that is too far off."""
        store = wiring.interactive().schedule
        now = store.now()
        due = {n: stored.get(b.region, {}).get(n) for n, b in self.buckets.items()}
        new = {name for name, at in due.items() if at is None}
        beyond = {
            name: at
            for name, at in due.items()
            if at is not None and at > now + self._interval_s(self.buckets[name])
        }
        intervals = {name: self._intervals(self.buckets[name]) for name in new | beyond.keys()}
        quiet = store.quiet_times([name for name, found in intervals.items() if found.may_grow])
        far = {
            name
            for name, at in beyond.items()
            if at > now + intervals[name].choose(quiet.get(name))
        }
        # A bucket whose interval was shortened comes forward, one that failed waits on purpose.
        far -= store.postponed(far)
        added: dict[str, dict[str, float]] = defaultdict(dict)
        for name in new | far:
            added[self.buckets[name].region][name] = intervals[name].first_due(
                self.offsets[name],
                quiet_s=quiet.get(name),
                now=now,
                last_scan=self.last_scans.get(name),
            )
        return added

    def _gone_buckets(self, stored: Mapping[str, Mapping[str, float]]) -> dict[str, list[str]]:
        """Find, by region, scheduled buckets that are watched elsewhere, or not any more."""
        region_of = {name: bucket.region for name, bucket in self.buckets.items()}
        gone = {
            region: [name for name in due if region_of.get(name) != region]
            for region, due in stored.items()
        }
        return {region: names for region, names in gone.items() if names}

    def _endpoints_of_mixed_regions(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = defaultdict(set)
        for bucket in self.buckets.values():
            found[bucket.region].add(endpoint_name(bucket.endpoint))
        return {region: endpoints for region, endpoints in found.items() if len(endpoints) > 1}

    def _interval_s(self, bucket: BucketConfig) -> float:
        return self._conf.defaults.interval_s(bucket.polling_interval_s)

    def _intervals(self, bucket: BucketConfig) -> PollingIntervals:
        return self._conf.polling_intervals(bucket.polling_interval_s, bucket.polling_longest_s)

    # --- the workers

    def wake_due_regions(self) -> dict[str, int]:
        """Wake the workers of every region with due buckets; due buckets by region woken.

        Buckets that will be due by the next tick count: their worker then waits for them.
        """
        due = wiring.interactive().schedule.due_counts(self.regions(), within_s=TICK_S)
        woken = {region: number for region, number in due.items() if number}
        for region in woken:
            django_q2.wake(region)
        return woken
