"""`manage.py runmonitor` as it is deployed: its whole process tree, through kills and stops."""

import errno
import multiprocessing
import os
import re
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import pytest
import redis

from bucketwatch.local.servers import LOOPBACK, RedisServer, free_port
from scanning import engine, wiring
from scanning.core import redis_keys
from scanning.runtime import django_q2, processes, pulse, region_workers
from scanning.runtime.django_q2 import RegionSentinel
from tests.support.engine_buckets import REGION
from tests.support.notifications import queued
from tests.support.processes import Program, all_gone, children_of, command, descendants, running
from tests.support.product import Product
from tests.support.servers import TestS3Server
from tests.support.waiting import eventually

# On a busy machine: what takes less than a second once, needs no more by itself.
BUSY_TRIES = 5

MARK = "BUCKETWATCH_TEST_TREE"
# Python 3.12 warns of what these tests are about: other tests may have left threads running.
FORKS = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


class Site:
    """An installation with a Redis of its own; buckets are added while it runs."""

    def __init__(self, directory: Path, store: RedisServer, s3: TestS3Server) -> None:
        self.store, self.s3 = store, s3
        self.mark = secrets.token_hex(8)
        self.seen: set[tuple[int, int]] = set()
        self.product = Product(directory, redis_url=store.url, **{MARK: self.mark})
        self.monitor: Program = self.product

    def add(self, name: str, region: str) -> None:
        self.product.add(name, self.s3, region=region)

    def look(self) -> set[tuple[int, int]]:
        """The process tree now; what was ever in it is remembered."""
        tree = self.monitor.tree()
        self.seen |= tree
        return tree

    def only_the_tree_runs(self) -> bool:
        """Whether nothing is left of what ran before, inside or outside of the tree."""
        tree = self.look()
        strays = {pid for pid, started in self.seen - tree if running(pid, started)}
        strays |= marked(self.mark) - {pid for pid, _ in tree}
        assert not strays
        return True

    def workers_parent(self) -> int:
        [pid] = [p for p in children_of(self.monitor.process.pid) if "runworkers" in command(p)]
        return pid

    def supervisor(self) -> int:
        [pid] = children_of(self.workers_parent())
        return pid

    def worker(self) -> int:
        return next(p for p in children_of(self.supervisor()) if not command(p).endswith("r"))

    def start_again(self) -> None:
        self.monitor = Program(
            ["manage.py", "runmonitor"], log=self.product.log, environ=self.product.environ
        )

    def stop(self) -> None:
        """SIGTERM to the monitor alone; everything has to be gone within 15 s."""
        self.look()
        self.monitor.process.send_signal(signal.SIGTERM)
        assert self.monitor.process.wait(15) == 0, self.monitor.output()
        all_gone(self.seen, timeout=0)
        assert marked(self.mark) == set()

    def clear_away(self) -> None:
        for pid in {pid for pid, started in self.look() if running(pid, started)}:
            os.kill(pid, signal.SIGKILL)
        for pid in marked(self.mark):
            os.kill(pid, signal.SIGKILL)
        self.monitor.process.wait()


