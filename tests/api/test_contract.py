"""Every documented /api route with every documented answer: the wire contract, as a table."""

from dataclasses import dataclass
from typing import Any

import pytest
from django.core.cache import cache

from buckets import services
from buckets.models import Bucket, Credential
from scanning import wiring
from tests.support import api_client

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def caller(redis_server):
    api_client.use_fast_hashes()
    cache.clear()
    client, _ = api_client.new_client()
    return api_client.Caller(client)


ADD, UPDATE, DELETE = "/api/buckets/add", "/api/buckets/update", "/api/buckets/delete"
STATUS = "/api/bucket-notifications/status"
ENABLE, DISABLE = "/api/bucket-notifications/enable", "/api/bucket-notifications/disable"
OAUTH = {
    "client_id": "hook-client",
    "client_secret": "hook-client-secret",
    "token_url": "https://auth.example.com/token",
}


@dataclass(frozen=True)
class Case:
    """One request and its answer: all of a success, or what the error of a refusal names."""

    title: str
    method: str
    path: str
    body: Any
    status: int
    exactly: dict[str, Any] | None = None
    members: frozenset[str] = frozenset()
    named: tuple[str, ...] = ()


def done(title: str, path: str, body: Any = None, status: int = 200, **expected: Any) -> Case:
    return Case(title, "GET" if path == STATUS else "POST", path, body, status, **expected)


def added(title: str, **changes: Any) -> Case:
    members = frozenset({"status", "message", "bucket", "note"})
    return done(f"add {title}", ADD, _new(**changes), 201, members=members)


def updated(title: str, **changes: Any) -> Case:
    members = frozenset({"status", "message"})
    return done(f"update {title}", UPDATE, {"name": "media-in"} | changes, members=members)


def refused(title: str, path: str, body: Any, status: int, *named: str) -> Case:
    return Case(title, "POST", path, body, status, named=named)


def not_added(title: str, *named: str, **changes: Any) -> Case:
    return refused(f"add {title}", ADD, _new(**changes), 400, *named)


def not_updated(title: str, *named: str, **changes: Any) -> Case:
    return refused(f"update {title}", UPDATE, {"name": "media-in"} | changes, 400, *named)


def _new(**changes: Any) -> dict[str, Any]:
    return api_client.new_bucket_body(**{"name": "media-out"} | changes)


def _switching(path: str, word: str) -> list[Case]:
    success = {"status": "success", "bucket": "media-in", "notifications": word}
    return [
        done(word, f"{path}?bucket=media-in", exactly=success),
        refused(f"{word} without bucket", path, None, 400, "bucket"),
        refused(f"{word} with an empty bucket", f"{path}?bucket=", None, 400, "bucket"),
        refused(f"{word} with an unknown bucket", f"{path}?bucket=nobody", None, 404, "nobody"),
        refused(f"{word} with NUL", f"{path}?bucket=a%00b", None, 404, "bucket"),
    ]


LISTED = {"name": "media-in", "notifications_enabled": True, "webhook_url": api_client.WEBHOOK_URL}
REQUIRED = ("name", "access_key", "secret_key", "webhook_url")
INTERVALS = ("60", "often", 1.5, True, 0, -1, 604801, 10**30)
ROUTES = {STATUS: "POST", ENABLE: "GET", DISABLE: "GET", ADD: "GET", UPDATE: "GET", DELETE: "GET"}
NO_ROUTES = ("/api", "/api/", "/api/nothing", "/api/buckets", "/api/buckets/add/more")

