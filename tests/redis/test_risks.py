"""What `/ready` and the log say of Redis servers that may lose data."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from bucketwatch.local.servers import RedisServer
from scanning.adapters.redis.risks import warnings_of
from tests.support.redis_topology import RedisTopology
from tests.support.waiting import eventually


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """One that keeps its data, and that a test may configure."""
    built = RedisServer(tmp_path, appendonly=True)
    built.start()
    yield built
    built.stop()


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    with server.client() as client:
        yield client


@pytest.mark.parametrize(
    ("configured", "warned_of"),
    [
        ({}, []),
        ({"maxmemory-policy": "allkeys-lru"}, []),  # nothing is full without a maxmemory
        ({"maxmemory": "500mb"}, []),
        (
            {"maxmemory": "500mb", "maxmemory-policy": "allkeys-lru"},
            ["allkeys-lru: a full Redis drops what is known of objects, and notifications"],
        ),
        (
            {"maxmemory": "500mb", "maxmemory-policy": "volatile-ttl"},
            ["volatile-ttl: a full Redis drops the documented object states"],
        ),
        ({"appendonly": "no"}, ["appendonly is off and save is empty: a restart of Redis loses"]),
        ({"appendonly": "no", "save": "3600 1"}, []),
    ],
    ids=str,
)
def test_settings_that_lose_data_are_warned_of(client, configured, warned_of):
    for name, value in configured.items():
        client.config_set(name, value)
    said = warnings_of(client, has_sentinel=False)
    assert len(said) == len(warned_of)
    for warning, expected in zip(said, warned_of, strict=True):
        assert expected in warning.risk
        assert warning.remedy.startswith("set ")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("-config", "whether save is set cannot be checked"),
        ("-info", "Whether Redis may lose data cannot be checked; let our user run INFO"),
    ],
)
def test_a_server_that_lets_us_see_little_is_no_error(server, client, rule, expected):
    client.config_set("appendonly", "no")
    client.execute_command("ACL", "SETUSER", "hosted", "on", ">pw", "~*", "+@all", rule)
    with redis.Redis(port=server.port, username="hosted", password="pw") as hosted:
        [warning] = warnings_of(hosted, has_sentinel=False)
    assert expected in str(warning)


def test_a_full_server_refuses_all_that_is_to_be_written(client):
    client.config_set("maxmemory", 1)
    [warning] = warnings_of(client, has_sentinel=False)
    assert "Redis is full (maxmemory, 1B) and refuses writes, so nothing is scanned" in str(warning)
    client.config_set("maxmemory-policy", "allkeys-lru")
    [warning] = warnings_of(client, has_sentinel=False)
    assert "a full Redis drops" in str(warning)


def test_a_replica_takes_no_writes(client):
    client.replicaof("127.0.0.1", "1")
    [warning] = warnings_of(client, has_sentinel=False)
    assert warning.risk == "Redis is a replica and takes no writes, so nothing is scanned"
    assert warning.remedy.startswith("name the master")


def test_a_server_that_is_away_is_not_warned_of(server, client):
    server.stop()
    assert warnings_of(client, has_sentinel=False) == ()


def test_the_topology_of_the_documentation_needs_no_warning(tmp_path):
    with RedisTopology(tmp_path) as topology, topology.client() as master:
        assert warnings_of(master, has_sentinel=True) == ()
        master.config_set("min-replicas-to-write", 0)
        [warning] = warnings_of(master, has_sentinel=True)
        assert "set min-replicas-to-write to 1 and min-replicas-max-lag to 2" in str(warning)
        master.config_set("min-replicas-to-write", 1)
        topology.nodes[1].kill()
        said = eventually(lambda: warnings_of(master, has_sentinel=True))
        assert "The master has 1 replicas online" in said[0].risk
