"""TLS to Redis and to sentinels."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from bucketwatch.local.servers import LOOPBACK
from scanning.core.errors import RedisUnavailable
from tests.support.redis_topology import MASTER_NAME, Node
from tests.support.tls_front import Authority, TlsFront


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def front(authority: Authority, redis_server) -> Iterator[TlsFront]:
    with TlsFront(redis_server.port, authority.issue("server")) as built:
        yield built


def direct(front: TlsFront, **settings: object) -> dict[str, object]:
    return {"host": LOOPBACK, "port": front.port, "tls": True, **settings}


def test_the_server_is_checked_against_our_authority(front, authority, connect):
    connection = connect(**direct(front, tls_ca=str(authority.ca)))
    assert connection.run(lambda r: r.set("key", "value"))
    assert connection.run_bytes(lambda r: r.get("key")) == b"value"
    assert front.handshakes == 2


def test_a_server_of_an_authority_that_nobody_named_is_refused(front, tmp_path, connect):
    stranger = str(Authority(tmp_path).ca)
    for settings in ({}, {"tls_ca": stranger}):
        with pytest.raises(RedisUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            connect(**direct(front, **settings)).run(lambda r: r.ping())


def test_a_rediss_address_is_checked_too(front, authority, connect):
    url = SecretStr(f"rediss://{LOOPBACK}:{front.port}/0")
    assert connect(url=url, tls_ca=str(authority.ca)).run(lambda r: r.ping())
    with pytest.raises(RedisUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        connect(url=url).run(lambda r: r.ping())


def test_a_certificate_for_another_address_is_refused_unless_told_otherwise(
    authority, redis_server, connect
):
    with TlsFront(redis_server.port, authority.issue("elsewhere", "192.0.2.1")) as front:
        settings = direct(front, tls_ca=str(authority.ca))
        with pytest.raises(RedisUnavailable, match="IP address mismatch"):
            connect(**settings).run(lambda r: r.ping())
        assert connect(**settings, tls_check_hostname=False).run(lambda r: r.ping())


def test_a_server_that_wants_our_certificate_gets_it(authority, redis_server, connect):
    certificate, key = map(str, authority.issue("client"))
    server = authority.issue("server")
    with TlsFront(redis_server.port, server, clients=authority.ca) as front:
        settings = direct(front, tls_ca=str(authority.ca))
        with pytest.raises(RedisUnavailable):
            connect(**settings).run(lambda r: r.ping())
        assert connect(**settings, tls_cert=certificate, tls_key=key).run(lambda r: r.ping())


class WatchedMaster:
    """A master and its sentinel, each behind TLS."""

    def __init__(self, directory: Path, authority: Authority, port: int) -> None:
        self.master = TlsFront(port, authority.issue("master"))
        watch = f"sentinel monitor {MASTER_NAME} {LOOPBACK} {self.master.port} 1"
        self.node = Node(directory, [watch], is_sentinel=True)
        self.sentinel = TlsFront(self.node.port, authority.issue("sentinel"))


@pytest.fixture
def watched(tmp_path: Path, authority: Authority, redis_server) -> Iterator[WatchedMaster]:
    built = WatchedMaster(tmp_path / "sentinel", authority, redis_server.port)
    with built.master, built.sentinel:
        built.node.start()
        yield built
        built.node.kill()


def test_sentinels_and_their_master_are_reached_over_tls(watched, authority, connect):
    hosts = f"{LOOPBACK}:{watched.sentinel.port}"
    connection = connect(sentinel_host=hosts, port=1, tls=True, tls_ca=str(authority.ca))
    assert connection.run(lambda r: r.ping())
    assert connection.health().sentinel == "ok"
    assert watched.master.handshakes
    assert watched.sentinel.handshakes


def test_sentinels_without_tls_may_watch_a_master_with_it(watched, authority, connect):
    hosts = f"{LOOPBACK}:{watched.node.port}"
    settings = {"sentinel_host": hosts, "port": 1, "tls": True, "tls_ca": str(authority.ca)}
    assert connect(**settings, sentinel_tls=False).run(lambda r: r.ping())
    assert watched.master.handshakes
    with pytest.raises(RedisUnavailable):
        connect(**settings).run(lambda r: r.ping())
