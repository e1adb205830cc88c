"""/health, /ready and /metrics, as Kubernetes, balancers and monitoring ask for them."""

import json
from typing import Any, NoReturn

import pytest
from django.db import OperationalError, connection
from django.test import Client
from pydantic import SecretStr

from scanning import wiring
from tests.support import api_client

READY = {"status": "ready", "redis": "ok", "sentinel": "disabled", "webhook": "ok"}


def documented(response: Any) -> dict[str, str]:
    """The members that consumers of the older monitor's route know."""
    return {member: response.json()[member] for member in READY}


def checks(response: Any) -> dict[str, str]:
    said: dict[str, str] = response.json()["checks"]
    return said


@pytest.fixture
def client() -> Client:
    return Client(raise_request_exception=False)


def _settings_with(settings: Any, section: str, **values: Any) -> None:
    conf = settings.SCANNING
    changed = getattr(conf, section).model_copy(update=values)
    settings.SCANNING = conf.model_copy(update={section: changed})
    wiring.reset()


# No django_db and no redis_server: these would fail if the database or Redis were asked.
@pytest.mark.parametrize("path", ["/health", "/health/"])
def test_health_needs_neither_database_nor_redis(client, path):
    response = client.get(path)
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("host", ["10.1.2.3:8080", "pod-7.svc", "[fd00::7]:8080", "no such host"])
def test_health_answers_under_any_host(client, host):
    assert client.get("/health", headers={"host": host}).status_code == 200


def test_health_answers_head(client):
    response = client.head("/health")
    assert (response.status_code, response.content) == (200, b"")


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics"])
def test_a_probe_takes_only_get(path):
    response = Client(enforce_csrf_checks=True).post(path)
    assert response.status_code == 405
    assert response["Allow"] == "GET, HEAD"
    assert "use GET" in api_client.error_of(response)


@pytest.mark.django_db
def test_a_fresh_installation_is_ready(client, redis_server):
    response = client.get("/ready", headers={"host": "10.1.2.3"})
    assert (response.status_code, documented(response)) == (200, READY)
    assert checks(response) == {
        "database": "ok",
        "redis": "ok",
        "sentinel": "disabled",
        "webhook": "ok",
    }


@pytest.mark.django_db
def test_without_redis_it_is_not_ready(client):
    response = client.get("/ready")
    assert response.status_code == 503
    assert documented(response) == READY | {"status": "not_ready", "redis": "error"}
    assert checks(response)["redis"].startswith("Redis does not answer: Error 111 connecting to")
    assert checks(response)["database"] == checks(response)["webhook"] == "ok"


@pytest.mark.django_db
def test_it_is_ready_again_when_redis_is_back(client, redis_server):
    redis_server.stop()
    assert client.get("/ready").status_code == 503
    redis_server.start()
    assert client.get("/ready").status_code == 200


@pytest.mark.django_db
def test_monitored_buckets_without_any_webhook_are_not_ready(client, redis_server):
    api_client.add_bucket(webhook_url="")
    response = client.get("/ready")
    assert response.status_code == 503
    assert documented(response) == READY | {"status": "not_ready", "webhook": "missing"}
    assert "READY_REQUIRE_WEBHOOK" in checks(response)["webhook"]


@pytest.mark.django_db
def test_one_webhook_is_enough(client, redis_server):
    api_client.add_bucket(webhook_url="")
    api_client.add_bucket("media-out")
    assert documented(client.get("/ready")) == READY


@pytest.mark.django_db
def test_a_bucket_that_is_not_monitored_needs_no_webhook(client, redis_server):
    api_client.add_bucket(webhook_url="", monitoring_enabled=False)
    assert documented(client.get("/ready")) == READY


@pytest.mark.django_db
def test_a_site_without_webhooks_can_say_so(client, redis_server, settings):
    _settings_with(settings, "ready", require_webhook=False)
    api_client.add_bucket(webhook_url="")
    assert documented(client.get("/ready")) == READY


@pytest.mark.django_db
def test_a_silent_sentinel_is_told_and_does_not_count(client, redis_server, settings):
    silent = {"sentinel_host": "127.0.0.1", "sentinel_port": 1}
    direct = {"url": None, "host": "127.0.0.1", "port": redis_server.port}
    _settings_with(settings, "redis", **silent, **direct)
    response = client.get("/ready")
    assert (response.status_code, documented(response)) == (200, READY | {"sentinel": "error"})
    assert "No sentinel answers" in response.json()["warnings"][0]
    assert "REDIS_SENTINEL_HOST" in checks(response)["sentinel"]


@pytest.mark.django_db
def test_what_redis_may_lose_is_told_and_does_not_count(client, redis_server):
    with redis_server.client() as redis:
        redis.config_set("save", "")
        response = client.get("/ready")
        assert (response.status_code, documented(response)) == (200, READY)
        assert "appendonly is off" in response.json()["warnings"][0]
        wiring.reset()
        redis.config_set("save", "3600 1")
        assert client.get("/ready").json()["warnings"] == []
        redis.config_set("save", "")


@pytest.mark.django_db
def test_without_the_database_it_is_not_ready_and_says_why(client, redis_server):
    with connection.execute_wrapper(_database_away):
        response = client.get("/ready")
    assert response.status_code == 503
    assert response.json()["status"] == "not_ready"
    assert "database" in api_client.error_of(response)
    assert checks(response)["database"] == api_client.error_of(response)
    assert checks(response)["redis"] == "ok"


def _database_away(*_: Any) -> NoReturn:
    raise OperationalError("connection refused")


SECTIONS = {
    "scan_stats": {
        "total_scans",
        "failed_scans",
        "total_objects_scanned",
        "total_new_objects",
        "total_updated_objects",
        "total_detected_objects",
        "total_deleted_objects",
        "errors",
        "last_scan_time",
        "success_rate",
    },
    "client_cache": {"cache_hits", "cache_misses", "total_clients"},
    "redis": {"queue_length", "queue_name"},
    "sentinel": {"status", "master", "slaves", "slave_count"},
    "buckets": {"total", "scanned"},
}


@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/html"])
def test_metrics_are_the_documented_sections(client, redis_server, accept):
    response = client.get("/metrics", headers={"accept": accept, "host": "10.1.2.3"})
    assert response.status_code == 200
    assert response["Content-Type"] == "application/json"
    body = response.json()
    for section, members in SECTIONS.items():
        assert members <= body[section].keys()


@pytest.mark.django_db(transaction=True)
def test_metrics_count_the_buckets(client, redis_server):
    api_client.add_bucket()
    assert client.get("/metrics").json()["buckets"] == {"total": 1, "scanned": 0}


def test_metrics_without_redis_say_so(client):
    response = client.get("/metrics")
    assert response.status_code == 503
    assert "Redis" in api_client.error_of(response)


def test_metrics_do_not_show_the_redis_password(client, settings):
    url = SecretStr("redis://:pass-word-of-redis@127.0.0.1:1/0")
    _settings_with(settings, "redis", url=url)
    assert "pass-word-of-redis" not in json.dumps(client.get("/metrics").json())
