"""A real Redis master with replicas, and the sentinels that watch it.

It is set up as `docs/redis.md` advises: append-only, and a master without replicas takes no writes.
The servers are children of the thread that starts them (``bucketwatch/local/servers.py``): start
and restart them in the main thread.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from bucketwatch.local.servers import (
    LOOPBACK,
    Server,
    ServerProcess,
    free_port,
    redis_server_binary,
)
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MASTER_NAME = "mymaster"
QUORUM = 2


@dataclass(frozen=True, slots=True)
class Login:
    """The password of the default user, and of another user with all rights if there is a name."""

    username: str = ""
    password: str = ""

    def options(self) -> list[str]:
        """Write the lines of a configuration file that ask for this login."""
        user = f"user {self.username} on >{self.password} ~* &* +@all"
        return [f"requirepass {self.password}"] * bool(self.password) + [user] * bool(self.username)


NOBODY = Login()


class Node(Server):
    """One server, data or sentinel; keeps its port and files when it is started again.

    Its configuration file is written once: sentinels change it from then on.
    """

    def __init__(
        self,
        directory: Path,
        options: Sequence[str],
        *,
        login: Login = NOBODY,
        is_sentinel: bool = False,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port = free_port()
        self._login = login
        self._is_sentinel = is_sentinel
        lines = [f"port {self.port}", f"bind {LOOPBACK}", f"dir {directory}"]
        lines += [*login.options(), *options]
        self._config = directory / "server.conf"
        self._config.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def __repr__(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        if self.is_running:
            return
        mode = ["--sentinel"] * self._is_sentinel
        self._child = ServerProcess(
            [redis_server_binary(), self._config, *mode], log=self.directory / "server.log"
        )
        self._child.wait_until(self._answers, what=f"the server {self!r}")

    def signal(self, number: int) -> None:
        """Freeze it (SIGSTOP) or thaw it (SIGCONT), for one."""
        os.kill(self.pid, number)

    def client(self) -> redis.Redis:
        """Make a client that decodes answers and tries once; close it, or use it with ``with``."""
        return redis.Redis(
            host=LOOPBACK,
            port=self.port,
            decode_responses=True,
            socket_connect_timeout=5,
            socket_timeout=5,
            retry=Retry(NoBackoff(), 0),
            username=self._login.username or None,
            password=self._login.password or None,
        )

    def role(self) -> str:
        """Ask the node for its role; "" if it does not answer."""
        try:
            with self.client() as client:
                return str(client.role()[0])
        except RedisError:
            return ""

    def _answers(self) -> bool:
        with self.client() as client, suppress(RedisError):
            # Somebody else's server on this port would answer a PING as well.
            return bool(client.info("server")["process_id"] == self.pid)
        return False


class RedisTopology:
    """``with RedisTopology(directory) as redis``: a master, its replicas and three sentinels.

    A sentinel that does not hear from the master for ``down_after_s`` thinks it dead, and three
    of them have another one within some seconds. ``login`` is that of the data nodes.
    """

    def __init__(
        self,
        directory: Path,
        *,
        replicas: int = 2,
        sentinels: int = 3,
        down_after_s: float = 2.0,
        login: Login = NOBODY,
        sentinel_login: Login = NOBODY,
    ) -> None:
        self.down_after_s = down_after_s
        self._login, self._sentinel_login = login, sentinel_login
        data = _data_options(login)
        first = Node(directory / "node-0", data, login=login)
        follows = [*data, f"replicaof {LOOPBACK} {first.port}"]
        others = [
            Node(directory / f"node-{n}", follows, login=login) for n in range(1, replicas + 1)
        ]
        self.nodes = [first, *others]
        watch = _sentinel_options(first, login, quorum=min(QUORUM, sentinels), down_s=down_after_s)
        self.sentinels = [
            Node(directory / f"sentinel-{n}", watch, login=sentinel_login, is_sentinel=True)
            for n in range(sentinels)
        ]

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start all of it, and wait until the sentinels know the replicas and each other."""
        for node in self.nodes:
            node.start()
        # A sentinel that sees the master without replicas looks again only after 10 s.
        eventually(self._replicas_are_in_step)
        self.start_sentinels()
        eventually(self._can_fail_over)

    def stop(self) -> None:
        """End all of it at once, the sentinels first: nobody is to fail over now."""
        for node in [*self.sentinels, *self.nodes]:
            node.kill()

    # --- what happens to it

    def kill_master(self) -> Node:
        """Kill -9 the master; returns it, to be restarted later."""
        master = self.master()
        master.kill()
        return master

    def restart(self, node: Node) -> None:
        """Start a killed node, and wait until it follows the master again.

        Not before the sentinels have another master: one that comes back within ``down_after_s``
        stays master.
        """
        self.wait_for_master(other_than=node)
        node.start()
        eventually(lambda: node.role() == "slave")

    def stop_sentinels(self) -> None:
        for sentinel in self.sentinels:
            sentinel.kill()

    def start_sentinels(self) -> None:
        for sentinel in self.sentinels:
            sentinel.start()

    def fail_over(self) -> Node:
        """Have the sentinels choose another master while the present one lives; returns the new."""
        present = self.master()
        with self.sentinels[0].client() as sentinel:
            sentinel.execute_command("SENTINEL", "FAILOVER", MASTER_NAME)
        return self.wait_for_master(other_than=present)

    # --- what it is

    def master(self) -> Node:
        """Wait for the node that the sentinels name and that says so itself."""
        return self.wait_for_master()

    def wait_for_master(
        self, *, other_than: Node | None = None, timeout: float = 60, writable: bool = False
    ) -> Node:
        """Wait until most sentinels name the same live master; ``writable``: with replicas."""

        def chosen() -> Node:
            node = self._named()
            assert node is not None
            assert node is not other_than
            assert node.role() == "master"
            assert not writable or _good_replicas(node)
            return node

        return eventually(chosen, timeout=timeout)

    def has_master(self, *, other_than: Node) -> bool:
        named = self._named()
        return named is not None and named is not other_than and named.role() == "master"

    def is_whole(self) -> bool:
        """Tell if every node runs and the next failover may come."""
        named = self._named()
        return (
            named is not None
            and named.role() == "master"
            and _good_replicas(named) == len(self.nodes) - 1
            and self._can_fail_over()
        )

    def _named(self) -> Node | None:
        named = [port for sentinel in self.sentinels if (port := _master_port(sentinel))]
        for node in self.nodes:
            if named.count(node.port) > len(self.sentinels) // 2:
                return node
        return None

    def _replicas_are_in_step(self) -> bool:
        return _good_replicas(self.nodes[0]) == len(self.nodes) - 1

    def _can_fail_over(self) -> bool:
        for node in self.sentinels:
            try:
                with node.client() as sentinel:
                    known = sentinel.sentinel_master(MASTER_NAME)
                    replicas = sentinel.sentinel_slaves(MASTER_NAME)
            except RedisError:
                return False
            linked = [r for r in replicas if r["master-link-status"] == "ok"]
            others = len(self.sentinels) - 1
            if len(linked) != len(self.nodes) - 1 or known["num-other-sentinels"] != others:
                return False
        return True

    # --- how to reach it

    def client(self) -> redis.Redis:
        """Make a client of the present master."""
        return self.master().client()

    @property
    def sentinel_hosts(self) -> str:
        return ",".join(f"{LOOPBACK}:{node.port}" for node in self.sentinels)

    def settings(self) -> dict[str, Any]:
        """Give the members of `RedisSection` that lead to this topology."""
        direct = self.nodes[0]
        settings = {
            "sentinel_host": self.sentinel_hosts,
            "master_name": MASTER_NAME,
            "host": LOOPBACK,
            "port": direct.port,
            "username": self._login.username,
            "password": self._login.password,
            "sentinel_username": self._sentinel_login.username,
            "sentinel_password": self._sentinel_login.password,
        }
        return {name: value for name, value in settings.items() if value}

    def environ(self) -> dict[str, str]:
        """Give the same settings as environment variables of the product."""
        settings = {f"REDIS_{name}".upper(): str(value) for name, value in self.settings().items()}
        return {"REDIS_URL": "", **settings}