# `media-in` exists; `media-out` does not.
CASES = [
    done("status", STATUS, exactly={"buckets": [LISTED]}),
    *_switching(ENABLE, "enabled"),
    *_switching(DISABLE, "disabled"),
    added("with an endpoint"),
    added("with a region", endpoint=..., region="us-iad-1"),
    added("with both", region="us-iad-1"),
    added("on a local server", endpoint="http://127.0.0.1:9000"),
    added("with OAuth", **OAUTH),
    added("with options", polling_interval=9, fetch_metadata=False, notifications_enabled=False),
    added("with nulls", region=None, polling_interval=None),
    added("with an unknown member", colour="red"),
    *(not_added(f"without {name}", name, **{name: ...}) for name in REQUIRED),
    *(not_added(f"with empty {name}", name, **{name: ""}) for name in REQUIRED),
    *(
        not_added(f"with a number as {name}", name, "text", **{name: 7})
        for name in (*REQUIRED, "endpoint", "region")
    ),
    not_added("without endpoint and region", "region", "endpoint", endpoint=...),
    not_added("with a bad name", "name", "without s3://", name="Media Out"),
    not_added("with a bad endpoint", "endpoint", endpoint="ftp://x/y"),
    not_added("with a bad webhook", "webhook_url", webhook_url="nowhere"),
    *(not_added(f"with OAuth without {name}", name, **OAUTH | {name: ...}) for name in OAUTH),
    *(
        not_added(f"with interval {value!r}", "polling_interval", polling_interval=value)
        for value in INTERVALS
    ),
    not_added("with a switch as text", "fetch_metadata", "true", fetch_metadata="yes"),
    refused("add again", ADD, _new(name="media-in"), 409, "media-in"),
    refused("add nothing", ADD, {}, 400, *REQUIRED),
    refused("add without a body", ADD, b"", 400, *REQUIRED),
    refused("add what is not JSON", ADD, b"{name: media}", 400, "JSON", "line 1"),
    refused("add what is not UTF-8", ADD, b'{"name": "\xff\xfe"}', 400, "JSON"),
    refused("add what is too deep", ADD, b"[" * 50_000, 400, "JSON"),
    refused("add a list", ADD, ["media-in"], 400, "object"),
    refused("add half a character", ADD, b'{"name": "\\ud800"}', 400, "name"),
    refused("add too much", ADD, b" " * 100_000, 413, "bytes"),
    updated("the interval", polling_interval=120),
    updated("the webhook", webhook_url="https://b.example.com"),
    updated("the keys", access_key="AK2", secret_key="SK2"),
    updated("OAuth", **OAUTH),
    updated("the region", region="us-ord-1"),
    done(
        "update nothing known",
        UPDATE,
        {"name": "media-in", "colour": "red"},
        members=frozenset({"status", "message", "note"}),
    ),
    refused("update without name", UPDATE, {"polling_interval": 5}, 400, "name"),
    refused("update an unknown bucket", UPDATE, {"name": "nobody"}, 404, "nobody"),
    not_updated("access_key alone", "secret_key", access_key="AK2"),
    not_updated("secret_key alone", "access_key", secret_key="SK2"),
    not_updated("empty keys", "access_key", "secret_key", access_key="", secret_key=" "),
    not_updated("with a bad interval", "polling_interval", polling_interval="x"),
    not_updated("with a bad endpoint", "endpoint", endpoint="a/b"),
    not_updated("with part of OAuth", "client_secret", "token_url", client_id="x"),
    refused("update what is not JSON", UPDATE, b"name=media-in", 400, "JSON"),
    done("delete", f"{DELETE}?bucket=media-in", members=frozenset({"status", "message"})),
    refused("delete without bucket", DELETE, None, 400, "bucket"),
    refused("delete an unknown bucket", f"{DELETE}?bucket=nobody", None, 404, "nobody"),
    *(
        Case(f"{method} {path}", method, path, None, 405, named=(method,))
        for path, method in (ROUTES | {"/api/auth/token": "GET"}).items()
    ),
    *(
        Case(f"no route {method} {path}", method, path, None, 404, named=("route",))
        for path in NO_ROUTES
        for method in ("GET", "POST")
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
def test_the_contract(caller, case):
    api_client.add_bucket("media-in")
    response = caller.send(case.method, case.path, case.body)
    assert response.status_code == case.status, response.content
    if case.status >= 400:
        error = api_client.error_of(response)
        assert all(name in error for name in case.named), error
        return
    if case.exactly is not None:
        assert response.json() == case.exactly
    if case.members:
        assert response.json().keys() == case.members
    if case.path != STATUS:
        assert response.json()["status"] == "success"


TOKEN_ROUTES = [
    ("GET", STATUS),
    ("POST", f"{ENABLE}?bucket=media-in"),
    ("POST", f"{DISABLE}?bucket=media-in"),
    ("POST", ADD),
    ("POST", UPDATE),
    ("POST", f"{DELETE}?bucket=media-in"),
]


@pytest.mark.parametrize(("method", "path"), TOKEN_ROUTES)
def test_without_a_token_nothing_is_done(redis_server, method, path):
    api_client.add_bucket()
    response = api_client.Caller().send(
        method, path, {"name": "media-in"} if method == "POST" else None
    )
    assert response.status_code == 401
    assert "Authorization" in api_client.error_of(response)
    assert Bucket.objects.get().notifications_enabled


@pytest.mark.parametrize(("method", "path"), TOKEN_ROUTES)
def test_a_slash_at_the_end_changes_nothing(caller, method, path):
    api_client.add_bucket()
    route, _, query = path.partition("?")
    bodies = {ADD: api_client.new_bucket_body(name="media-out"), UPDATE: {"name": "media-in"}}
    response = caller.send(method, f"{route}/?{query}", bodies.get(route))
    assert response.status_code in {200, 201}


def test_two_whose_vault_names_collide_are_told_apart(caller):
    services.add_credential(
        name="MEDIA_IN", access_key=api_client.ACCESS_KEY, secret_key=api_client.SECRET_KEY
    )
    response = caller.post(ADD, api_client.new_bucket_body())
    assert response.status_code == 400
    assert list(response.json()["fields"]) == ["name"]
    assert "MEDIA_IN_ACCESS_KEY" in api_client.error_of(response)


def test_added_is_in_the_database_in_redis_and_in_the_vault(caller):
    caller.post(ADD, api_client.new_bucket_body(polling_interval=300, fetch_metadata=False))
    bucket = Bucket.objects.get(name="media-in")
    assert (bucket.polling_interval, bucket.fetch_metadata) == (300, False)
    assert wiring.background().bucket_configs.load().buckets["media-in"].polling_interval_s == 300
    pair = wiring.vault().read_all()["MEDIA_IN"]
    assert (pair.access_key, pair.secret_key) == (api_client.ACCESS_KEY, api_client.SECRET_KEY)


def test_the_note_says_when_the_first_scan_is(caller):
    response = caller.post(ADD, api_client.new_bucket_body(polling_interval=300))
    assert "300 seconds" in response.json()["note"]
    assert response.json()["bucket"] == "media-in"


def test_the_note_of_a_bucket_without_notifications_promises_none(caller):
    body = api_client.new_bucket_body(polling_interval=1, notifications_enabled=False)
    note = caller.post(ADD, body).json()["note"]
    assert note.startswith("The first scan begins within 1 second; it only remembers")


def test_updated_keys_are_in_the_vault(caller):
    api_client.add_bucket()
    body = {"name": "media-in", "access_key": "AK-NEW", "secret_key": "SK-NEW"}
    assert caller.post(UPDATE, body).status_code == 200
    assert wiring.vault().read_all()["MEDIA_IN"].secret_key == "SK-NEW"


def test_null_gives_the_default_interval_back_and_changes_nothing_else(caller):
    api_client.add_bucket(polling_interval=300)
    caller.post(UPDATE, {"name": "media-in", "polling_interval": None, "webhook_url": None})
    bucket = Bucket.objects.get()
    assert (bucket.polling_interval, bucket.webhook_url) == (None, api_client.WEBHOOK_URL)


def test_what_update_does_not_know_is_named_in_a_note(caller):
    api_client.add_bucket()
    note = caller.post(UPDATE, {"name": "media-in", "polling": 5}).json()["note"]
    assert "polling_interval" in note


def test_part_of_a_webhooks_oauth_can_change_alone(caller):
    api_client.add_bucket(
        webhook_client_id="hook", webhook_client_secret="one", webhook_token_url=OAUTH["token_url"]
    )
    response = caller.post(UPDATE, {"name": "media-in", "client_id": "other"})
    assert response.status_code == 200
    assert Bucket.objects.get().webhook_client_id == "other"


def test_deleted_is_gone_everywhere(caller):
    api_client.add_bucket()
    caller.post(f"{DELETE}?bucket=media-in")
    assert not Bucket.objects.exists()
    assert not Credential.objects.exists()
    assert "media-in" not in wiring.background().bucket_configs.load().buckets
    assert "MEDIA_IN" not in wiring.vault().read_all()


def test_switched_off_is_in_the_status_and_in_redis(caller, redis_server):
    api_client.add_bucket()
    flag = "linode:objstore:config:media-in:notifications_disabled"
    with redis_server.client() as redis:
        caller.post(f"{DISABLE}?bucket=media-in")
        assert not caller.get(STATUS).json()["buckets"][0]["notifications_enabled"]
        assert redis.exists(flag)
        caller.post(f"{ENABLE}?bucket=media-in")
        assert caller.get(STATUS).json()["buckets"][0]["notifications_enabled"]
        assert not redis.exists(flag)
