"""Kills, freezes and outages, in the order that a seed says.

Nothing here waits: ``tick`` is called every moment, does what is due, and returns.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from contextlib import suppress
from itertools import count
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM
from typing import TYPE_CHECKING, Final

from tests.support.processes import descendants, running

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tests.chaos.s3_server import ChaosS3
    from tests.chaos.site import Host, KeptAlive
    from tests.support.redis_topology import Node, RedisTopology

LEASE_S: Final = 15.0  # what a frozen worker has to outlive

# The faults of each endpoint on an ordinary day; shares of all requests.
_RARE: Final = {
    "failed": 0.003,
    "reset": 0.003,
    "slow": 0.01,
    "short_page": 0.01,
    "inclusive": 0.05,
    "repeats": 0.02,
    "leaves_out": 0.02,
    "head_stale": 0.02,
    "head_weak": 0.2,
    "totals_move": 0.02,
}
_FAR: Final = {
    "slow_down": 0.01,
    "failed": 0.01,
    "bad_gateway": 0.005,
    "error_under_200": 0.01,
    "reset_inside": 0.01,
    "cut": 0.01,
    "stall": 0.002,
    "slow": 0.02,
    "drip": 0.001,
    "gzip": 0.05,
    "terse": 0.05,
    "ends_early": 0.01,
    "shows_nothing": 0.002,
    "redirect": 0.0005,
    "no_such_bucket": 0.0005,
}
_BAD: Final = {
    "slow_down": 0.02,
    "too_many": 0.01,
    "failed": 0.01,
    "error_under_200": 0.02,
    "page_under_200": 0.01,
    "nothing_under_200": 0.01,
    "reset": 0.01,
    "hang_up": 0.01,
    "reset_inside": 0.01,
    "cut": 0.02,
    "cut_xml": 0.02,
    "stall": 0.002,
    "short_page": 0.1,
    "empty_page": 0.05,
    "other_style": 0.3,
    "leaves_out": 0.03,
    "ends_early": 0.02,
    "loses_place": 0.5,
    "odd_rows": 0.03,
    "slow_down_behind_blanks": 0.01,
    "entities": 0.003,
    "folder": 0.005,
    "redirect_once": 0.0005,
    "forbidden": 0.0005,
}
# Nodes that disagree: changes come late to some, some do not know what others hold, and one has a
# clock of its own. No listing leaves anything out here: what a listing leaves out and HEAD denies
# is announced as deleted, as docs/guarantees.md says.
_NODES: Final = {
    "failed": 0.003,
    "ignored": 0.02,
    "moved_clock": 0.1,
    "head_refused": 0.05,
    "head_gone": 0.05,
    "head_stale": 0.05,
    "totals_move": 0.05,
    "totals_stay": 0.3,
}
ORDINARY: Final[Sequence[Mapping[str, float]]] = (_RARE, _FAR, _BAD, _NODES)
# Each LIST and each HEAD takes so long, by endpoint.
LATENCY_S: Final = {0: (0.0, 0.0), 1: (0.02, 0.02), 2: (0.003, 0.003), 3: (0.0, 0.0)}
NODES: Final = 3
TELL_TOTALS: Final = (0, 1, NODES)
MOST_LAG_S: Final = 4.0
LONG_HEAD_S: Final = 1.5  # shorter than the read time-out of the hosts
_OUTAGES: Final = ("stall", "slow_down", "reset", "failed", "cut_xml")


class Mischief:
    """What happens to the hosts, the consumer and the endpoints."""

    def __init__(
        self,
        dice: random.Random,
        hosts: Sequence[Host],
        consumer: KeptAlive,
        s3: ChaosS3,
        note: Callable[[str], None],
    ) -> None:
        self.killed: Counter[str] = Counter()
        self.frozen: Counter[str] = Counter()
        self._dice, self._hosts, self._consumer, self._s3 = dice, hosts, consumer, s3
        self._note = note
        self._next_at = time.monotonic() + dice.uniform(1, 4)
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._ordinary()

    def tick(self) -> None:
        now = time.monotonic()
        self._do_what_is_due(now)
        if now < self._next_at:
            return
        self._next_at = now + self._dice.uniform(1, 4.5)
        lots = {
            self._kill_worker: 30,
            self._kill_supervisor: 12,
            self._kill_parent: 8,
            self._kill_monitor: 8,
            self._kill_web: 6,
            self._kill_tree: 3,
            self._kill_consumer: 8,
            self._freeze_workers: 8,
            self._freeze_host: 3,
            self._freeze_consumer: 3,
            self._restart: 4,
            self._outage: 6,
            self._lag: 4,
        }
        [act] = self._dice.choices(list(lots), list(lots.values()))
        act()

    def end(self) -> None:
        """Let everything go on that was stopped."""
        while self._later:  # what is frozen by then has to thaw as well
            self._do_what_is_due(float("inf"))
        self._s3.faults({number: {} for number in range(len(ORDINARY))})
        self._s3.lag({NODES: 0.0})

    def _do_what_is_due(self, now: float) -> None:
        due = [act for at, act in self._later if at <= now]
        self._later = [(at, act) for at, act in self._later if at > now]
        for act in due:
            act()

    # --- kills

    def _kill_worker(self) -> None:
        self._kill("worker", self._host().workers())

    def _kill_supervisor(self) -> None:
        self._kill("supervisor", self._host().supervisors())

    def _kill_parent(self) -> None:
        self._kill("parent", self._host().parents())

    def _kill_monitor(self) -> None:
        self._kill("monitor", self._host().monitors())

    def _kill_web(self) -> None:
        self._kill("web", self._host().webs())

    def _kill_consumer(self) -> None:
        self._kill("consumer", [self._consumer.pid] if self._consumer.pid else [])

    def _kill_tree(self) -> None:
        """A host that loses its power."""
        tree = self._host().tree()
        if not tree:
            self._next_at = 0.0
            return
        self._signal(dict(tree), SIGKILL)
        self.killed["host"] += 1
        self._note("killed a whole host")

    def _kill(self, what: str, pids: Sequence[int]) -> None:
        if not pids:  # it is being started again: try something else at the next look
            self._next_at = 0.0
            return
        pid = self._dice.choice(sorted(pids))
        with suppress(ProcessLookupError):
            os.kill(pid, SIGKILL)
            self.killed[what] += 1
            self._note(f"killed {what} {pid}")

    def _host(self) -> Host:
        return self._dice.choice(self._hosts)

    # --- what goes by

    def _restart(self) -> None:
        """An update of the product, say."""
        for pid in self._host().monitors():
            os.kill(pid, SIGTERM)
            self._note(f"asked monitor {pid} to stop")

    def _freeze_workers(self) -> None:
        """Freeze the workers of a host when some have read and not yet written.

        They come back when their leases are somebody else's.
        """
        host, seconds = self._host(), LEASE_S + self._dice.uniform(-3, 8)
        self._s3.latency(dict.fromkeys(LATENCY_S, (0.0, LONG_HEAD_S)))

        def freeze() -> None:
            self._s3.latency(LATENCY_S)
            workers = {process for pid in host.workers() for process in descendants(pid)}
            self._freeze("workers", workers, seconds)

        self._later.append((time.monotonic() + 2 * LONG_HEAD_S, freeze))

    def _freeze_host(self) -> None:
        """A virtual machine that is moved."""
        self._freeze("host", self._host().tree(), self._dice.uniform(3, LEASE_S + 5))

    def _freeze_consumer(self) -> None:
        """The queue grows, up to its mark."""
        self._freeze("consumer", self._consumer.tree(), self._dice.uniform(3, 15))

    def _freeze(self, what: str, processes: set[tuple[int, int]], seconds: float) -> None:
        if not processes:
            return
        frozen = dict(processes)
        self._signal(frozen, SIGSTOP)
        self.frozen[what] += 1
        self._note(f"froze {what} {sorted(frozen)} for {seconds:.1f} s")
        self._later.append((time.monotonic() + seconds, lambda: self._signal(frozen, SIGCONT)))

    def _signal(self, processes: Mapping[int, int], number: int) -> None:
        for pid, started in processes.items():
            if running(pid, started):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

    def _outage(self) -> None:
        number, how = self._dice.randrange(len(ORDINARY)), self._dice.choice(_OUTAGES)
        seconds = self._dice.uniform(2, 8)
        self._s3.faults({number: {how: 1.0}})
        self._note(f"endpoint {number}: {how} for {seconds:.1f} s")
        self._later.append((time.monotonic() + seconds, self._ordinary))

    def _lag(self) -> None:
        """Have changes come later, or sooner, to the nodes that list."""
        seconds = self._dice.choice((0.0, self._dice.uniform(0, MOST_LAG_S)))
        self._s3.lag({NODES: seconds})
        self._note(f"endpoint {NODES} lists {seconds:.1f} s late")

    def _ordinary(self) -> None:
        self._s3.faults(dict(enumerate(ORDINARY)))


class Failovers:
    """Takes the master away as soon as Redis is whole again, and gives it back as a replica."""

    def __init__(
        self, dice: random.Random, topology: RedisTopology, note: Callable[[str], None]
    ) -> None:
        self.killed: Counter[str] = Counter()
        self.frozen: Counter[str] = Counter()
        self.happened = 0
        self._dice, self._topology, self._note = dice, topology, note
        self._ending = False
        self._script = self._forever()

    def tick(self) -> None:
        next(self._script, None)

    def end(self) -> bool:
        """Do what the last failover still needs; True when Redis is whole."""
        self._ending = True
        self.tick()
        return self._topology.is_whole()

    def _forever(self) -> Iterator[None]:
        """Each ``yield`` is a look later."""
        for number in count():
            yield from self._pause(self._dice.uniform(3, 11))
            yield from self._until(lambda: self._ending or self._topology.is_whole())
            if self._ending:
                return
            yield from (
                self._small_trouble()
                if number % 3 == 2
                else self._master_away(freeze=number % 3 == 1)
            )

    def _master_away(self, *, freeze: bool) -> Iterator[None]:
        master = self._topology.master()
        self._take(master, freeze=freeze)
        yield from self._until(lambda: self._topology.has_master(other_than=master))
        self.happened += 1
        self._note(f"failed over from {master!r} to {self._topology.master()!r}")
        # At once, or long after: what it still takes for itself must not count.
        yield from self._pause(self._dice.uniform(0, 8))
        self._give_back(master, frozen=freeze)
        yield from self._until(self._topology.is_whole)
        self._note("Redis is whole")

    def _small_trouble(self) -> Iterator[None]:
        """What the master survives: a replica or a sentinel dies, nobody replicates, it hangs."""
        topology, down_s = self._topology, self._topology.down_after_s
        master = topology.master()
        replicas = [node for node in topology.nodes if node is not master]
        kind = self._dice.randrange(4)
        taken = ([replicas[0]], [topology.sentinels[0]], replicas, [master])[kind]
        longest = (8.0, 8.0, 4 * down_s, 0.7 * down_s)[kind]
        freeze = kind >= 2
        for node in taken:
            self._take(node, freeze=freeze)
        yield from self._pause(self._dice.uniform(0.5, longest))
        for node in taken:
            self._give_back(node, frozen=freeze)
        yield from self._until(topology.is_whole)

    def _take(self, node: Node, *, freeze: bool) -> None:
        if freeze:
            node.signal(SIGSTOP)
            self.frozen["redis"] += 1
        else:
            node.kill()
            self.killed["redis"] += 1
        self._note(f"{'froze' if freeze else 'killed'} Redis {node!r}")

    def _give_back(self, node: Node, *, frozen: bool) -> None:
        if frozen:
            node.signal(SIGCONT)
        else:
            node.start()
        self._note(f"Redis {node!r} is back")

    def _pause(self, seconds: float) -> Iterator[None]:
        until = time.monotonic() + seconds
        yield from self._until(lambda: self._ending or time.monotonic() >= until)

    def _until(self, condition: Callable[[], bool]) -> Iterator[None]:
        while not condition():
            yield