def _data_options(login: Login) -> list[str]:
    user = [f"masteruser {login.username}"] * bool(login.username)
    password = [f"masterauth {login.password}"] * bool(login.password)
    return [
        "appendonly yes",
        'save ""',
        "min-replicas-to-write 1",
        "min-replicas-max-lag 2",
        "repl-diskless-sync-delay 0",  # replicas are in step within a second
        *user,
        *password,
    ]


def _sentinel_options(master: Node, login: Login, *, quorum: int, down_s: float) -> list[str]:
    user = [f"sentinel auth-user {MASTER_NAME} {login.username}"] * bool(login.username)
    password = [f"sentinel auth-pass {MASTER_NAME} {login.password}"] * bool(login.password)
    return [
        f"sentinel monitor {MASTER_NAME} {LOOPBACK} {master.port} {quorum}",
        f"sentinel down-after-milliseconds {MASTER_NAME} {round(down_s * 1000)}",
        # Also how long sentinels wait before they try the same master again.
        f"sentinel failover-timeout {MASTER_NAME} {round(down_s * 5000)}",
        f"sentinel parallel-syncs {MASTER_NAME} 2",
        *user,
        *password,
    ]


def _good_replicas(node: Node) -> int:
    """Count the replicas that follow closely enough for the master to take writes."""
    with suppress(RedisError), node.client() as client:
        return int(client.info("replication").get("min_slaves_good_slaves", 0))
    return 0


def _master_port(sentinel: Node) -> int | None:
    with suppress(RedisError), sentinel.client() as client:
        address = client.sentinel_get_master_addr_by_name(MASTER_NAME)
        return int(address[1]) if address else None
    return None
