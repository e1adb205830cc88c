"""Logging in to the admin: guessing is slow, and nobody can be kept out by it."""

import logging
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core import signing
from django.core.cache import cache
from django.test import Client
from django.urls import reverse

from buckets.accounts import login_form, login_throttle
from tests.support import api_client

pytestmark = pytest.mark.django_db

LOGIN = reverse("admin:login")
PASSWORD = "correct-horse-battery"
OFFICE, STRANGER = "203.0.113.7", "198.51.100.66"


@pytest.fixture(autouse=True)
def _olga() -> None:
    api_client.use_fast_hashes()
    cache.clear()
    User.objects.create_user("olga", password=PASSWORD, is_staff=True)


def log_in(
    client: Client, password: str = PASSWORD, *, name: str = "olga", address: str = "127.0.0.1"
) -> Any:
    typed = {"username": name, "password": password}
    return client.post(LOGIN, typed, REMOTE_ADDR=address)


def guess(times: int, *, address: str = "127.0.0.1") -> None:
    """Send wrong passwords from browsers without any cookie."""
    for number in range(times):
        log_in(Client(), f"guess-{number}", address=address)


def is_in(answer: Any) -> bool:
    return bool(answer.status_code == 302)


def test_the_right_password_opens_the_admin(client):
    assert is_in(log_in(client))
    assert client.get(reverse("admin:index")).status_code == 200


def test_guessing_is_stopped_even_when_the_guess_is_right():
    guess(login_throttle.FAILURES_PER_NAME, address=STRANGER)
    answer = log_in(Client(), address=STRANGER)
    assert not is_in(answer)
    assert login_form.TOO_MANY_FAILURES in str(answer.content, "utf-8")


def test_an_operator_is_not_locked_out_by_a_stranger_elsewhere():
    guess(login_throttle.FAILURES_PER_NAME + 5, address=STRANGER)
    assert is_in(log_in(Client(), address=OFFICE))


def test_an_operator_whose_browser_is_known_is_not_locked_out_by_a_stranger_at_the_same_address():
    browser = Client()
    assert is_in(log_in(browser, address=OFFICE))
    browser.post(reverse("admin:logout"))
    for number in range(login_throttle.FAILURES_PER_ADDRESS + 1):
        log_in(Client(), "guess", name=f"name-{number}", address=OFFICE)
    guess(login_throttle.FAILURES_PER_NAME + 1, address=OFFICE)
    assert is_in(log_in(browser, address=OFFICE))


def test_a_known_browser_may_not_guess_either():
    browser = Client()
    log_in(browser)
    browser.post(reverse("admin:logout"))
    for _ in range(login_throttle.FAILURES_PER_NAME):
        log_in(browser, "wrong")
    assert not is_in(log_in(browser))


def test_a_known_browser_is_known_for_its_own_name_only():
    User.objects.create_user("oscar", password=PASSWORD, is_staff=True)
    browser = Client()
    log_in(browser, name="oscar")
    browser.post(reverse("admin:logout"))
    guess(login_throttle.FAILURES_PER_NAME)
    assert not is_in(log_in(browser))


@pytest.mark.parametrize(
    "cookie",
    ["", "nonsense", signing.dumps({"name": "olga"}, salt="other")],
    ids=["empty", "nonsense", "signed for something else"],
)
def test_a_made_up_cookie_makes_no_browser_known(cookie):
    guess(login_throttle.FAILURES_PER_NAME)
    browser = Client()
    browser.cookies["known_browser"] = cookie
    assert not is_in(log_in(browser))


def test_the_cookie_of_a_known_browser_goes_nowhere_but_to_the_login(client):
    cookie = log_in(client).cookies["known_browser"]
    assert (cookie["path"], cookie["httponly"], cookie["samesite"]) == (LOGIN, True, "Lax")


def test_a_failed_login_makes_no_browser_known(client):
    assert "known_browser" not in log_in(client, "wrong").cookies


def test_a_whole_network_of_ipv6_counts_as_one_address():
    for number in range(login_throttle.FAILURES_PER_NAME):
        log_in(Client(), "wrong", address=f"2001:db8:0:1::{number:x}")
    assert not is_in(log_in(Client(), address="2001:db8:0:1::ffff"))
    assert is_in(log_in(Client(), address="2001:db8:0:2::1"))


def test_names_and_passwords_are_neither_logged_nor_kept(caplog):
    caplog.set_level(logging.DEBUG)
    for _ in range(login_throttle.FAILURES_PER_NAME + 3):
        log_in(Client(), "hunter2", name="a-password-typed-as-name", address=STRANGER)
    lines = [
        record.getMessage()
        for record in caplog.records
        if record.name == "buckets.accounts.login_throttle"
    ]
    assert lines == [f"too many failed log-ins from {STRANGER}: it has to wait"]
    kept = repr(vars(cache)) + repr(cache._cache)  # type: ignore[attr-defined]
    assert "hunter2" not in caplog.text + kept
    assert "typed-as-name" not in kept
