"""Tokens: who gets one, and when it stops working."""

from datetime import timedelta
from typing import Any, cast

import pytest
from django.core.cache import cache
from django.test import Client
from django.utils import timezone
from pydantic import SecretStr
from rest_framework_simplejwt.tokens import AccessToken

from buckets.accounts import login_throttle
from buckets.api import auth
from buckets.models import ApiClient
from tests.support import api_client

pytestmark = pytest.mark.django_db

TOKEN = "/api/auth/token"
STATUS = "/api/bucket-notifications/status"


@pytest.fixture(autouse=True)
def _setup() -> None:
    api_client.use_fast_hashes()
    cache.clear()


def _login(client_id: str, secret: str) -> Any:
    body = {"client_id": client_id, "client_secret": secret}
    return api_client.Caller().post(TOKEN, body)


def _bearer(token: object) -> api_client.Caller:
    caller = api_client.Caller()
    caller.headers["Authorization"] = f"Bearer {token}"
    return caller


def test_id_and_secret_give_a_token_that_works():
    client, secret = api_client.new_client()
    response = _login(client.client_id, secret)
    assert response.status_code == 200
    assert response.json().keys() == {"access_token", "token_type", "expires_in"}
    assert response.json()["token_type"] == "Bearer"
    assert response.json()["expires_in"] == 86400
    assert response["Cache-Control"] == "no-store"
    assert _bearer(response.json()["access_token"]).get(STATUS).status_code == 200


def test_the_token_lives_as_long_as_it_says():
    client, _ = api_client.new_client()
    token = AccessToken(cast("Any", str(auth.token_for(client))))
    assert token["exp"] - token["iat"] == 86400


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        pytest.param("client_id={id}&client_secret={secret}", logins_form, id="form")
        for logins_form in ["application/x-www-form-urlencoded"]
    ]
    + [
        pytest.param(
            '{{"client_id": "{id}", "client_secret": "{secret}"}}', content_type, id=content_type
        )
        for content_type in ["application/json", "text/plain", "application/x-www-form-urlencoded"]
    ],
)
def test_the_token_route_takes_json_and_forms(body, content_type):
    client, secret = api_client.new_client()
    text = body.format(id=client.client_id, secret=secret)
    assert api_client.Caller().post(TOKEN, text, content_type).status_code == 200


@pytest.mark.parametrize(
    ("body", "named"),
    [
        pytest.param({}, ["client_id", "client_secret"], id="nothing"),
        pytest.param({"client_secret": "x"}, ["client_id"], id="no id"),
        pytest.param({"client_id": "x"}, ["client_secret"], id="no secret"),
        pytest.param({"client_id": "", "client_secret": "x"}, ["client_id"], id="empty"),
        pytest.param({"client_id": None, "client_secret": "x"}, ["client_id"], id="null"),
        pytest.param({"client_id": 7, "client_secret": "x"}, ["client_id"], id="a number"),
        pytest.param({"client_id": "a\0b", "client_secret": "x"}, ["client_id"], id="NUL"),
    ],
)
def test_a_login_without_what_it_needs_is_told_what(body, named):
    response = api_client.Caller().post(TOKEN, body)
    assert response.status_code == 400
    assert list(response.json()["fields"]) == named
    assert all(name in api_client.error_of(response) for name in named)


def test_wrong_unknown_and_disabled_look_the_same():
    client, secret = api_client.new_client()
    disabled, its_secret = api_client.new_client("another program")
    ApiClient.objects.filter(pk=disabled.pk).update(enabled=False)
    answers = [
        _login(client.client_id, "wrong"),
        _login("unknown", secret),
        _login(disabled.client_id, its_secret),
    ]
    assert {response.status_code for response in answers} == {401}
    assert len({response.content for response in answers}) == 1
    assert answers[0]["WWW-Authenticate"].startswith("Bearer")
    assert "client_secret" in api_client.error_of(answers[0])


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Basic YTpi", "Bearer a b", "Bearer nonsense", "Bearer é.é.é"],
)
def test_without_a_right_token_the_answer_is_401(header):
    response = api_client.Caller().get(
        STATUS, **({} if header is None else {"Authorization": header})
    )
    assert response.status_code == 401
    assert response["WWW-Authenticate"] == 'Bearer realm="bucketwatch"'
    assert "/api/auth/token" in api_client.error_of(response)


def test_an_expired_token_is_refused():
    client, _ = api_client.new_client()
    token = auth.token_for(client)
    token.set_exp(lifetime=timedelta(seconds=-1))
    response = _bearer(token).get(STATUS)
    assert response.status_code == 401
    assert "expired" in api_client.error_of(response)


@pytest.mark.parametrize("claim", ["exp", "iat", "nbf"])
@pytest.mark.parametrize("moment", [10**20, -(10**20), 1e308, "soon", [], None], ids=str)
def test_a_token_with_a_time_of_no_calendar_is_refused(claim, moment):
    client, _ = api_client.new_client()
    token = auth.token_for(client)
    token[claim] = moment
    response = _bearer(token).get(STATUS)
    # What was long ago, or is not said, is no reason to refuse, but for the end.
    assert response.status_code in ({401} if claim == "exp" else {200, 401})