def marked(mark: str) -> set[int]:
    """The processes, whoever is their parent now, that inherited this mark.

    A process that gave itself a long title has lost its environment to it.
    """
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            environ = (entry / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended, or is none of ours
            continue
        if f"{MARK}={mark}".encode() in environ:
            found.add(int(entry.name))
    return found


@pytest.fixture
def site(tmp_path: Path, s3_server: TestS3Server) -> Iterator[Site]:
    store = RedisServer(tmp_path / "redis")
    store.start()
    built = Site(tmp_path, store, s3_server)
    yield built
    built.clear_away()
    store.stop()


def announced(client: redis.Redis) -> list[tuple[str, str]]:
    events = queued(client)
    return sorted((event["bucket"], event["key"]) for event in events)


def has_announced(client: redis.Redis, event: tuple[str, str]) -> bool:
    return event in announced(client)


def scans(client: redis.Redis) -> int:
    return int(client.hget(redis_keys.STATS, "total_scans") or 0)


@pytest.mark.processes
def test_the_monitor_finds_new_regions_survives_kills_and_leaves_nothing_behind(site, s3_server):
    name = s3_server.bucket()
    s3_server.put(name, "first")
    with site.store.client() as client:
        site.product.wait_until_ready()
        site.add(name, "a-region-never-seen")
        eventually(lambda: announced(client) == [(name, "first")])

        for victim in (site.worker, site.supervisor, site.workers_parent):
            site.look()
            os.kill(victim(), signal.SIGKILL)
            expected = (name, f"after the kill of the {victim.__name__}")
            s3_server.put(*expected)
            eventually(partial(has_announced, client, expected))
            eventually(site.only_the_tree_runs)

        site.stop()
        assert client.get(redis_keys.LEADER) is None
        assert client.zcard(redis_keys.running("a-region-never-seen")) == 0

        before, scanned = announced(client), scans(client)
        assert len(before) == len(set(before)) == 4
        site.start_again()
        eventually(lambda: scans(client) >= scanned + 2)
        assert announced(client) == before
        site.stop()


@pytest.mark.processes
def test_scan_now_does_not_wait_for_the_bucket_that_is_due_next(product, s3_server, store):
    """With one worker for the region, as deployed, which waits for another bucket."""
    asked, later = s3_server.bucket(), s3_server.bucket()
    for name in (asked, later):
        product.add(name, s3_server, polling_interval=3600)
    eventually(lambda: scans(store) == 2)
    times_s: list[float] = []
    while len(times_s) < BUSY_TRIES and min(times_s, default=1.0) >= 1.0:
        store.zadd(redis_keys.due(REGION), {later: wiring.background().schedule.now() + 15})
        scan_now_and_wait(asked, s3_server, store)  # the worker waits for the other one then
        asked_at = time.monotonic()
        scan_now_and_wait(asked, s3_server, store)
        times_s.append(time.monotonic() - asked_at)
    assert min(times_s) < 1.0, times_s


def scan_now_and_wait(name: str, s3: TestS3Server, store: redis.Redis) -> None:
    before = scans(store)
    engine.scan_now(name, REGION, s3.url)
    eventually(lambda: scans(store) > before)


@pytest.mark.processes
def test_the_documented_example_runs_and_can_be_stopped_while_redis_is_away(tmp_path):
    example = "from scanning.monitor import MultiRegionMonitor; MultiRegionMonitor().run()"
    environ = {"DATA_DIR": str(tmp_path), "PORT": str(free_port()), "HOST": LOOPBACK}
    program = Program(["-c", example], log=tmp_path / "log", environ=environ)
    try:
        eventually(lambda: "workers wait for Redis" in program.output())
        eventually(lambda: "scheduling waits" in program.output())
        tree = program.tree()
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(15) == 0, program.output()
        all_gone(tree, timeout=0)
        assert program.output().count("workers wait for Redis") == 1
        assert "Traceback" not in program.output()
    finally:
        program.clear_away()


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Callable[..., processes.RestartedChild]]:
    """Start a child that runs this Python; one that calls ``here()`` is waited for."""
    started = []
    file = tmp_path / "here"
    head = (
        "import os, signal, time\n"
        f"def here(): os.mknod({str(file)!r})\n"
        f"def gone(): os.remove({str(file)!r})\n"
    )

    def start(body: str, clock: Callable[[], float] = time.monotonic) -> processes.RestartedChild:
        command = [sys.executable, "-c", head + body]
        started.append(processes.RestartedChild("test", command, clock=clock))
        if "here()" in body:
            eventually(file.exists)
        return started[-1]

    yield start
    for ended in started:
        ended.send_kill()
        ended.stop(20)


