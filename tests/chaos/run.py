"""One chaos run from its beginning to its verdict."""

from __future__ import annotations

import json
import random
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from redis.exceptions import RedisError

from scanning.core import redis_keys
from tests.chaos import operator
from tests.chaos.consumer import FINISHED, IN_HAND
from tests.chaos.hints import Informant
from tests.chaos.mischief import LATENCY_S, NODES, TELL_TOTALS, Failovers, Mischief
from tests.chaos.model import ModelBucket, World
from tests.chaos.oracle import Seen, Verdict, judge, judge_consumer, timeless
from tests.chaos.s3_server import ChaosS3
from tests.chaos.site import (
    NEW_BUCKET,
    Host,
    KeptAlive,
    install,
    manage,
    site_environ,
    still_running,
)
from tests.support.notifications import QUEUE, message
from tests.support.redis_topology import RedisTopology

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import redis

    from tests.chaos.model import Place, State
    from tests.chaos.oracle import Notification
    from tests.chaos.s3_objects import Change

REGIONS: Final = ("eu-chaos-1", "us-chaos-1", "ap-chaos-1", "sa-chaos-1")
# These and later ones of an endpoint's buckets are probed, and passed over as seldom.
PROBED: Final = 2
LONG_INTERVAL_S: Final = 8
STEP_S: Final = 0.2
CHANGES_A_STEP: Final = 8
OPERATOR_S: Final = 1.5
HINTS_S: Final = 0.5
LOOK_S: Final = 0.1
SLOW_LOOK_S: Final = 0.5
UP_WITHIN_S: Final = 120.0
QUIET_WITHIN_S: Final = 300.0
STOPS_WITHIN_S: Final = 17.0
_STATE_PREFIX: Final = "linode:objstore:state:"
# Pages, pauses and time-outs that make much work of little data.
TIGHT: Final = {
    "POLLING_INTERVAL": "1",
    "DEFAULTS_MAX_OBJECTS_PER_BATCH": "100",
    "DELETIONS_MASS_MINIMUM": "100",
    "PARALLEL_RATE_LIMIT_PER_REGION": "4",
    "SCAN_TIME_SLICE": "1",
    "STORAGE_CONNECT_TIMEOUT": "2",
    "STORAGE_READ_TIMEOUT": "2",
    "DELETIONS_SECOND_LOOK": "3",
    "LOOK_PASS_GAP": "2",
    "QUEUE_HIGH_WATER": "3000",
}


def buckets() -> Iterator[ModelBucket]:
    """Some of each kind at each endpoint, and a large one."""
    for endpoint, region in enumerate(REGIONS):
        for number in range(5 if endpoint != NODES else 3):
            yield ModelBucket(
                f"{region}-{number}",
                endpoint,
                objects=(150, 300, 300, 400, 700)[number],
                prefix="in/" if number == 1 else "",
                metadata=number % 2 == 0,
                interval_s=LONG_INTERVAL_S if number >= PROBED else 1 + number % 2,
                probe_s=1 if number >= PROBED else None,
                emptied=number == 0,
                trusts_etags=endpoint == NODES,
            )
        if endpoint != NODES:
            yield ModelBucket(f"late-{endpoint}", endpoint, objects=120, late=True)
    yield ModelBucket("large", 1, objects=2500, metadata=False, interval_s=2)


@dataclass(slots=True)
class Outcome:
    """What a run has shown."""

    verdict: Verdict
    consumer: Seen
    events: int
    changes: int
    killed: Counter[str]
    failovers: int
    faults: int
    frozen: Counter[str]
    operator: Counter[str]
    hints: Counter[str]
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        found = [*self.verdict.violations, *self.consumer.verdict.violations]
        return not found and not self.problems


