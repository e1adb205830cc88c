"""What the API answers while something it needs is away, and what it never lets out."""

import json
import logging
import shutil
import subprocess
from typing import Any, NoReturn

import pytest
from django.core.cache import cache
from django.db import OperationalError, connection

from buckets import selectors
from buckets.models import Bucket, Credential
from buckets.sync import outbox
from scanning import wiring
from tests.support import api_client

pytestmark = pytest.mark.django_db(transaction=True)

ADD, UPDATE, DELETE = "/api/buckets/add", "/api/buckets/update", "/api/buckets/delete"
STATUS = "/api/bucket-notifications/status"
DISABLE = "/api/bucket-notifications/disable"


@pytest.fixture
def caller() -> api_client.Caller:
    api_client.use_fast_hashes()
    cache.clear()
    client, _ = api_client.new_client()
    return api_client.Caller(client)


# Without the redis_server fixture there is no Redis.
@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        pytest.param(ADD, api_client.new_bucket_body(name="media-out"), 201, id="add"),
        pytest.param(UPDATE, {"name": "media-in", "polling_interval": 120}, 200, id="update"),
        pytest.param(f"{DELETE}?bucket=media-in", None, 200, id="delete"),
        pytest.param(f"{DISABLE}?bucket=media-in", None, 200, id="disable"),
    ],
)
def test_a_change_without_redis_succeeds_and_says_so(caller, path, body, status):
    api_client.add_bucket()
    response = caller.send("POST", path, body)
    assert response.status_code == status
    assert response.json()["status"] == "success"
    assert "Redis" in response.json()["note"]


def test_what_was_changed_without_redis_arrives_when_it_is_back(caller, redis_server):
    redis_server.stop()
    caller.post(ADD, api_client.new_bucket_body())
    redis_server.start()
    assert outbox.catch_up()
    assert "media-in" in wiring.background().bucket_configs.load().buckets


@pytest.fixture
def broken_vault(settings) -> None:
    """A vault file that cannot be read, with the buckets of before in the database."""
    api_client.add_bucket()
    vault_file = settings.DATA_DIR / "vault.enc"
    vault_file.unlink()
    vault_file.mkdir()
    wiring.reset()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param(ADD, api_client.new_bucket_body(name="media-out"), id="add"),
        pytest.param(UPDATE, {"name": "media-in", "access_key": "A", "secret_key": "S"}, id="keys"),
    ],
)
@pytest.mark.usefixtures("broken_vault")
def test_a_change_without_the_vault_is_refused_and_changes_nothing(caller, path, body):
    before = list(Bucket.objects.values()), list(Credential.objects.values())
    response = caller.send("POST", path, body)
    assert response.status_code == 503
    assert "vault" in api_client.error_of(response)
    assert (list(Bucket.objects.values()), list(Credential.objects.values())) == before


@pytest.mark.usefixtures("broken_vault")
def test_a_bucket_can_be_deleted_without_the_vault(caller):
    """Its keys go when the vault is back (`buckets/sync/vault_removals.py`)."""
    assert caller.post(f"{DELETE}?bucket=media-in").status_code == 200
    assert not Bucket.objects.exists()


@pytest.mark.usefixtures("broken_vault")
def test_notifications_can_be_switched_without_the_vault(caller):
    assert caller.post(f"{DISABLE}?bucket=media-in").status_code == 200


def test_without_the_database_the_answer_is_503(caller):
    with connection.execute_wrapper(_database_away):
        responses = [
            caller.get(STATUS),
            caller.post("/api/auth/token", {"client_id": "a", "client_secret": "b"}),
        ]
    assert [response.status_code for response in responses] == [503, 503]
    assert all("database" in api_client.error_of(response) for response in responses)


def _database_away(*_: Any) -> NoReturn:
    raise OperationalError("connection to postgres://user:pass-word@db failed")


def test_an_unexpected_error_is_logged_and_not_shown(caller, monkeypatch, caplog):
    def fail() -> NoReturn:
        raise RuntimeError("an internal detail")

    monkeypatch.setattr(selectors, "notification_status", fail)
    response = caller.get(STATUS)
    assert response.status_code == 500
    assert "internal detail" not in response.content.decode()
    assert "log" in api_client.error_of(response)
    assert "an internal detail" in caplog.text