def test_a_stop_signal_is_seen_by_everybody_as_often_as_they_look():
    stop = processes.StopSignal()
    assert not stop.is_set()
    assert not stop.wait(0)
    stop.set()
    assert stop.is_set()
    assert stop.wait()
    assert stop.is_set()


def test_a_stop_signal_can_be_set_for_ever():
    """As the parent does, four times a second, while a supervisor does not end."""
    stop = processes.StopSignal()

    def set_often() -> None:
        for _ in range(100_000):
            stop.set()

    setting = threading.Thread(target=set_often, daemon=True)
    setting.start()
    setting.join(30)
    assert not setting.is_alive()
    assert stop.is_set()


def test_a_stop_signal_can_be_set_by_a_handler_while_its_thread_waits_for_it():
    stop = processes.StopSignal()
    before = signal.signal(signal.SIGALRM, lambda *_: stop.set())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        assert stop.wait(10)
    finally:
        signal.signal(signal.SIGALRM, before)


@FORKS
def test_a_stop_signal_outlives_whoever_was_killed_while_waiting_for_it():
    stop = processes.StopSignal()
    waiter = os.fork()
    if not waiter:
        stop.wait()
        os._exit(0)
    os.kill(waiter, signal.SIGKILL)
    os.waitpid(waiter, 0)
    stop.set()
    assert stop.is_set()


@FORKS
def test_a_supervisor_does_not_wait_for_a_worker_that_was_killed_between_two_tasks(monkeypatch):
    """django-q2's worker holds its timer's lock there."""
    timers: list[Any] = []
    monkeypatch.setattr(
        RegionSentinel, "spawn_process", lambda _self, _worker, *args: timers.append(args[2])
    )
    sentinel = RegionSentinel.__new__(RegionSentinel)  # what begins it sets signal handlers
    sentinel.task_queue = sentinel.result_queue = sentinel.timeout = None
    sentinel.spawn_worker()
    [timer] = timers
    ours, theirs = os.pipe()
    worker = os.fork()
    if not worker:
        with timer.get_lock():
            timer.value = 7
            os.write(theirs, b"!")
            signal.pause()
    os.read(ours, 1)
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)

    def look() -> None:
        with timer.get_lock():
            timer.value -= 1

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(10)
    assert not looking.is_alive()
    assert timer.value == 6
    os.close(ours)
    os.close(theirs)


def hold_the_interpreter() -> None:
    """Search as no time limit in this process can end: exponentially, and in C."""
    re.match(rb"(a+)+$", b"a" * 60 + b"b")


@FORKS
def test_a_worker_that_holds_its_interpreter_is_killed(monkeypatch, caplog):
    monkeypatch.setattr(django_q2, "Pulse", partial(pulse.Pulse, beat_s=0.1, most_silent=30))
    fork = multiprocessing.get_context("fork")
    sentinel = RegionSentinel.__new__(RegionSentinel)  # what begins it sets signal handlers
    sentinel.pool, tasks, results = [], fork.Queue(), fork.Queue()
    process = sentinel.spawn_process(django_q2.worker, tasks, results, django_q2._Timer(), 3600)
    task = {"func": "builtins.len", "name": "quick", "args": ["abc"], "kwargs": {}}
    tasks.put(task)
    assert results.get(timeout=60)["result"] == 3
    tasks.put(task | {"func": f"{__name__}.hold_the_interpreter", "args": []})
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert "answers nobody for 3 s: killed" in caplog.text


@FORKS
def test_a_worker_that_is_only_busy_is_not_killed():
    beating = pulse.Pulse(beat_s=0.1, most_silent=40)

    def work() -> None:
        beating.begin()
        until = time.monotonic() + 5
        while time.monotonic() < until:
            sum(range(1000))
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    beating.watch(process)
    process.join()
    assert process.exitcode == 0


