"""What every test can ask for: real servers, each its own process, and a clean start.

`tests/settings.py` sets the environment before Django's settings are read. Each pytest-xdist
worker is a process with servers, ports and a data directory of its own.
"""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import redis
from django.contrib.auth.models import User
from django.test import Client
from pydantic import SecretStr
from pytest_django import Settings

from bucketwatch.local.servers import other_redis_server
from scanning import wiring
from scanning.adapters.redis.connection import RedisConnection
from scanning.config import settings as engine_settings
from tests.support import notifications
from tests.support.infisical_server import InfisicalServer
from tests.support.product import Product
from tests.support.servers import RedisServer, TestS3Server

Connect = Callable[..., RedisConnection]

# An example may take as long as it takes: machines differ, and are busy.
hypothesis.settings.register_profile("bucketwatch", deadline=None)
hypothesis.settings.load_profile("bucketwatch")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let long tests begin first: one process runs them, the others share the rest."""
    items.sort(key=lambda item: item.get_closest_marker("starts_early") is None)


def pytest_report_header() -> str:
    return other_redis_server()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A real Redis server, emptied before each test that uses it; `settings.SCANNING` names it."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """A client of that server: what a test writes there, and looks at."""
    with redis_server.client() as client:
        yield client


@pytest.fixture
def safe_redis(redis_server: RedisServer) -> Iterator[RedisServer]:
    """One that nothing is to be said against: it keeps its data."""
    with redis_server.client() as client:
        client.config_set("save", "86400 1")
        yield redis_server
        redis_server.start()  # the test may have stopped it
        client.config_set("save", "")


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


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes connections to Redis, ones that give up at once unless told otherwise."""
    made = []

    def build(
        *, patience_s: float = 0.0, answer_s: float = 5.0, **settings: object
    ) -> RedisConnection:
        found = engine_settings.RedisSection.model_validate(settings)
        made.append(RedisConnection(found, patience_s=patience_s, answer_s=answer_s))
        return made[-1]

    yield build
    for connection in made:
        connection.client.close()


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


@pytest.fixture
def operator(client: Client) -> Client:
    """A browser in which a superuser has logged in."""
    client.force_login(User.objects.create(username="olga", is_staff=True, is_superuser=True))
    return client


@pytest.fixture
def product(tmp_path: Path, redis_server: RedisServer) -> Iterator[Product]:
    """The whole product as processes, and its pages at `.url`."""
    product = Product(tmp_path, redis_url=redis_server.url)
    product.wait_until_ready()
    yield product
    product.stop_and_wait()


@pytest.fixture(autouse=True)
def _each_test_starts_clean(
    request: pytest.FixtureRequest, settings: Settings, tmp_path: Path
) -> Iterator[None]:
    settings.DATA_DIR = tmp_path  # an embedded vault of its own
    server: RedisServer | None = None
    if "redis_server" in request.fixturenames:
        server = request.getfixturevalue("redis_server")
        server.start()  # the test before may have stopped it
        with server.client() as client:
            client.flushall()
        conf = settings.SCANNING
        own = conf.redis.model_copy(update={"url": SecretStr(server.url)})
        settings.SCANNING = conf.model_copy(update={"redis": own})
    wiring.reset()
    yield
    wiring.reset()
    if server is not None and server.is_running:
        with server.client() as client:
            notifications.check(client)