class Run:
    """A deployment beside a model of its buckets, for ``seconds``; files go to ``directory``."""

    def __init__(self, directory: Path, *, seconds: float, seed: int) -> None:
        self.directory, self.seconds, self.seed = directory, seconds, seed
        self.world = World(seed, list(buckets()))
        self.changed_at = 0.0
        self._changes = 0
        self._problems: list[str] = []
        self._seen_processes: set[tuple[int, int]] = set()
        self._log = (directory / "chaos.log").open("w", encoding="utf-8")

    def run(self) -> Outcome:
        with ExitStack() as stack:
            stack.callback(self._log.close)
            topology = stack.enter_context(RedisTopology(self.directory / "redis"))
            endpoints = len(REGIONS)
            s3 = stack.enter_context(
                ChaosS3(self.directory / "s3", endpoints=endpoints, seed=self.seed)
            )
            self._begin(s3)
            environ = site_environ(
                self.directory / "data", topology.environ(), **TIGHT, **operator.CLIENT
            )
            rows = {bucket: _row(bucket, s3) for bucket in self.world.buckets}
            install(self.directory, environ, [rows[b] for b in rows if not b.late])
            hosts = [Host(number, self.directory, environ) for number in (1, 2)]
            consumer = KeptAlive(
                ["-m", "tests.chaos.consumer", topology.sentinel_hosts, str(self._seen_file)],
                log=self.directory / "consumer.log",
                environ=environ,
            )
            for program in (*hosts, consumer):
                stack.callback(program.stop, patience_s=STOPS_WITHIN_S)
            mischief = Mischief(self._dice("mischief"), hosts, consumer, s3, self.note)
            failovers = Failovers(self._dice("failovers"), topology, self.note)
            somebody = operator.Operator(
                self._dice("operator"),
                ports=[host.port for host in hosts],
                names=[bucket.name for bucket in rows if not bucket.late],
                late=[NEW_BUCKET | rows[bucket] for bucket in rows if bucket.late],
            )
            informant = Informant(self._dice("informant"), [host.port for host in hosts])
            programs: list[KeptAlive] = [*hosts, consumer]
            self._until_up(programs, topology)
            with (
                self._model_at_work(s3, informant),
                Beside(OPERATOR_S, somebody.act),
                Beside(HINTS_S, informant.give),
            ):
                self._go_on_for(self.seconds, programs, mischief, failovers)
            mischief.end()
            with Beside(OPERATOR_S, somebody.settle):
                self._until_quiet(programs, topology, failovers, somebody)
            self._compare_configurations(environ)
            drawn = s3.drawn()
            self.note(f"S3 faults: {drawn}")
            self._stop(programs)
            with topology.client() as client:
                announced = self._comparable(read_queue(client))
                self._compare_strings(client)
        seen, histories = self._comparable(self._seen()), self._watched()
        return Outcome(
            verdict=judge(announced, histories, self.world.once),
            consumer=judge_consumer(seen, announced, histories, self.world.once),
            events=len(announced),
            changes=self._changes,
            killed=mischief.killed + failovers.killed,
            failovers=failovers.happened,
            faults=sum(drawn.values()),
            frozen=mischief.frozen + failovers.frozen,
            operator=somebody.did,
            hints=informant.gave,
            problems=self._problems,
        )

    def note(self, what: str) -> None:
        self._log.write(f"{time.strftime('%H:%M:%S')} {what}\n")
        self._log.flush()

    # --- the model

    def _begin(self, s3: ChaosS3) -> None:
        self._apply(s3, self.world.begin)
        s3.latency(LATENCY_S)
        s3.totals(dict.fromkeys(TELL_TOTALS, True))

    def _apply(self, s3: ChaosS3, change: Callable[[int], list[Change]]) -> list[Change]:
        changes = change(time.time_ns() // 1_000_000)
        s3.change(changes)
        self._changes += len(changes)
        self.changed_at = time.time()
        return changes

    def _model_at_work(self, s3: ChaosS3, informant: Informant) -> Beside:
        def step() -> None:
            informant.notice(
                self._apply(s3, lambda ms: self.world.step(ms, changes=CHANGES_A_STEP))
            )

        return Beside(STEP_S, step)

    # --- the run

    def _dice(self, what: str) -> random.Random:
        return random.Random(f"{self.seed} {what}")  # noqa: S311 - the same plan in every run

    def _until_up(self, programs: Sequence[KeptAlive], topology: RedisTopology) -> None:
        """Wait for the first scan: on a slow machine the time would be over before anything ran."""
        until = time.monotonic() + UP_WITHIN_S
        while not self._has_scanned(topology) and time.monotonic() < until:
            self._keep_alive(programs)
            time.sleep(LOOK_S)
        self.note("up")

    def _has_scanned(self, topology: RedisTopology) -> bool:
        with suppress(RedisError), topology.client() as client:
            return client.hget(redis_keys.STATS, "total_scans") is not None
        return False

    def _go_on_for(
        self,
        seconds: float,
        programs: Sequence[KeptAlive],
        mischief: Mischief,
        failovers: Failovers,
    ) -> None:
        until = time.monotonic() + seconds
        slow_look = 0.0
        while time.monotonic() < until:
            mischief.tick()
            if time.monotonic() >= slow_look:
                self._keep_alive(programs)
                failovers.tick()
                slow_look = time.monotonic() + SLOW_LOOK_S
            time.sleep(LOOK_S)

    def _keep_alive(self, programs: Sequence[KeptAlive]) -> None:
        for program in programs:
            program.keep_alive()
            self._seen_processes |= program.tree()

    def _until_quiet(
        self,
        programs: Sequence[KeptAlive],
        topology: RedisTopology,
        failovers: Failovers,
        somebody: operator.Operator,
    ) -> None:
        """Wait until every bucket was scanned whole after its last change, and all is read."""
        self.note("the model rests, and nothing fails any more")
        until = time.monotonic() + QUIET_WITHIN_S
        waits_for = ["Redis"]
        while waits_for and time.monotonic() < until:
            self._keep_alive(programs)
            if failovers.end():
                waits_for = self._unsettled(topology) if somebody.is_settled else ["the operator"]
            time.sleep(SLOW_LOOK_S)
        if waits_for:
            self._problem(f"not quiet after {QUIET_WITHIN_S:.0f} s: {'; '.join(waits_for)}")
        self.note("quiet")

    def _unsettled(self, topology: RedisTopology) -> list[str]:
        try:
            with topology.client() as client:
                waits_for = [
                    f"{bucket.name}: {status.get('error') or 'a scan'}"
                    for bucket in self.world.buckets
                    if not self._is_settled(
                        status := client.hgetall(redis_keys.bucket(bucket.name)),
                        client.get(redis_keys.last_scan(bucket.name)),
                    )
                ]
                left = client.llen(QUEUE) + client.llen(IN_HAND)
        except RedisError as exc:
            return [f"Redis: {exc}"]
        return waits_for or ([f"the consumer: {left} left"] if left else [])

    def _is_settled(self, status: dict[str, str], last_scan: str | None) -> bool:
        is_held = status.get("held_since") or status.get("held_moved_since")
        return float(last_scan or 0) > self.changed_at and not is_held

    def _stop(self, programs: Sequence[KeptAlive]) -> None:
        self._keep_alive(programs)
        for program in programs:
            began = time.monotonic()
            program.stop(patience_s=STOPS_WITHIN_S)
            if time.monotonic() - began >= STOPS_WITHIN_S:
                self._problem("a host did not stop in time")
        until = time.monotonic() + STOPS_WITHIN_S
        while left := still_running(self._seen_processes):
            if time.monotonic() > until:
                self._problem(f"left running: {left}")
                break
            time.sleep(LOOK_S)

    def _problem(self, what: str) -> None:
        self._problems.append(what)
        self.note(what)

    # --- what came of it

    @property
    def _seen_file(self) -> Path:
        return self.directory / "seen.jsonl"

    def _seen(self) -> list[Notification]:
        lines = self._seen_file.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def _watched(self) -> dict[Place, list[State]]:
        """The histories of the keys that somebody looks at."""
        prefixes = {bucket.name: bucket.prefix for bucket in self.world.buckets}
        return {
            (bucket, key): [state and state._replace(modified_ms=0) for state in states]
            if bucket in self._timeless
            else states
            for (bucket, key), states in self.world.histories.items()
            if key.startswith(prefixes[bucket])
        }

    def _comparable(self, announced: Iterable[Notification]) -> list[Notification]:
        """Leave times out of what is said of the buckets whose times are anybody's guess."""
        return [timeless(a) if a["bucket"] in self._timeless else a for a in announced]

    @property
    def _timeless(self) -> set[str]:
        return {bucket.name for bucket in self.world.buckets if bucket.trusts_etags}

    def _compare_configurations(self, environ: Mapping[str, str]) -> None:
        """Redis has to hold what the database says."""
        said = manage(environ, "reconcile", "--dry-run")
        if not said.endswith("0 to repair, 0 to do yourself, 0 unmanaged.\n"):
            self._problem(said)

    def _compare_strings(self, client: redis.Redis) -> None:
        """The documented strings have to say what the listing says."""
        there = {
            f"{_STATE_PREFIX}{bucket}:{key}"
            for (bucket, key), states in self._watched().items()
            if states[-1] is not None
        }
        stored = set(client.scan_iter(f"{_STATE_PREFIX}*", count=1000))
        if stored != there:
            self._problem(
                f"documented strings: {len(there - stored)} missing ({_some(there - stored)}), "
                f"{len(stored - there)} too many ({_some(stored - there)})"
            )


def read_queue(client: redis.Redis) -> list[Notification]:
    """All that was ever announced, in its order; the consumer has only moved it."""
    texts = [t for name in (FINISHED, IN_HAND, QUEUE) for t in client.lrange(name, 0, -1)]
    return [message(text) for text in texts]


def _row(bucket: ModelBucket, s3: ChaosS3) -> dict[str, object]:
    return {
        "name": bucket.name,
        "region": "new-chaos-1" if bucket.late else REGIONS[bucket.endpoint],
        "endpoint": s3.urls[bucket.endpoint],
        "prefix": bucket.prefix,
        "polling_interval": bucket.interval_s,
        "fetch_metadata": bucket.metadata,
        "trust_etags": bucket.trusts_etags,
        "probe_interval": bucket.probe_s,
        "events": ["created", "updated", "detected", "deleted"],
    }


def _some(names: set[str]) -> str:
    return ", ".join(map(repr, sorted(names)[:3])) or "none"


class Beside:
    """Does something every ``step_s`` in a thread of its own, as long as the block lasts.

    Raises at the end what it raised.
    """

    def __init__(self, step_s: float, work: Callable[[], None]) -> None:
        self._step_s, self._work = step_s, work
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._go_on, name="model", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _go_on(self) -> None:
        try:
            while not self._stop.wait(self._step_s):
                self._work()
        except BaseException as exc:  # noqa: BLE001 - raised again by the one who waits
            self._failure = exc
