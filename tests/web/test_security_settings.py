"""What browsers and proxies are told in production: asked of the real web server."""

import ast
import http.client
import io
import logging
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.cookies import SimpleCookie
from pathlib import Path

import pytest
from django.contrib.auth.models import Group
from django.http import HttpResponse
from django.test import Client, RequestFactory

from bucketwatch.local.servers import LOOPBACK, free_port
from bucketwatch.middleware import ClientAddress
from tests.support.processes import ROOT, Program
from tests.support.waiting import eventually

HOST = "bucketwatch.example.com"
PRODUCTION = {
    "ALLOWED_HOSTS": HOST,
    "CSRF_TRUSTED_ORIGINS": f"https://{HOST}",
    "HTTPS_ONLY": "true",
    "TRUSTED_PROXIES": "1",
}
OVER_HTTPS = {"Host": HOST, "X-Forwarded-Proto": "https", "X-Forwarded-For": "203.0.113.7"}


class Web(Program):
    """The web server alone, as containers run it, with production settings."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        environ = PRODUCTION | {"DATA_DIR": str(directory)}
        arguments = ["-m", "gunicorn", "bucketwatch.wsgi", f"--bind={LOOPBACK}:{self.port}"]
        super().__init__(arguments, log=directory / "web.log", environ=environ)

    def get(self, path: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=30)
        connection.request("GET", path, headers=headers)
        return connection.getresponse()

    def answers(self) -> bool:
        try:
            return self.get("/health", {}).status == 200
        except OSError:
            assert self.process.poll() is None, self.output()
            return False


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    server = Web(tmp_path_factory.mktemp("web"))
    try:
        eventually(server.answers)
        yield server
    finally:
        server.clear_away()


def test_djangos_deployment_checks_have_nothing_to_say_about_production(tmp_path):
    done = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "DEBUG"],
        cwd=ROOT,
        env={**os.environ, **PRODUCTION, "DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "no issues" in done.stdout


def test_every_page_tells_the_browser_to_be_careful(web):
    answer = web.get("/admin/login/", OVER_HTTPS)
    assert answer.status == 200
    assert answer.headers["Strict-Transport-Security"] == "max-age=3600"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"


def test_cookies_travel_over_https_only_and_are_kept_from_scripts(web):
    answer = web.get("/admin/login/", OVER_HTTPS)
    cookies = SimpleCookie(answer.headers["Set-Cookie"])
    assert cookies
    for cookie in cookies.values():
        assert (cookie["secure"], cookie["httponly"], cookie["samesite"]) == (True, True, "Lax")


def test_http_is_redirected_to_https(web):
    answer = web.get("/admin/", OVER_HTTPS | {"X-Forwarded-Proto": "http"})
    assert answer.status == 301
    assert answer.headers["Location"] == f"https://{HOST}/admin/"


def test_another_host_is_refused(web):
    assert web.get("/admin/login/", OVER_HTTPS | {"Host": "evil.example.com"}).status == 400


@pytest.mark.parametrize("host", ["10.244.3.17:8080", "[fd00::1]:8080", "anything"])
def test_a_probe_by_the_address_of_a_pod_over_plain_http_is_answered(web, host):
    assert web.get("/health", {"Host": host}).status == 200


def test_on_a_machine_without_https_the_page_works_over_http(client):
    answer = client.get("/admin/login/")
    assert answer.status_code == 200
    assert "Strict-Transport-Security" not in answer
    assert not answer.cookies["csrftoken"]["secure"]


@pytest.mark.parametrize(
    ("size", "status"),
    [pytest.param(1_000_000, 200, id="in bounds"), pytest.param(1_100_000, 400, id="too large")],
)
@pytest.mark.django_db
def test_a_form_may_be_a_megabyte_long(size, status):
    answer = Client().post("/admin/login/", {"username": "a" * size})
    assert answer.status_code == status


# --- the database

WRITES = """
from django.conf import settings
from django.db import connection
connection.cursor().execute("CREATE TABLE written (a)")
print({path.name: oct(path.stat().st_mode & 0o777) for path in settings.DATA_DIR.iterdir()})
"""


@pytest.mark.parametrize("was_there", [False, True], ids=["new", "from before"])
def test_the_sqlite_files_are_for_their_owner_alone_wherever_they_are(tmp_path, was_there):
    tmp_path.chmod(0o755)
    file = tmp_path / "bucketwatch.sqlite3"
    with ExitStack() as stack:
        if was_there:
            before = stack.enter_context(closing(sqlite3.connect(file)))
            before.execute("PRAGMA journal_mode=WAL")
            before.execute("CREATE TABLE kept (a)")
            for path in tmp_path.iterdir():
                path.chmod(0o644)
        done = subprocess.run(
            [sys.executable, "manage.py", "shell", "-v0", "-c", WRITES],
            cwd=ROOT,
            env={**os.environ, "DATA_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    modes = ast.literal_eval(done.stdout)
    assert modes.keys() == {f"bucketwatch.sqlite3{end}" for end in ("", "-wal", "-shm")}
    assert set(modes.values()) == {"0o600"}


# --- refusals


@pytest.mark.django_db
def test_a_refused_address_to_go_on_to_leads_to_the_dashboard(client, django_user_model):
    django_user_model.objects.create_superuser("olga", password="correct-horse")
    form = {"username": "olga", "password": "correct-horse", "next": "https://evil.example.com/"}
    answer = client.post("/admin/login/", form)
    assert (answer.status_code, answer["Location"]) == (302, "/admin/")


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the console gets."""
    [console] = [h for h in logging.getLogger().handlers if h.name == "console"]
    assert isinstance(console, logging.StreamHandler)
    written = io.StringIO()
    before = console.setStream(written)
    yield written
    console.setStream(before)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        pytest.param("auth/user/", 403, id="not allowed"),
        pytest.param("buckets/bucket/?credential__vault_prefix=x", 400, id="not to be asked"),
        pytest.param("buckets/bucket/77/", 404, id="not there"),
    ],
)
@pytest.mark.django_db
def test_a_refusal_is_one_line_of_the_log(client, django_user_model, log, path, status):
    viewer = django_user_model.objects.create_user("vera", password="correct", is_staff=True)
    viewer.groups.add(Group.objects.get(name="viewer"))
    client.force_login(viewer)
    assert client.get(f"/admin/{path}").status_code == status
    lines = log.getvalue().splitlines()
    assert lines
    assert all(re.match(r"\d{4}-\d\d-\d\d ", line) for line in lines)