def test_a_host_that_is_not_ours_gets_json_too(caller):
    response = caller.get(STATUS, Host="evil.example.com")
    assert response.status_code == 400
    assert "ALLOWED_HOSTS" in api_client.error_of(response)


SECRETS = {
    "access_key": "AKIA-SEEN-NOWHERE-1",
    "secret_key": "S3-SEEN-NOWHERE-2",
    "client_secret": "OAUTH-SEEN-NOWHERE-3",
}
OAUTH = {"client_id": "hook", "token_url": "https://auth.example.com/token"}


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"name": "Bad Name"}, id="name"),
        pytest.param({"name": ...}, id="no name"),
        pytest.param({"endpoint": "ftp://x"}, id="endpoint"),
        pytest.param({"token_url": "nowhere"}, id="token_url"),
        pytest.param({"polling_interval": "often"}, id="interval"),
        *(
            pytest.param({name: change(secret)}, id=f"{name} {change.__name__}")
            for name, secret in SECRETS.items()
            for change in (
                lambda secret: f"{secret} with a space",
                lambda secret: secret * 100,
                lambda secret: [secret],
                lambda secret: {secret: secret},
            )
        ),
    ],
)
def test_secrets_are_in_no_answer_and_in_no_log(caller, redis_server, caplog, broken):
    caplog.set_level(logging.DEBUG)
    body = api_client.new_bucket_body(**SECRETS | OAUTH | broken)
    seen = caller.post(ADD, body).content.decode()
    seen += caller.post(UPDATE, body).content.decode()
    seen += caller.post(ADD, json.dumps(body)[:-1]).content.decode()
    seen += caller.get(STATUS).content.decode() + caplog.text
    assert "SEEN-NOWHERE" not in seen


def test_a_status_of_5000_buckets_is_one_query(caller, django_assert_num_queries):
    credential = Credential.objects.create(name="shared", vault_prefix="SHARED")
    # No signals: nothing here is about Redis.
    Bucket.objects.bulk_create(
        Bucket(name=f"bucket-{n}", region="r", endpoint="r.example.com", credential=credential)
        for n in range(5000)
    )
    caller.get(STATUS)  # notes the client's use
    with django_assert_num_queries(2):  # the client, the list
        response = caller.get(STATUS)
    assert len(response.json()["buckets"]) == 5000


def test_enabling_asks_as_much_with_many_buckets_as_with_few(caller, redis_server):
    api_client.add_bucket()
    credential = Credential.objects.get()
    caller.post(f"{DISABLE}?bucket=media-in")
    few = _queries(lambda: caller.post(f"{DISABLE}?bucket=media-in"))
    Bucket.objects.bulk_create(
        Bucket(name=f"bucket-{n}", region="r", endpoint="r.example.com", credential=credential)
        for n in range(500)
    )
    assert _queries(lambda: caller.post(f"{DISABLE}?bucket=media-in")) == few


def _queries(action: Any) -> int:
    count = 0

    def counted(execute: Any, *arguments: Any) -> Any:
        nonlocal count
        count += 1
        return execute(*arguments)

    with connection.execute_wrapper(counted):
        assert action().status_code == 200
    return count


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_routes_work_from_curl(redis_server, live_server):
    """Without cookies, CSRF token, Content-Type or a slash at the end, as in docs/api.md."""
    api_client.use_fast_hashes()
    client, secret = api_client.new_client()
    url = live_server.url
    login = _curl(
        "-d", f"client_id={client.client_id}&client_secret={secret}", f"{url}/api/auth/token"
    )
    token = ("-H", f"Authorization: Bearer {login['access_token']}")
    added = _curl(*token, "-d", json.dumps(api_client.new_bucket_body()), f"{url}{ADD}")
    assert added["bucket"] == "media-in"
    assert _curl(*token, f"{url}{STATUS}")["buckets"][0]["name"] == "media-in"
    deleted = _curl(*token, "-X", "POST", f"{url}{DELETE}?bucket=media-in")
    assert deleted == {"status": "success", "message": "Bucket media-in deleted"}


def _curl(*arguments: str) -> Any:
    answer = subprocess.run(
        ["curl", "--silent", "--show-error", *arguments],
        capture_output=True,
        check=True,
        timeout=30,
    )
    return json.loads(answer.stdout)