def test_a_token_of_another_key_is_refused(settings):
    client, _ = api_client.new_client()
    head, payload, _ = str(auth.token_for(client)).split(".")
    assert _bearer(f"{head}.{payload}.{'A' * 43}").get(STATUS).status_code == 401


@pytest.mark.parametrize("named", [None, "media", "\0", 10**30, [1], {"id": 1}])
def test_a_token_that_another_program_signed_with_the_same_key_is_refused(named):
    client, _ = api_client.new_client()
    token = auth.token_for(client)
    token["client"] = named
    assert _bearer(token).get(STATUS).status_code == 401


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(lambda rows: rows.update(enabled=False), id="disabled"),
        pytest.param(lambda rows: rows.delete(), id="deleted"),
        pytest.param(lambda rows: rows.update(secret_hash="new"), id="new secret"),
    ],
)
def test_a_clients_tokens_end_with_it(end):
    client, _ = api_client.new_client()
    caller = api_client.Caller(client)
    assert caller.get(STATUS).status_code == 200
    end(ApiClient.objects.filter(pk=client.pk))
    response = caller.get(STATUS)
    assert response.status_code == 401
    assert "client" in api_client.error_of(response)


def test_a_client_made_again_does_not_inherit_tokens():
    client, _ = api_client.new_client(client_id="the-id", secret="the-secret-of-the-client")
    caller = api_client.Caller(client)
    client.delete()
    api_client.new_client(client_id="the-id", secret="the-secret-of-the-client")
    assert caller.get(STATUS).status_code == 401


def test_use_is_noted_at_most_once_a_minute(django_assert_num_queries):
    client, _ = api_client.new_client()
    caller = api_client.Caller(client)
    caller.get(STATUS)
    client.refresh_from_db()
    assert client.last_used_at is not None
    with django_assert_num_queries(2):  # the client, the list
        caller.get(STATUS)
    long_ago = timezone.now() - timedelta(minutes=2)
    ApiClient.objects.update(last_used_at=long_ago)
    caller.get(STATUS)
    client.refresh_from_db()
    assert client.last_used_at > long_ago


def test_the_configured_client_exists_from_its_first_login(settings):
    secret = "its-secret-value"
    given = {"api_client_id": "configured", "api_client_secret": SecretStr(secret)}
    settings.SITE = settings.SITE.model_copy(update=given)
    assert _login("configured", "wrong").status_code == 401
    assert _login("configured", secret).status_code == 200


def test_a_configured_secret_that_changed_counts_after_the_restart(settings):
    client, old = api_client.new_client(client_id="configured-before", secret="the-old-secret")
    caller = api_client.Caller(client)
    given = {"api_client_id": "configured-before", "api_client_secret": SecretStr("the-new-one")}
    settings.SITE = settings.SITE.model_copy(update=given)
    assert _login("configured-before", old).status_code == 401
    assert _login("configured-before", "the-new-one").status_code == 200
    assert caller.get(STATUS).status_code == 401


def test_no_client_is_configured_by_default():
    assert _login("default", "default-secret-key").status_code == 401
    assert not ApiClient.objects.exists()


def test_guessing_is_stopped_and_the_answer_says_for_how_long():
    client, secret = api_client.new_client()
    for _ in range(login_throttle.FAILURES_PER_NAME):
        assert _login(client.client_id, "wrong").status_code == 401
    response = _login(client.client_id, secret)
    assert response.status_code == 429
    assert response["Retry-After"] == str(login_throttle.WINDOW_S)
    assert "failed" in api_client.error_of(response)


def test_guessing_one_secret_does_not_lock_out_others():
    client, _ = api_client.new_client()
    other, its_secret = api_client.new_client("another program")
    for _ in range(login_throttle.FAILURES_PER_NAME + 1):
        _login(client.client_id, "wrong")
    assert _login(other.client_id, its_secret).status_code == 200


def test_guessing_over_many_ids_is_stopped_too():
    for n in range(login_throttle.FAILURES_PER_ADDRESS):
        assert _login(f"id-{n}", "wrong").status_code == 401
    assert _login("another-id", "wrong").status_code == 429


def test_behind_a_trusted_proxy_a_stranger_does_not_lock_out_others(settings):
    settings.SITE = settings.SITE.model_copy(update={"trusted_proxies": 1})
    client, secret = api_client.new_client()

    def log_in(secret: str, *, at: str) -> int:
        given = {"client_id": client.client_id, "client_secret": secret}
        headers = {"x-forwarded-for": at}
        return Client().post(TOKEN, given, "application/json", headers=headers).status_code

    for _ in range(login_throttle.FAILURES_PER_NAME):
        assert log_in("wrong", at="203.0.113.1") == 401
    assert log_in(secret, at="203.0.113.1") == 429
    assert log_in(secret, at="203.0.113.2") == 200


def test_right_logins_are_not_counted():
    client, secret = api_client.new_client()
    for _ in range(2 * login_throttle.FAILURES_PER_NAME):
        assert _login(client.client_id, secret).status_code == 200
