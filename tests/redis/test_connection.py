"""The connection to Redis: a server that comes and goes, and refusals."""

import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
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

from bucketwatch.local.servers import (
    LOOPBACK,
    RedisServer,
    ServerProcess,
    free_port,
    redis_server_binary,
)
from scanning import engine, wiring
from scanning.adapters.redis.connection import RedisConnection
from scanning.core.errors import ConfigurationError, RedisUnavailable
from scanning.runtime.monitor import MultiRegionMonitor
from scanning.runtime.region_workers import RegionWorkers

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
    lead = connection.load_script("lead")
    assert lead(["leader"], {"who": "one", "milliseconds": 60_000}) == 1
    connection.client.script_flush()
    assert lead(["leader"], {"who": "other", "milliseconds": 60_000}) == 0


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


# --- a cluster


@pytest.fixture
def cluster_url(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    server = ServerProcess(
        # Its bus would take the port that is 10,000 higher, which a connection may have.
        [
            *(redis_server_binary(), "--port", str(port), "--dir", tmp_path),
            *("--cluster-enabled", "yes", "--cluster-port", str(free_port())),
        ],
        log=tmp_path / "cluster.log",
    )
    with redis.Redis(host=LOOPBACK, port=port) as client:

        def answers() -> bool:
            with suppress(RedisConnectionError):
                return bool(client.ping())
            return False

        server.wait_until(answers, what="The cluster")
    yield f"redis://{LOOPBACK}:{port}/0"
    server.stop()


@pytest.mark.parametrize("program", [MultiRegionMonitor, RegionWorkers])
def test_a_cluster_is_refused_at_the_start(cluster_url, settings, program):
    conf = settings.SCANNING
    there = conf.redis.model_copy(update={"url": SecretStr(cluster_url)})
    settings.SCANNING = conf.model_copy(update={"redis": there})
    wiring.reset()
    with pytest.raises(ConfigurationError, match="Redis Cluster is not supported"):
        program().run()
    warning = engine.redis_health().warnings[0]
    assert warning.risk.startswith("Redis Cluster is not supported")
    assert warning.remedy == "name a server that is none in REDIS_URL or REDIS_HOST"


# --- answers that are errors


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (
            AuthenticationError("invalid username-password pair"),
            "check REDIS_USERNAME and REDIS_PASSWORD, or REDIS_URL",
        ),
        (
            NoPermissionError("user has no permissions"),
            "check REDIS_USERNAME and REDIS_PASSWORD, or REDIS_URL",
        ),
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


def test_a_replica_that_stays_one_is_told_from_a_server_that_is_away(redis_server, connect):
    connection = connect(url=redis_server.url, patience_s=0.0)
    with redis_server.client() as client:
        client.replicaof(LOOPBACK, "1")
        with pytest.raises(RedisUnavailable, match="is a replica and takes no writes"):
            connection.run(lambda r: r.set("key", "x"))
        client.replicaof("NO", "ONE")


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
    def health() -> tuple[str, str]:
        found = engine.redis_health()
        return found.redis, found.sentinel

    assert health() == ("ok", "disabled")
    redis_server.stop()
    assert health() == ("error", "disabled")
    redis_server.start()
    assert health() == ("ok", "disabled")


def test_health_does_not_wait_long_for_a_server_that_hangs(redis_server, connect):
    connection = connect(url=redis_server.url, answer_s=0.1)
    assert connection.health().redis == "ok"
    redis_server._child.process.send_signal(signal.SIGSTOP)
    try:
        assert connection.health().redis == "error"
    finally:
        redis_server._child.process.send_signal(signal.SIGCONT)
