"""Hints over HTTP: who may give them, in which forms, and which watches then look where."""

import base64
import json
from typing import Any

import pytest
from django.core.cache import cache

from buckets import services
from buckets.api import auth
from buckets.models import Bucket
from scanning.core import redis_keys
from scanning.runtime.monitor import MultiRegionMonitor
from tests.support import api_client

pytestmark = pytest.mark.django_db(transaction=True)

HINTS = "/api/v1/hints/"
LATER = 9e9


@pytest.fixture(autouse=True)
def _fast(redis_server) -> None:
    api_client.use_fast_hashes()
    cache.clear()


@pytest.fixture
def caller() -> api_client.Caller:
    return api_client.Caller(api_client.new_client(scope="hint")[0])


@pytest.fixture
def watch(store):
    """Watch a bucket; the monitor schedules it, and no pass is due for long."""

    def add(name: str, **changes: Any) -> Bucket:
        bucket = api_client.add_bucket(name, **changes)
        MultiRegionMonitor(web=False, workers=False)._tick()
        for row in Bucket.objects.all():
            store.zadd(redis_keys.due(row.region), {row.name: LATER}, xx=True)
        return bucket

    return add


def looked_at(store: Any) -> dict[str, list[str]]:
    """The keys that each watch is to look at, of those that are due for a look."""
    found = {}
    for bucket in Bucket.objects.all():
        due = store.zscore(redis_keys.due(bucket.region), bucket.name)
        if due and due < LATER:
            pass_due, keys = store.hmget(redis_keys.bucket(bucket.name), "pass_due", "look_keys")
            assert float(pass_due) == LATER
            found[bucket.name] = json.loads(keys)
    return found


def record(bucket: str, key: str) -> dict[str, Any]:
    return {"s3": {"bucket": {"name": bucket}, "object": {"key": key}}}


def test_the_keys_of_a_hint_are_looked_at_before_the_pass(store, watch, caller):
    watch("media-in")
    answer = caller.post(HINTS, {"bucket": "media-in", "keys": ["a/b.mp4", "c.mp4"]})
    assert (answer.status_code, answer.json()) == (
        202,
        {"accepted": 2, "ignored": 0, "unknown": []},
    )
    assert looked_at(store) == {"media-in": ["a/b.mp4", "c.mp4"]}


def test_every_watch_that_covers_a_key_looks_at_it(store, watch, caller):
    """Two prefixes of one bucket, a bucket of that name at another endpoint, a paused watch."""
    watch("media-in", prefix="in/")
    watch("media-out", bucket_name="media-in", prefix="out/")
    watch("media-eu", bucket_name="media-in", endpoint="eu.example.com")
    watch("paused", bucket_name="media-in", endpoint="us.example.com", monitoring_enabled=False)
    watch("other")
    answer = caller.post(HINTS, {"bucket": "media-in", "keys": ["in/1", "out/2"]})
    assert answer.json() == {"accepted": 2, "ignored": 0, "unknown": []}
    assert looked_at(store) == {
        "media-in": ["in/1"],
        "media-out": ["out/2"],
        "media-eu": ["in/1", "out/2"],
    }


def test_what_nobody_looks_at_is_counted_and_unknown_buckets_are_named(store, watch, caller):
    watch("media-in", prefix="in/")
    watch("paused", monitoring_enabled=False)
    answer = caller.post(
        HINTS,
        [
            {"bucket": "media-in", "keys": ["in/1", "elsewhere"]},
            {"bucket": "paused", "keys": ["k"]},
            {"bucket": "nobody's", "keys": ["1", "2"]},
        ],
    )
    assert answer.status_code == 202
    assert answer.json() == {"accepted": 1, "ignored": 2, "unknown": ["nobody's"]}
    assert looked_at(store) == {"media-in": ["in/1"]}


def test_a_watch_is_hinted_at_by_the_name_that_s3_knows(store, watch, caller):
    watch("short", bucket_name="A_long.name")
    assert caller.post(HINTS, {"bucket": "short", "keys": ["k"]}).json()["unknown"] == ["short"]
    assert caller.post(HINTS, {"bucket": "A_long.name", "keys": ["k"]}).json()["accepted"] == 1


def test_an_encoded_key_is_looked_at_in_each_way_it_may_be_meant(store, watch, caller):
    watch("media-in", prefix="a b/")
    records = [record("media-in", "a+b/50%25.mp4")]
    assert caller.post(HINTS, {"Records": records}).json()["accepted"] == 1
    assert looked_at(store) == {"media-in": ["a b/50%.mp4"]}


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded"])
def test_the_claimed_content_type_does_not_matter(store, watch, caller, content_type):
    watch("media-in")
    body = json.dumps({"bucket": "media-in", "keys": ["k"]})
    assert caller.post(HINTS, body, content_type=content_type).status_code == 202
    assert looked_at(store) == {"media-in": ["k"]}


def test_a_cloud_event_in_headers_needs_no_body(store, watch, caller):
    watch("media-in")
    headers = {
        "Ce-Specversion": "1.0",
        "Ce-Type": "com.amazonaws.ObjectCreated:Put",
        "Ce-Source": "ceph:s3.default.media-in",
        "Ce-Subject": "a/b.mp4",
    }
    assert caller.post(HINTS, b"", **headers).json()["accepted"] == 1
    film = caller.post(HINTS, b"\x00\xff", content_type="video/mp4", **headers)
    assert film.json()["accepted"] == 1
    assert looked_at(store) == {"media-in": ["a/b.mp4"]}


