"""Every documented /api route with every documented answer: the wire contract, as a table."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from django.core.cache import cache

from buckets import services
from buckets.models import Bucket, Credential
from scanning import wiring
from tests import api

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def caller(redis_server):
    api.use_fast_hashes()
    cache.clear()
    client, _ = api.new_client()
    return api.Caller(client)


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
    """One request and its answer. ``members``: all that a success has; ``named``: what the error names."""

    id: str
    method: str
    path: str
    status: int
    body: Any = None
    exactly: dict[str, Any] | None = None
    members: set[str] = field(default_factory=set)
    named: tuple[str, ...] = ()


def _new(**changes: Any) -> dict[str, Any]:
    return api.new_bucket_body(**{"name": "media-out"} | changes)


# `media-in` exists; `media-out` does not.
ADDED = {"status", "message", "bucket", "note"}
CASES = [
    Case(
        "status",
        "GET",
        STATUS,
        200,
        exactly={
            "buckets": [
                {"name": "media-in", "notifications_enabled": True, "webhook_url": api.WEBHOOK_URL}
            ]
        },
    ),
    *(
        case
        for path, word in ((ENABLE, "enabled"), (DISABLE, "disabled"))
        for case in (
            Case(
                f"{word}",
                "POST",
                f"{path}?bucket=media-in",
                200,
                exactly={"status": "success", "bucket": "media-in", "notifications": word},
            ),
            Case(f"{word}: no bucket", "POST", path, 400, named=("bucket",)),
            Case(f"{word}: empty bucket", "POST", f"{path}?bucket=", 400, named=("bucket",)),
            Case(f"{word}: unknown", "POST", f"{path}?bucket=nobody", 404, named=("nobody",)),
            Case(f"{word}: NUL", "POST", f"{path}?bucket=a%00b", 404, named=("bucket",)),
        )
    ),
    Case("add: endpoint", "POST", ADD, 201, _new(), members=ADDED),
    Case("add: region", "POST", ADD, 201, _new(endpoint=..., region="us-iad-1"), members=ADDED),
    Case("add: both", "POST", ADD, 201, _new(region="us-iad-1"), members=ADDED),
    Case(
        "add: local server", "POST", ADD, 201, _new(endpoint="http://127.0.0.1:9000"), members=ADDED
    ),
    Case("add: OAuth", "POST", ADD, 201, _new(**OAUTH), members=ADDED),
    Case(
        "add: options",
        "POST",
        ADD,
        201,
        _new(polling_interval=300, fetch_metadata=False, notifications_enabled=False),
        members=ADDED,
    ),
    Case("add: nulls", "POST", ADD, 201, _new(region=None, polling_interval=None), members=ADDED),
    Case("add: unknown member", "POST", ADD, 201, _new(colour="red"), members=ADDED),
    *(
        Case(f"add: no {name}", "POST", ADD, 400, _new(**{name: ...}), named=(name,))
        for name in ("name", "access_key", "secret_key", "webhook_url")
    ),
    *(
        Case(f"add: empty {name}", "POST", ADD, 400, _new(**{name: ""}), named=(name,))
        for name in ("name", "access_key", "secret_key", "webhook_url")
    ),
    *(
        Case(f"add: {name} is a number", "POST", ADD, 400, _new(**{name: 7}), named=(name, "text"))
        for name in ("name", "access_key", "secret_key", "webhook_url", "endpoint", "region")
    ),
    Case("add: nothing", "POST", ADD, 400, {}, named=("name", "access_key", "secret_key")),
    Case("add: no body", "POST", ADD, 400, b"", named=("name",)),
    Case(
        "add: no endpoint and no region",
        "POST",
        ADD,
        400,
        _new(endpoint=...),
        named=("region", "endpoint"),
    ),
    Case("add: bad name", "POST", ADD, 400, _new(name="Media_Out"), named=("name", "lower-case")),
    Case("add: bad endpoint", "POST", ADD, 400, _new(endpoint="ftp://x/y"), named=("endpoint",)),
    Case("add: bad webhook", "POST", ADD, 400, _new(webhook_url="nowhere"), named=("webhook_url",)),
    *(
        Case(
            f"add: OAuth without {name}",
            "POST",
            ADD,
            400,
            _new(**OAUTH | {name: ...}),
            named=(name,),
        )
        for name in OAUTH
    ),
    *(
        Case(
            f"add: interval {value!r}",
            "POST",
            ADD,
            400,
            _new(polling_interval=value),
            named=("polling_interval",),
        )
        for value in ("60", "often", 1.5, True, 0, -1, 604801, 10**30)
    ),
    Case(
        "add: switch",
        "POST",
        ADD,
        400,
        _new(fetch_metadata="yes"),
        named=("fetch_metadata", "true"),
    ),
    Case("add: exists", "POST", ADD, 409, _new(name="media-in"), named=("media-in",)),
    Case("add: not JSON", "POST", ADD, 400, b"{name: media}", named=("JSON", "line 1")),
    Case("add: not UTF-8", "POST", ADD, 400, b'{"name": "\xff\xfe"}', named=("JSON",)),
    Case("add: too deep", "POST", ADD, 400, b"[" * 50_000, named=("JSON",)),
    Case("add: not an object", "POST", ADD, 400, ["media-in"], named=("object",)),
    Case("add: too large", "POST", ADD, 413, b" " * 100_000, named=("bytes",)),
    Case("add: surrogate", "POST", ADD, 400, b'{"name": "\\ud800"}', named=("name",)),
    Case("update: interval", "POST", UPDATE, 200, {"name": "media-in", "polling_interval": 120}),
    Case(
        "update: webhook",
        "POST",
        UPDATE,
        200,
        {"name": "media-in", "webhook_url": "https://b.example.com"},
    ),
    Case(
        "update: keys",
        "POST",
        UPDATE,
        200,
        {"name": "media-in", "access_key": "AK2", "secret_key": "SK2"},
    ),
    Case("update: OAuth", "POST", UPDATE, 200, {"name": "media-in"} | OAUTH),
    Case(
        "update: nothing known",
        "POST",
        UPDATE,
        200,
        {"name": "media-in", "colour": "red"},
        members={"status", "message", "note"},
    ),
    Case("update: no name", "POST", UPDATE, 400, {"polling_interval": 5}, named=("name",)),
    Case("update: unknown", "POST", UPDATE, 404, {"name": "nobody"}, named=("nobody",)),
    Case(
        "update: access_key alone",
        "POST",
        UPDATE,
        400,
        {"name": "media-in", "access_key": "AK2"},
        named=("secret_key",),
    ),
    Case(
        "update: secret_key alone",
        "POST",
        UPDATE,
        400,
        {"name": "media-in", "secret_key": "SK2"},
        named=("access_key",),
    ),
    Case(
        "update: bad interval",
        "POST",
        UPDATE,
        400,
        {"name": "media-in", "polling_interval": "x"},
        named=("polling_interval",),
    ),
    Case(
        "update: bad endpoint",
        "POST",
        UPDATE,
        400,
        {"name": "media-in", "endpoint": "a/b"},
        named=("endpoint",),
    ),
    Case(
        "update: part of OAuth",
        "POST",
        UPDATE,
        400,
        {"name": "media-in", "client_id": "x"},
        named=("client_secret", "token_url"),
    ),
    Case("update: not JSON", "POST", UPDATE, 400, b"name=media-in", named=("JSON",)),
    Case("delete", "POST", f"{DELETE}?bucket=media-in", 200, members={"status", "message"}),
    Case("delete: no bucket", "POST", DELETE, 400, named=("bucket",)),
    Case("delete: unknown", "POST", f"{DELETE}?bucket=nobody", 404, named=("nobody",)),
    *(
        Case(f"wrong method: {path}", method, path, 405, named=(method,))
        for path, method in (
            (STATUS, "POST"),
            (ENABLE, "GET"),
            (DISABLE, "GET"),
            (ADD, "GET"),
            (UPDATE, "GET"),
            (DELETE, "GET"),
            ("/api/auth/token", "GET"),
        )
    ),
    *(
        Case(f"no route: {path}", method, path, 404, named=("route",))
        for path in ("/api", "/api/", "/api/nothing", "/api/buckets", "/api/buckets/add/more")
        for method in ("GET", "POST")
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_contract(caller, case):
    api.add_bucket("media-in")
    response = caller.send(case.method, case.path, case.body)
    assert response.status_code == case.status, response.content
    if case.status >= 400:
        error = api.error_of(response)
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
    api.add_bucket()
    response = api.Caller().send(method, path, {"name": "media-in"} if method == "POST" else None)
    assert response.status_code == 401
    assert "Authorization" in api.error_of(response)
    assert Bucket.objects.get().notifications_enabled


@pytest.mark.parametrize(("method", "path"), TOKEN_ROUTES)
def test_a_slash_at_the_end_changes_nothing(caller, method, path):
    api.add_bucket()
    route, _, query = path.partition("?")
    bodies = {ADD: api.new_bucket_body(name="media-out"), UPDATE: {"name": "media-in"}}
    response = caller.send(method, f"{route}/?{query}", bodies.get(route))
    assert response.status_code in {200, 201}


def test_two_whose_vault_names_collide_are_told_apart(caller):
    services.add_credential(name="MEDIA_IN", access_key=api.ACCESS_KEY, secret_key=api.SECRET_KEY)
    response = caller.post(ADD, api.new_bucket_body())
    assert response.status_code == 400
    assert list(response.json()["fields"]) == ["name"]
    assert "MEDIA_IN_ACCESS_KEY" in api.error_of(response)


def test_added_is_in_the_database_in_redis_and_in_the_vault(caller):
    caller.post(ADD, api.new_bucket_body(polling_interval=300, fetch_metadata=False))
    bucket = Bucket.objects.get(name="media-in")
    assert (bucket.polling_interval, bucket.fetch_metadata) == (300, False)
    assert wiring.configuration().load().buckets["media-in"].polling_interval_s == 300
    pair = wiring.vault().read_all()["MEDIA_IN"]
    assert (pair.access_key, pair.secret_key) == (api.ACCESS_KEY, api.SECRET_KEY)


def test_the_note_says_when_the_first_scan_is(caller):
    response = caller.post(ADD, api.new_bucket_body(polling_interval=300))
    assert "300 seconds" in response.json()["note"]
    assert response.json()["bucket"] == "media-in"


def test_updated_keys_are_in_the_vault(caller):
    api.add_bucket()
    body = {"name": "media-in", "access_key": "AK-NEW", "secret_key": "SK-NEW"}
    assert caller.post(UPDATE, body).status_code == 200
    assert wiring.vault().read_all()["MEDIA_IN"].secret_key == "SK-NEW"


def test_null_gives_the_default_interval_back_and_changes_nothing_else(caller):
    api.add_bucket(polling_interval=300)
    caller.post(UPDATE, {"name": "media-in", "polling_interval": None, "webhook_url": None})
    bucket = Bucket.objects.get()
    assert (bucket.polling_interval, bucket.webhook_url) == (None, api.WEBHOOK_URL)


def test_what_update_does_not_know_is_named_in_a_note(caller):
    api.add_bucket()
    note = caller.post(UPDATE, {"name": "media-in", "polling": 5}).json()["note"]
    assert "polling_interval" in note


def test_part_of_a_webhooks_oauth_can_change_alone(caller):
    api.add_bucket(
        webhook_client_id="hook", webhook_client_secret="one", webhook_token_url=OAUTH["token_url"]
    )
    response = caller.post(UPDATE, {"name": "media-in", "client_id": "other"})
    assert response.status_code == 200
    assert Bucket.objects.get().webhook_client_id == "other"


def test_deleted_is_gone_everywhere(caller):
    api.add_bucket()
    caller.post(f"{DELETE}?bucket=media-in")
    assert not Bucket.objects.exists()
    assert not Credential.objects.exists()
    assert "media-in" not in wiring.configuration().load().buckets
    assert "MEDIA_IN" not in wiring.vault().read_all()


def test_switched_off_is_in_the_status_and_in_redis(caller, redis_server):
    api.add_bucket()
    flag = "linode:objstore:config:media-in:notifications_disabled"
    with redis_server.client() as redis:
        caller.post(f"{DISABLE}?bucket=media-in")
        assert not caller.get(STATUS).json()["buckets"][0]["notifications_enabled"]
        assert redis.exists(flag)
        caller.post(f"{ENABLE}?bucket=media-in")
        assert caller.get(STATUS).json()["buckets"][0]["notifications_enabled"]
        assert not redis.exists(flag)
