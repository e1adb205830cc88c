"""`deploy/compose.yaml`: valid, strict with its containers, and what it runs works together."""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from cryptography.fernet import Fernet
from dotenv import dotenv_values

from bucketwatch.env import load_site, with_secret_files
from bucketwatch.local.environment import product_variables
from scanning.runtime.processes import STOP_S
from tests.support.deployment import DEPLOY, Postgres, Stack, compose
from tests.support.waiting import eventually

QUEUE = "linode:notifications:queue"
BUCKETWATCH = ("web", "monitor", "workers", "migrate")
SERVICES = compose()["services"]


def settings_of(service: str) -> dict[str, Any]:
    environment: dict[str, Any] = SERVICES[service]["environment"]
    return environment


# --- as it is written


@pytest.mark.parametrize("name", ["compose.yaml", "compose.infisical.yaml"])
def test_the_file_is_valid(name):
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*check, DEPLOY / name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_may_do_no_more_than_it_has_to(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert service.get("user", "10001:10001") not in {"0", "root"}  # the image's own is 10001


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"migrate"}))
def test_a_container_that_stays_has_a_limit_and_comes_back(name):
    assert SERVICES[name]["deploy"]["resources"]["limits"]["memory"]
    assert SERVICES[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_but_the_page_is_open_to_the_host(name):
    published = SERVICES[name].get("ports", [])
    assert published == (["${BUCKETWATCH_PUBLISH:-127.0.0.1:8080}:8080"] if name == "web" else [])


@pytest.mark.parametrize("name", BUCKETWATCH)
def test_every_setting_is_one_that_bucketwatch_reads(name):
    assert settings_of(name).keys() <= product_variables()
    infisical = compose("compose.infisical.yaml")["services"][name]["environment"]
    assert infisical.keys() <= product_variables()


def test_the_example_of_env_holds_settings_that_bucketwatch_or_compose_read():
    text = (DEPLOY / ".env.example").read_text().replace("#", "").splitlines()
    named = {line.partition("=")[0] for line in text if line[:1].isupper() and "=" in line}
    names = {name for name in named if " " not in name}
    assert "ALLOWED_HOSTS" in names
    assert names <= product_variables() | {"BUCKETWATCH_IMAGE", "BUCKETWATCH_PUBLISH"}
    assert dotenv_values(DEPLOY / ".env.example")["BUCKETWATCH_IMAGE"] == "bucketwatch:0.1.0"


@pytest.mark.parametrize("name", BUCKETWATCH)
def test_bucketwatch_has_the_time_that_it_takes_to_stop(name):
    assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) > STOP_S


@pytest.mark.parametrize("files", [(), ("compose.infisical.yaml",)])
def test_every_secret_that_is_read_is_mounted(files):
    for name, service in compose(*files)["services"].items():
        read = {
            value.removeprefix("/run/secrets/")
            for value in service.get("environment", {}).values()
            if value.startswith("/run/secrets/")
        }
        assert read <= set(service.get("secrets", ())), name


# --- secrets


@pytest.fixture
def made(tmp_path):
    shutil.copy(DEPLOY / "make-secrets.sh", tmp_path)
    subprocess.run(["sh", "make-secrets.sh"], cwd=tmp_path, check=True)
    return tmp_path / "secrets"


def test_the_secrets_that_are_made_are_those_that_compose_mounts(made):
    files = {secret["file"] for secret in compose()["secrets"].values()}
    assert {f"./secrets/{path.name}" for path in made.iterdir()} == files


def test_bucketwatch_takes_the_secrets_that_are_made(made):
    files = {k: v.replace("/run/secrets", str(made)) for k, v in settings_of("web").items()}
    site = load_site(with_secret_files(files))
    assert len(site.secret_key.get_secret_value()) >= 50
    assert site.vault_key is not None
    Fernet(site.vault_key.get_secret_value())
    assert site.database_url is not None
    password = (made / "postgres_password").read_text().strip()
    assert f":{password}@postgres/" in site.database_url.get_secret_value()