# --- whose address it is


@pytest.mark.parametrize(
    ("proxies", "forwarded", "expected"),
    [
        pytest.param(0, "203.0.113.7", "10.0.0.1", id="no proxy is trusted"),
        pytest.param(1, "203.0.113.7", "203.0.113.7", id="one"),
        pytest.param(1, "6.6.6.6, 203.0.113.7", "203.0.113.7", id="the client made one up"),
        pytest.param(2, "6.6.6.6, 203.0.113.7, 10.0.0.9", "203.0.113.7", id="two"),
        pytest.param(2, "203.0.113.7", "10.0.0.1", id="it came around the outer one"),
        pytest.param(1, "2001:DB8::7", "2001:db8::7", id="IPv6"),
        pytest.param(1, "unknown", "10.0.0.1", id="no address"),
        pytest.param(1, "", "10.0.0.1", id="empty"),
        pytest.param(1, None, "10.0.0.1", id="no header"),
    ],
)
def test_the_client_is_who_the_outermost_trusted_proxy_saw(settings, proxies, forwarded, expected):
    settings.SITE = settings.SITE.model_copy(update={"trusted_proxies": proxies})
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    request = RequestFactory().get("/", headers=headers, REMOTE_ADDR="10.0.0.1")
    ClientAddress(lambda _: HttpResponse())(request)
    assert request.META["REMOTE_ADDR"] == expected
