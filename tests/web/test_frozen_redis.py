"""A Redis that takes connections and answers nothing: whoever looks at a page waits for it once."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from buckets.health.overview import overview
from buckets.models import Bucket
from bucketwatch.local.servers import RedisServer
from scanning import wiring
from scanning.core import redis_keys
from tests.support import api_client

pytestmark = pytest.mark.django_db(transaction=True)

API = "/api/v1/buckets/"


@pytest.fixture
def bucket(redis_server: RedisServer) -> Bucket:
    return api_client.add_bucket("media-in")


@pytest.fixture
def caller() -> api_client.Caller:
    api_client.use_fast_hashes()
    return api_client.Caller(api_client.new_client()[0])


@contextmanager
def frozen(server: RedisServer) -> Iterator[Callable[[], int]]:
    """Freeze it meanwhile; what is yielded says afterwards how often it was tried.

    Whoever gave up an answer has closed its connection, so that each attempt connects anew.
    """
    assert server._child is not None
    process = server._child.process

    def connections() -> int:
        with server.client() as observer:
            return int(observer.info("stats")["total_connections_received"])

    before = connections()
    wiring.reset()  # connections that are open already would not be counted
    process.send_signal(signal.SIGSTOP)
    try:
        yield lambda: connections() - before - 1
    finally:
        process.send_signal(signal.SIGCONT)


def test_the_list_of_buckets_waits_once(operator, bucket, redis_server):
    page = reverse("admin:buckets_bucket_changelist")
    with frozen(redis_server) as attempts:
        response = operator.get(page, {"state": "late"})
    assert response.status_code == 200
    assert attempts() == 1


def test_the_dashboard_waits_once_and_says_why_it_shows_little(operator, bucket, redis_server):
    with frozen(redis_server) as attempts:
        response = operator.get(reverse("admin:index"))
    assert "Redis is away" in str(response.content, "utf-8")
    assert attempts() == 1


@pytest.mark.parametrize("page", ["overview", "explain"])
def test_the_pages_of_a_bucket_wait_once(operator, bucket, redis_server, page):
    with frozen(redis_server) as attempts:
        url = reverse(f"admin:buckets_bucket_{page}", args=[bucket.pk])
        response = operator.get(url, {"key": "a"} if page == "explain" else {})
    assert response.status_code == 200
    assert attempts() == 1


def test_a_button_waits_once(operator, bucket, redis_server):
    with frozen(redis_server) as attempts:
        url = reverse("admin:buckets_bucket_do", args=[bucket.pk])
        response = operator.post(url, {"action": "pause"})
    assert response.status_code == 302
    assert attempts() == 1


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        pytest.param("GET", f"{API}?state=waiting", None, 200, id="list-by-state"),
        pytest.param("PATCH", f"{API}media-in", {"polling_interval": 5}, 200, id="change"),
        pytest.param("GET", "/ready", None, 503, id="ready"),
        pytest.param("GET", "/metrics?format=prometheus", None, 200, id="prometheus"),
    ],
)
def test_a_program_waits_once(caller, bucket, redis_server, method, path, body, status):
    with frozen(redis_server) as attempts:
        response = caller.send(method, path, body)
    assert response.status_code == status
    assert attempts() == 1


def test_the_next_request_tries_anew(operator, bucket, redis_server):
    page = reverse("admin:buckets_bucket_overview", args=[bucket.pk])
    with frozen(redis_server):
        said: Any = operator.get(page).content
    assert b"Redis does not answer" in said
    assert b"Redis does not answer" not in operator.get(page).content


def test_without_a_page_that_waits_the_overview_asks_once_too(bucket, redis_server):
    with frozen(redis_server) as attempts:
        assert overview().telemetry is None
    assert attempts() == 1


def test_the_live_dashboard_asks_which_buckets_are_late_once(
    operator: Client, bucket: Bucket, redis_server: RedisServer
):
    with redis_server.client() as observer:
        observer.sadd(redis_keys.REGIONS, bucket.region)
        observer.config_resetstat()
        operator.get(reverse("admin:index"))
        asked = observer.info("commandstats")["cmdstat_zrangebyscore"]["calls"]
    # Who is due and who is scanned, for the regions and for the states; and whom budgets stretch.
    assert asked == 2 * 2 + 1
