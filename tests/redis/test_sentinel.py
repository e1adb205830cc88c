"""The connection to Redis behind Sentinel: who is asked, who is believed, what is left when."""

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pydantic import SecretStr

from bucketwatch.local.servers import LOOPBACK, RedisServer, free_port, listen
from scanning.adapters.redis.connection import RedisConnection
from scanning.core.errors import RedisUnavailable
from tests.support.redis_topology import MASTER_NAME, Login, RedisTopology
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisTopology]:
    """One that nobody breaks."""
    with RedisTopology(tmp_path_factory.mktemp("whole")) as built:
        yield built


@pytest.fixture
def topology(tmp_path: Path) -> Iterator[RedisTopology]:
    """One to break."""
    with RedisTopology(tmp_path, down_after_s=1.0) as built:
        yield built


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """Takes connections and never says anything."""
    with listen(0) as listener:
        yield listener


def connections_to(listener: socket.socket) -> int:
    """How many waited to be accepted."""
    listener.settimeout(0)
    number = 0
    with suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
            number += 1
    return number


def port_of(connection: RedisConnection) -> int:
    return connection.run(lambda r: int(r.config_get("port")["port"]))


def nobody() -> str:
    """A sentinel that is not there."""
    return f"{LOOPBACK}:{free_port()}"


# --- who is asked


def test_the_master_is_the_one_that_sentinel_names(whole, connect):
    master, *replicas = whole.nodes
    connection = connect(**whole.settings() | {"port": replicas[0].port})
    assert port_of(connection) == master.port
    health = connection.health()
    assert (health.redis, health.sentinel) == ("ok", "ok")
    view = connection.sentinel_view()
    assert (view["status"], view["master"]) == ("ok", repr(master))
    assert sorted(view["slaves"]) == sorted(map(repr, replicas))
    assert view["slave_count"] == 2


def test_one_sentinel_of_several_is_enough(whole, connect):
    hosts = f"{nobody()}, {whole.sentinel_hosts.split(',')[0]}"
    connection = connect(**whole.settings() | {"sentinel_host": hosts, "port": free_port()})
    assert port_of(connection) == whole.nodes[0].port


def test_a_sentinel_that_hangs_costs_its_time_out_once(whole, connect, silent):
    hosts = f"{LOOPBACK}:{silent.getsockname()[1]},{whole.sentinel_hosts}"
    connection = connect(**whole.settings() | {"sentinel_host": hosts})
    for _ in range(5):
        connection.client.connection_pool.disconnect()
        assert port_of(connection) == whole.nodes[0].port
    assert connections_to(silent) == 1


def test_a_redis_url_switches_sentinel_off(whole, connect):
    replica = whole.nodes[1]
    url = SecretStr(f"redis://{replica!r}/0")
    connection = connect(**whole.settings() | {"url": url})
    assert port_of(connection) == replica.port
    assert connection.health().sentinel == "disabled"


def test_a_sentinel_that_knows_no_such_master_wins_over_the_direct_address(whole, connect):
    connection = connect(**whole.settings() | {"master_name": "other"})
    with pytest.raises(RedisUnavailable, match="Sentinel knows no master named other now"):
        connection.run(lambda r: r.ping())
    assert connection.health().sentinel == "error"


# --- direct


def test_without_any_sentinel_the_configured_host_is_taken_if_it_is_a_master(whole, connect):
    connection = connect(**whole.settings() | {"sentinel_host": f"{nobody()},{nobody()}"})
    assert port_of(connection) == whole.nodes[0].port
    health = connection.health()
    assert (health.redis, health.sentinel) == ("ok", "error")
    assert "No sentinel answers" in health.warnings[0].risk
    assert connection.sentinel_view()["status"] == "error"


def test_without_any_sentinel_a_replica_is_refused(whole, connect):
    replica = whole.nodes[1]
    settings = whole.settings() | {"sentinel_host": nobody(), "port": replica.port}
    with pytest.raises(RedisUnavailable, match=f"{replica.port} is not a master"):
        connect(**settings).run(lambda r: r.ping())


def test_the_direct_connection_is_left_when_a_sentinel_answers_again(
    topology, connect, redis_server
):
    topology.stop_sentinels()
    connection = connect(**topology.settings() | {"port": redis_server.port}, patience_s=20)
    assert port_of(connection) == redis_server.port
    topology.start_sentinels()
    eventually(lambda: port_of(connection) == topology.nodes[0].port)
    assert connection.health().sentinel == "ok"


# --- a master that is none any more


def test_after_a_failover_the_same_connection_finds_the_new_master(topology, connect):
    connection = connect(**topology.settings(), patience_s=60)
    connection.run(lambda r: r.set("key", "value"))
    killed = topology.kill_master()
    assert connection.run(lambda r: r.set("key", "new")) is True
    assert port_of(connection) == topology.wait_for_master(other_than=killed).port


def test_a_master_that_the_sentinels_left_is_left_without_an_error(
    topology, connect, redis_server: RedisServer
):
    connection = connect(**topology.settings())
    idle = connection.client.connection_pool.get_connection()
    connection.client.connection_pool.release(idle)
    assert port_of(connection) == topology.nodes[0].port
    for sentinel in topology.sentinels:
        with sentinel.client() as client:
            client.sentinel_remove(MASTER_NAME)
            client.sentinel_monitor(MASTER_NAME, LOOPBACK, redis_server.port, 2)
    eventually(lambda: port_of(connection) == redis_server.port)
    assert topology.nodes[0].role() == "master"


def test_a_master_that_became_a_replica_is_left(topology, connect):
    """By hand, or by a sentinel that did not cut our connections."""
    topology.stop_sentinels()
    one, two, _ = topology.nodes
    connection = connect(**topology.settings(), patience_s=0.5)
    connection.run(lambda r: r.set("key", "value"))
    with two.client() as client:
        client.replicaof("NO", "ONE")
    with one.client() as client:
        client.replicaof(LOOPBACK, two.port)
    with pytest.raises(RedisUnavailable, match=f"{one.port} is not a master"):
        connection.run(lambda r: r.set("key", "value"))


# --- logins


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisTopology]:
    with RedisTopology(
        tmp_path_factory.mktemp("guarded"),
        login=Login("scanner", "data-password"),
        sentinel_login=Login("asker", "sentinel-password"),
    ) as built:
        yield built


def test_data_nodes_and_sentinels_are_told_their_own_logins(guarded, connect):
    connection = connect(**guarded.settings())
    assert connection.run(lambda r: r.acl_whoami()) == "scanner"
    assert connection.health().sentinel == "ok"
    by_password = connect(**guarded.settings() | {"username": "", "sentinel_username": ""})
    assert by_password.run(lambda r: r.acl_whoami()) == "default"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"password": "wrong-one"}, "Redis refuses us: .*; check REDIS_USERNAME and REDIS_PASS"),
        (
            {"sentinel_password": "wrong-one"},
            "Sentinel refuses us: .*; check REDIS_SENTINEL_USERNAME and REDIS_SENTINEL_PASSWORD",
        ),
        ({"sentinel_password": None, "sentinel_username": ""}, "Sentinel refuses us: "),
    ],
    ids=["data", "sentinel", "none for the sentinel"],
)
def test_a_wrong_login_is_said_at_once_and_not_shown(guarded, connect, wrong, message):
    connection = connect(**guarded.settings() | wrong, patience_s=60)
    with pytest.raises(RedisUnavailable, match=message) as error:
        connection.run(lambda r: r.ping())
    for password in ("wrong-one", "data-password", "sentinel-password"):
        assert password not in str(error.value)