def test_every_test_that_a_patch_of_django_q2_names_exists():
    """It has to pass with each new version of django-q2."""
    named = set(re.findall(r"\b(test_\w+)`", Path(django_q2.__file__).read_text()))
    written = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert len(named) >= 6
    assert [name for name in named if f"def {name}(" not in written] == []


def test_a_child_that_ends_is_started_again_after_a_pause(caplog, child):
    now = [1000.0]
    ended = child("raise SystemExit(3)", clock=lambda: now[0])
    first = ended._child
    first.process.wait()
    ended.keep_alive()
    assert "test ended with code 3; starting it again in 2 s" in caplog.text
    ended.keep_alive()
    assert ended._child is None
    now[0] += 2
    ended.keep_alive()
    assert ended._child not in {None, first}


def test_a_signal_handler_can_kill_a_child_that_its_thread_is_waiting_for(child):
    waited_for = child("here(); time.sleep(60)")
    killing = threading.Thread(target=waited_for.send_kill, daemon=True)
    with waited_for._child.process._waitpid_lock:  # Popen.wait() was just interrupted
        killing.start()
        killing.join(10)
        assert not killing.is_alive()
    assert waited_for._child.process.wait(10) == -signal.SIGKILL


def test_a_child_that_cannot_be_started_is_tried_again(caplog):
    now = [1000.0]
    child = processes.RestartedChild("test", ["/no/such/program"], clock=lambda: now[0])
    assert "test cannot be started" in caplog.text
    child._command = [sys.executable, "-c", ""]
    child.keep_alive()
    assert child._child is None
    now[0] += 31
    child.keep_alive()
    child.stop(20)
    assert child._child is not None


def test_workers_that_cannot_be_started_end_no_others(redis_server, monkeypatch, caplog):
    """A container may have so many processes, and no more."""
    with redis_server.client() as store:
        store.sadd(redis_keys.REGIONS, "one", "two")

    def refuse(process: ForkProcess) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(ForkProcess, "start", refuse)
    workers = region_workers.RegionWorkers()
    workers._keep_supervisors()
    workers._keep_supervisors()
    assert workers._supervisors == {}
    assert caplog.text.count("cannot be started: [Errno 11] Resource") == 2


def test_a_child_that_keeps_ending_is_started_ever_more_slowly(caplog, child):
    now = [1000.0]
    ended = child("raise SystemExit(3)", clock=lambda: now[0])
    for _ in range(6):
        ended._child.process.wait()
        ended.keep_alive()
        now[0] += 31
        ended.keep_alive()
        now[0] -= 31
    pauses = [record.args[2] for record in caplog.records]
    assert pauses == [2, 4, 8, 16, 30, 30]


def test_a_child_that_does_not_stop_is_killed(child, caplog):
    deaf = child("signal.signal(15, signal.SIG_IGN); here(); time.sleep(60)")
    deaf.stop(0)
    assert "test did not stop in time and was killed" in caplog.text
    assert deaf._child.process.poll() == -signal.SIGKILL


def test_a_child_is_asked_to_stop_once(child, tmp_path):
    """For the workers a second SIGTERM means *at once*."""
    counting = child(
        "n = []\n"
        "signal.signal(15, lambda *_: n.append(1))\n"
        "signal.signal(signal.SIGWINCH, lambda *_: os._exit(len(n)))\n"
        "here()\n"
        "while not n: time.sleep(0.01)\n"
        "gone(); time.sleep(60)"
    )
    counting.ask_to_stop()
    eventually(lambda: not (tmp_path / "here").exists())
    counting.ask_to_stop()
    counting._child.process.send_signal(signal.SIGWINCH)  # a larger number: handled after SIGTERM
    assert counting._child.process.wait(10) == 1


@FORKS
def test_children_die_with_their_parent(child, tmp_path):
    parent = os.fork()
    if not parent:
        child("here(); time.sleep(60)")
        signal.pause()
    try:
        eventually((tmp_path / "here").exists)
        tree = descendants(parent)
        assert len(tree) == 2
    finally:
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
    all_gone(tree)
