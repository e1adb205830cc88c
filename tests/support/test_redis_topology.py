"""The Redis topology that other tests break: it must itself be what it says."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.exceptions import AuthenticationError, ResponseError

from tests.support.redis_topology import Login, RedisTopology
from tests.support.waiting import eventually


@pytest.fixture
def topology(tmp_path: Path) -> Iterator[RedisTopology]:
    with RedisTopology(tmp_path, down_after_s=1.0) as built:
        yield built


def test_a_killed_master_gets_a_successor_that_has_its_data(topology):
    with topology.client() as client:
        client.set("key", "value")
        assert client.wait(2, 5000) == 2
    killed = topology.kill_master()
    successor = topology.wait_for_master(other_than=killed, writable=True)
    with successor.client() as client:
        assert client.get("key") == "value"
        assert client.set("key", "new")
    topology.restart(killed)
    with killed.client() as client:
        eventually(lambda: client.get("key") == "new")


def test_a_master_without_replicas_takes_no_writes(topology):
    topology.stop_sentinels()
    master, *replicas = topology.nodes
    for node in replicas:
        node.kill()
    with master.client() as client:

        def refused() -> bool:
            with pytest.raises(ResponseError, match="NOREPLICAS"):
                client.set("key", "value")
            return True

        eventually(refused)


def test_data_nodes_and_sentinels_have_logins_of_their_own(tmp_path):
    with RedisTopology(
        tmp_path,
        down_after_s=1.0,
        login=Login("scanner", "data-password"),
        sentinel_login=Login("asker", "sentinel-password"),
    ) as topology:
        for node in (topology.nodes[0], topology.sentinels[0]):
            with redis.Redis(port=node.port) as nobody, pytest.raises(AuthenticationError):
                nobody.ping()
        killed = topology.kill_master()
        assert topology.wait_for_master(other_than=killed, writable=True)
