"""What every test can ask for: real servers, each its own process, and a clean start.

`tests/settings.py` sets the environment before Django's settings are read. Each pytest-xdist
worker is a process with servers, ports and a data directory of its own.
"""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from pytest_django import Settings

from scanning import wiring
from tests.infisical_server import InfisicalServer
from tests.servers import RedisServer, TestS3Server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A real Redis server, emptied before each test that uses it; `settings.SCANNING` names it."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestS3Server]:
    """Moto's S3 server over HTTP; `.bucket()` gives a fresh bucket."""
    server = TestS3Server(
        tmp_path_factory.mktemp("s3"),
        access_key=secrets.token_hex(10),
        secret_key=secrets.token_urlsafe(30),
    )
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def _infisical_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InfisicalServer]:
    server = InfisicalServer(tmp_path_factory.mktemp("infisical"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def infisical_server(_infisical_process: InfisicalServer) -> InfisicalServer:
    """A stand-in for Infisical over HTTP, empty and without faults."""
    _infisical_process.start()  # the test before may have stopped it
    _infisical_process.reset()
    return _infisical_process


@pytest.fixture(autouse=True)
def _each_test_starts_clean(
    request: pytest.FixtureRequest, settings: Settings, tmp_path: Path
) -> Iterator[None]:
    settings.DATA_DIR = tmp_path  # an embedded vault of its own
    if "redis_server" in request.fixturenames:
        server: RedisServer = request.getfixturevalue("redis_server")
        server.start()  # the test before may have stopped it
        with server.client() as client:
            client.flushall()
        conf = settings.SCANNING
        redis = conf.redis.model_copy(update={"url": SecretStr(server.url)})
        settings.SCANNING = conf.model_copy(update={"redis": redis})
    wiring.reset()
    yield
    wiring.reset()