@pytest.mark.parametrize(
    "body", [{"Event": "s3:TestEvent", "Bucket": "media-in"}, {"Records": []}, []]
)
def test_a_test_of_the_connection_is_answered_and_changes_nothing(store, watch, caller, body):
    watch("media-in")
    answer = caller.post(HINTS, body)
    assert (answer.status_code, answer.json()["accepted"]) == (200, 0)
    assert looked_at(store) == {}


@pytest.mark.parametrize(
    ("body", "member"),
    [
        pytest.param({"bucket": "media-in"}, "keys", id="no keys"),
        pytest.param({"bucket": 7, "keys": ["k"]}, "bucket", id="no name"),
        pytest.param({"Records": [{"s3": {}}]}, "Records", id="record"),
        pytest.param(b"", "__all__", id="no body"),
        pytest.param(b"{", "__all__", id="no JSON"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_looked_at(store, watch, caller, body, member):
    watch("media-in")
    answer = caller.post(HINTS, body)
    assert answer.status_code == 400
    assert list(answer.json()["fields"]) == [member]
    api_client.error_of(answer)
    assert looked_at(store) == {}


def test_a_body_that_is_too_large_is_refused(caller):
    answer = caller.post(HINTS, b"[" + b" " * 1_048_576)
    assert answer.status_code == 413
    assert "1048576" in api_client.error_of(answer)


def test_while_redis_is_away_a_hint_is_refused_so_that_it_is_sent_again(
    redis_server, watch, caller
):
    watch("media-in")
    redis_server.stop()
    assert caller.post(HINTS, {"bucket": "media-in", "keys": ["k"]}).status_code == 503


# --- budget


def test_a_client_that_used_up_its_budget_waits_and_others_do_not(watch, caller, settings):
    settings.SITE = settings.SITE.model_copy(update={"hints_per_minute": 3})
    watch("media-in")
    many = {"bucket": "media-in", "keys": ["1", "2", "3", "4"]}
    assert caller.post(HINTS, many).status_code == 202  # taken whole, the budget was not used up
    # Another minute may begin between two requests: then one more is taken.
    answers = [caller.post(HINTS, many) for _ in range(3)]
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert 1 <= int(refused["Retry-After"]) <= 61
    assert "HINTS_PER_MINUTE" in api_client.error_of(refused)
    other = api_client.Caller(api_client.new_client("another", scope="hint")[0])
    assert other.post(HINTS, many).status_code == 202


def test_without_a_budget_any_number_is_taken(watch, caller, settings):
    settings.SITE = settings.SITE.model_copy(update={"hints_per_minute": 0})
    watch("media-in")
    many = {"bucket": "media-in", "keys": list(map(str, range(50)))}
    assert [caller.post(HINTS, many).status_code for _ in range(3)] == [202] * 3


# --- servers that cannot ask for a token


def basic(client_id: str, secret: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()}


def give(headers: dict[str, str]) -> Any:
    return api_client.Caller().post(HINTS, {"bucket": "b", "keys": ["k"]}, **headers)


def test_a_server_may_send_id_and_secret_instead_of_a_token():
    client, secret = api_client.new_client(scope="hint")
    for _ in range(2):  # the second time it is remembered
        assert give(basic(client.client_id, secret)).status_code == 202
    client.refresh_from_db()
    assert client.last_used_at is not None


def test_a_secret_that_was_right_is_checked_once(monkeypatch):
    client, secret = api_client.new_client(scope="hint")
    checked = []
    check = auth.client_of_login

    def counted(**login: str) -> Any:
        checked.append(login["client_id"])
        return check(**login)

    monkeypatch.setattr(auth, "client_of_login", counted)
    assert [give(basic(client.client_id, secret)).status_code for _ in range(3)] == [202] * 3
    assert checked == [client.client_id]


@pytest.mark.parametrize(
    ("client_id", "secret"), [("?", "right"), ("right", "wrong"), ("a\0b", "right")]
)
def test_a_wrong_id_or_secret_is_refused(client_id, secret):
    client, right = api_client.new_client(scope="hint")
    answer = give(
        basic(
            client.client_id if client_id == "right" else client_id,
            right if secret == "right" else secret,
        )
    )
    assert answer.status_code == 401
    api_client.error_of(answer)


def test_a_client_that_is_disabled_or_gets_another_secret_is_refused_at_once():
    client, secret = api_client.new_client(scope="hint")
    headers = basic(client.client_id, secret)
    assert give(headers).status_code == 202
    services.update_api_client(client=client, name="x", scope="hint", enabled=False)
    assert give(headers).status_code == 401
    services.update_api_client(client=client, name="x", scope="hint", enabled=True)
    client.secret_hash = api_client.new_client("other")[0].secret_hash
    client.save()
    assert give(headers).status_code == 401


def test_guesses_at_secrets_have_to_wait():
    client, _ = api_client.new_client(scope="hint")
    answers = {give(basic(client.client_id, "guess")).status_code for _ in range(12)}
    assert answers == {401, 429}


def test_id_and_secret_open_no_other_route():
    client, secret = api_client.new_client(scope="manage")
    headers = basic(client.client_id, secret)
    assert api_client.Caller().get("/api/v1/buckets/", **headers).status_code == 401
