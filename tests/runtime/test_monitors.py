"""Real monitors: who takes over from one that was killed, and how they stop while S3 is silent."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from bucketwatch.local.servers import RedisServer
from scanning.core import redis_keys
from scanning.runtime.leader_lease import LEADER_LEASE_S
from scanning.runtime.scheduler import TICK_S
from tests.support.canned_http import CannedServer, Stall
from tests.support.processes import Program, all_gone
from tests.support.product import Installation
from tests.support.waiting import eventually

pytestmark = pytest.mark.processes
REGION = "us-test-1"


@pytest.fixture
def redis_of_its_own(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def store(redis_of_its_own) -> Iterator[redis.Redis]:
    with redis_of_its_own.client() as client:
        yield client


@pytest.fixture
def installation(tmp_path, redis_of_its_own) -> Installation:
    settings = {"SECURITY_ALLOW_PRIVATE_ENDPOINTS": "true", "LOG_LEVEL": "INFO"}
    return Installation(tmp_path, redis_url=redis_of_its_own.url, **settings)


class Starter:
    """Starts monitors without a web server, and clears them away."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self.started: list[Program] = []

    def __call__(self, *options: str) -> Program:
        log = self._installation.log.with_suffix(f".{len(self.started)}.log")
        command = ["manage.py", "runmonitor", "--no-web", *options]
        self.started.append(Program(command, log=log, environ=self._installation.environ))
        return self.started[-1]


@pytest.fixture
def start(installation) -> Iterator[Starter]:
    starter = Starter(installation)
    yield starter
    for program in starter.started:
        program.clear_away()


def leader(store: redis.Redis) -> int:
    """The process that leads, or 0."""
    return int(str(store.get(redis_keys.LEADER) or "nobody:0").rpartition(":")[2])


def test_a_standby_takes_over_from_a_leader_that_was_killed(start, store):
    first = start("--no-workers")
    eventually(lambda: leader(store) == first.process.pid)
    second = start("--no-workers")
    eventually(lambda: "this monitor stands by for another" in second.output())

    first.signal(signal.SIGKILL)

    assert 0 < store.pttl(redis_keys.LEADER) <= LEADER_LEASE_S * 1000
    assert LEADER_LEASE_S + TICK_S < 10
    eventually(lambda: leader(store) == second.process.pid)
    eventually(lambda: "this monitor schedules" in second.output())  # said after it is so


def test_a_monitor_stops_in_order_while_a_scan_waits_for_s3(start, store, installation):
    with CannedServer(Stall()) as s3:
        monitor = hung(start, store, installation, s3)
        tree = monitor.tree()
        monitor.process.send_signal(signal.SIGTERM)
        assert monitor.process.wait(15) == 0, monitor.output()
        all_gone(tree, timeout=0)
    assert store.zcard(redis_keys.running(REGION)) == 0
    assert store.zscore(redis_keys.due(REGION), "bucket") is not None
    assert store.get(redis_keys.LEADER) is None


def test_a_second_signal_stops_it_at_once(start, store, installation):
    with CannedServer(Stall()) as s3:
        monitor = hung(start, store, installation, s3)
        tree = monitor.tree()
        monitor.process.send_signal(signal.SIGTERM)
        monitor.process.send_signal(signal.SIGINT)
        assert monitor.process.wait(15) in {128 + signal.SIGTERM, 128 + signal.SIGINT}
        all_gone(tree)
    assert store.zcard(redis_keys.running(REGION)) == 1  # nobody gave it back: it expires


def hung(
    start: Starter, store: redis.Redis, installation: Installation, s3: CannedServer
) -> Program:
    """A monitor whose worker waits for an answer of S3."""
    given = {"name": "bucket", "endpoint": s3.url, "region": REGION}
    keys_ = {"access_key": "id", "secret_key": "secret"}
    installation.call(f"services.add_bucket(**{given | keys_!r})")
    monitor = start()
    eventually(lambda: s3.asked)
    assert store.zcard(redis_keys.running(REGION)) == 1
    return monitor
