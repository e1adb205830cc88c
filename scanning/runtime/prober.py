"""Asks buckets for their totals, and has those looked at whose totals moved (`core/probing.py`).

Run by the monitor that leads. A probe takes no lease and commits nothing: it may only have a bucket
be due sooner. So whatever is away or slow here, Redis, the vault, an endpoint, costs time alone.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from scanning import wiring
from scanning.core import probing, request_costs, schedule
from scanning.core.endpoints import endpoint_name
from scanning.core.errors import BucketwatchError
from scanning.core.probing import LastProbe, ProbedBucket, ProbePlan
from scanning.runtime.fair_threads import FairThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from scanning.config.settings import EngineSettings
    from scanning.core.totals import Totals
    from scanning.core.types import BucketConfig
    from scanning.runtime.processes import StopSignal

logger = logging.getLogger(__name__)

TICK_S: Final = 0.25
# 1,000 buckets every 5 s at one endpoint that answers after 0.1 s keep 20 busy.
_MOST_THREADS: Final = 64
# A budget that pays for no probes may do so after a while: midnight comes, or somebody raises it.
_UNPAID_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class _Answer:
    """How one probe ended; without totals, none are told to the bucket's key."""

    bucket: str
    result: Literal["told", "untold", "failed", "skipped"]
    totals: Totals | None = None


@dataclass(slots=True)
class _Watched:
    """A bucket that may be probed: what is planned, known, and was requested.

    ``due_at`` is by the monotonic clock. ``state`` is None until Redis was asked.
    """

    bucket: BucketConfig
    plan: ProbePlan
    due_at: float
    state: ProbedBucket | None = None
    seen: LastProbe | None = None
    requested: Totals | None = None
    requested_at: float = float("-inf")
    is_being_asked: bool = False