def test_other_users_of_the_host_cannot_reach_the_secrets_and_containers_can(made):
    assert made.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in made.iterdir()} == {0o644}


def test_secrets_that_are_there_stay_as_they_are(made):
    before = {path.name: path.read_text() for path in made.iterdir()}
    (made / "redis_password").unlink()
    subprocess.run(["sh", "make-secrets.sh"], cwd=made.parent, check=True)
    after = {path.name: path.read_text() for path in made.iterdir()}
    assert after.pop("redis_password") != before.pop("redis_password")
    assert after == before


# --- as it runs


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    if not Postgres.is_installed():
        pytest.skip("NO TEST WITH POSTGRESQL: it is not installed here")
    server = Postgres()
    yield server
    server.stop()


@pytest.fixture
def stack(tmp_path, postgres) -> Iterator[Stack]:
    stack = Stack(
        tmp_path,
        database_port=postgres.port,
        API_CLIENT_ID="importer",
        API_CLIENT_SECRET="the-importers-secret",
        POLLING_INTERVAL="2",
        SECURITY_ALLOW_PRIVATE_ENDPOINTS="true",
    )
    postgres.start((tmp_path / "secrets/postgres_password").read_text().strip())
    yield stack
    stack.stop()


def ask(stack: Stack, path: str, body: Any = None, token: str = "") -> Any:
    request = urllib.request.Request(stack.url + path)
    request.add_header("Authorization", f"Bearer {token}")
    request.data = json.dumps(body).encode() if body else None
    with closing(urllib.request.urlopen(request, timeout=30)) as answer:
        return json.load(answer)


def ready(stack: Stack) -> bool:
    try:
        answer = ask(stack, "/ready")
    except OSError:
        return False
    return bool(answer == answer | {"status": "ready", "sentinel": "ok"})


def announced(stack: Stack, key: str) -> bool:
    with stack.client(stack.master()) as client:
        return key in [json.loads(text)["key"] for text in client.lrange(QUEUE, 0, -1)]


@pytest.mark.processes
@pytest.mark.timeout(300)
def test_its_services_watch_a_bucket_survive_a_failover_and_stop_in_time(stack, s3_server):
    stack.start_redis()
    assert stack.start("migrate").process.wait(120) == 0
    programs = [stack.start(name) for name in ("web", "monitor", "workers")]
    eventually(lambda: ready(stack), timeout=90)
    # A master waits for seconds before it sends replicas its data, so they are not online at once.
    eventually(lambda: ask(stack, "/ready")["warnings"] == [])
    health = [sys.executable, *SERVICES["web"].get("healthcheck", {}).get("test", [])[1:]]
    assert len(health) == 1  # the image's own: tests/deploy/test_dockerfile.py

    bucket = s3_server.bucket()
    login = {"client_id": "importer", "client_secret": "the-importers-secret"}
    token = ask(stack, "/api/auth/token", login)["access_token"]
    added = {
        "name": bucket,
        "endpoint": s3_server.url,
        "access_key": s3_server.access_key,
        "secret_key": s3_server.secret_key,
        "webhook_url": "https://api.example.com/hook",
    }
    ask(stack, "/api/buckets/add", added, token)
    s3_server.put(bucket, "before.txt")
    eventually(lambda: announced(stack, "before.txt"))

    first = stack.master()
    stack.kill_node(first)
    eventually(lambda: stack.master() != first)
    s3_server.put(bucket, "after.txt")
    eventually(lambda: announced(stack, "after.txt"))
    stack.start_node(first)

    for program in programs:
        os.kill(program.process.pid, signal.SIGTERM)
    assert [program.process.wait(STOP_S + 6) for program in programs] == [0, 0, 0], [
        program.output()[-2000:] for program in programs
    ]