class Prober:
    """``buckets`` gives those that are watched: the same mapping for as long as nothing changed.

    One thread plans and compares, others ask.
    """

    def __init__(
        self, conf: EngineSettings, buckets: Callable[[], Mapping[str, BucketConfig]]
    ) -> None:
        self._conf, self._buckets = conf, buckets
        self._planned: Mapping[str, BucketConfig] | None = None
        self._watched: dict[str, _Watched] = {}
        self._threads = FairThreads(_MOST_THREADS, name="probe")
        self._answers: queue.SimpleQueue[_Answer] = queue.SimpleQueue()
        self._counted: Counter[str] = Counter()
        self._unrecorded: dict[str, LastProbe] = {}

    def start(self, *, leads: Callable[[], bool], stopping: StopSignal) -> None:
        """Probe in a new thread whenever this monitor leads."""

        def run() -> None:
            while not stopping.wait(TICK_S):
                try:
                    if leads():
                        self.tick()
                    else:
                        self.stand_by()
                except BucketwatchError as exc:
                    logger.debug("probes wait: %s", exc)
                except Exception:
                    logger.exception("an error in bucketwatch broke a round of probes")

        threading.Thread(target=run, name="prober", daemon=True).start()

    def stand_by(self) -> None:
        """Forget everything: another monitor probes."""
        self._threads.clear()
        self._watched, self._planned = {}, None

    def tick(self) -> None:
        """Ask the buckets that are due, and take in what was answered. Raises RedisUnavailable."""
        # 1. Follow the configuration.
        buckets, now = self._buckets(), time.monotonic()
        if buckets is not self._planned:
            self._plan(buckets, now)
        # 2. Ask, or find out whether to.
        due = [one for one in self._watched.values() if one.due_at <= now]
        for one in due:
            one.due_at = max(one.due_at + one.plan.every_s, now)
        unknown = [one for one in due if not self._is_probed(one)]
        # 3. Read what answered and unknown buckets are compared with; one round trip.
        answers = self._take_answers()
        self._read_states({a.bucket for a in answers} | {one.bucket.name for one in unknown})
        for one in due:
            self._ask_if_probed(one, now)
        # 4. Have those looked at that moved.
        self._request_looks(answers, now)
        self._record()

    # --- which buckets, and when

    def _plan(self, buckets: Mapping[str, BucketConfig], now: float) -> None:
        store = wiring.interactive().probes
        recorded = store.last()
        watched: dict[str, _Watched] = {}
        for name, bucket in buckets.items():
            plan = self._conf.probe_plan(
                bucket.probe_interval_s, own_polling_s=bucket.polling_interval_s
            )
            before = self._watched.get(name)
            if not plan.every_s:
                continue
            if before is None or before.plan != plan:
                due_at = now + schedule.hash_offset(name, plan.every_s)
                before = _Watched(bucket, plan, due_at, seen=recorded.get(name))
            before.bucket = bucket
            watched[name] = before
        store.forget(recorded.keys() - watched.keys())
        self._watched, self._planned = watched, buckets

    def _is_probed(self, one: _Watched) -> bool:
        state = one.state
        return state is not None and state.is_probed(one.plan, page_size=self._conf.page_size)

    def _ask_if_probed(self, one: _Watched, now: float) -> None:
        if not self._is_probed(one):
            is_small = one.state is not None and one.state.is_settled
            pause_s = probing.NOT_PROBED_S if is_small else 0.0
            one.due_at = now + max(one.plan.every_s, pause_s)
        elif not one.is_being_asked:
            one.is_being_asked = True
            self._threads.submit(endpoint_name(one.bucket.endpoint), lambda: self._ask(one))

    def _read_states(self, names: Iterable[str]) -> None:
        for name, state in wiring.interactive().probes.read(sorted(names)).items():
            if name in self._watched:
                self._watched[name].state = state

    # --- asking

    def _ask(self, one: _Watched) -> None:
        answer = _Answer(one.bucket.name, "failed")
        try:
            answer = (
                _ask(one.bucket) if self._is_paid_for(one) else replace(answer, result="skipped")
            )
        except BucketwatchError as exc:
            logger.debug("%s: its probe failed: %s", one.bucket.name, exc)
        except Exception:
            logger.exception("%s: an error in bucketwatch broke its probe", one.bucket.name)
        finally:
            one.is_being_asked = False
            self._answers.put(answer)

    def _is_paid_for(self, one: _Watched) -> bool:
        """Put the next probe off where a budget of requests wants that; tell whether to ask now."""
        objects = one.state.objects if one.state else None
        requests = request_costs.pass_requests(objects or 0, page_size=self._conf.page_size)
        left = wiring.interactive().budgets.left_today(one.bucket, pass_requests=requests)
        if left == math.inf:
            return True
        wait_s = request_costs.probe_wait_s(
            left,
            pass_requests=requests,
            polling_s=self._conf.defaults.interval_s(one.bucket.polling_interval_s),
            day_left_s=request_costs.day_left_s(time.time()),
        )
        is_paid_for = wait_s < math.inf
        pause_s = wait_s if is_paid_for else _UNPAID_S
        one.due_at = max(one.due_at, time.monotonic() + pause_s)
        return is_paid_for

    def _take_answers(self) -> list[_Answer]:
        answers: list[_Answer] = []
        while not self._answers.empty():
            answers.append(self._answers.get())
        return [answer for answer in answers if answer.bucket in self._watched]

    # --- what comes of it

    def _request_looks(self, answers: Iterable[_Answer], now: float) -> None:
        moved: dict[str, Totals | None] = {}
        for answer in answers:
            one = self._watched[answer.bucket]
            result: str = answer.result
            if answer.totals is not None:
                has_moved = self._take_in(one, answer.totals)
                result = "moved" if has_moved else "unmoved"
                is_new = one.requested != answer.totals
                if has_moved and (is_new or now - one.requested_at > probing.REQUEST_AGAIN_S):
                    moved[answer.bucket] = answer.totals
            elif answer.result == "untold":
                self._note(one, LastProbe(None, one.seen.moved_at if one.seen else None))
                if one.plan.is_chosen:
                    moved[answer.bucket] = None
                else:
                    one.due_at = now + max(one.plan.every_s, probing.NOT_PROBED_S)
            if result != "skipped":
                self._counted[result] += 1
        if moved:
            regions = {name: self._watched[name].bucket.region for name in moved}
            wiring.interactive().schedule.request_looks(regions)
        for name, totals in moved.items():
            self._watched[name].requested, self._watched[name].requested_at = totals, now

    def _take_in(self, one: _Watched, totals: Totals) -> bool:
        """Note totals; return whether they moved since the last look, pass or probe."""
        seen = one.seen.totals if one.seen else None
        known = one.state.totals if one.state else None
        moved_at = one.seen.moved_at if one.seen else None
        if seen is not None and seen != totals:
            moved_at = time.time()
        self._note(one, LastProbe(totals, moved_at))
        return probing.has_moved(totals, known=known, seen=seen)

    def _note(self, one: _Watched, seen: LastProbe) -> None:
        if seen != one.seen:
            one.seen = self._unrecorded[one.bucket.name] = seen

    def _record(self) -> None:
        seen, results = self._unrecorded, self._counted
        wiring.interactive().probes.record(seen, results)
        self._unrecorded, self._counted = {}, Counter()


def _ask(bucket: BucketConfig) -> _Answer:
    """Ask a bucket for its totals, as its endpoint may be asked. Raises our errors."""
    endpoints = wiring.interactive().endpoints
    if endpoints.limiter_for(bucket.endpoint).health().is_dead:
        return _Answer(bucket.name, "skipped")
    totals = wiring.with_keys(
        bucket,
        lambda pair: wiring.storage(wiring.probing_clients(), bucket, pair, endpoints).totals(),
    )
    return _Answer(bucket.name, "untold" if totals is None else "told", totals)
