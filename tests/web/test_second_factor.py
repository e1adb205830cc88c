"""The second factor: asked for after the password, used once, and never in the database."""

import re
import time
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, User
from django.core.cache import cache
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.urls import reverse
from django_otp.oath import TOTP

from buckets import services
from buckets.models import SecondFactor
from tests.support import api_client

pytestmark = pytest.mark.django_db

LOGIN = reverse("admin:login")
INDEX = reverse("admin:index")
BUCKETS = reverse("admin:buckets_bucket_changelist")
PAGE = reverse("admin:second_factor")
PASSWORD = "correct-horse-battery"


@pytest.fixture(autouse=True)
def _setup() -> None:
    api_client.use_fast_hashes()
    cache.clear()


@pytest.fixture
def olga() -> User:
    return User.objects.create_user("olga", password=PASSWORD, is_staff=True, is_superuser=True)


@pytest.fixture
def factor(olga: User) -> Any:
    return SecondFactor.objects.create(user=olga)


def code_of(factor: SecondFactor, *, steps: int = 0) -> str:
    """What the app shows now, or so many half minutes later."""
    totp = TOTP(factor.key, drift=steps)
    totp.time = time.time()
    return f"{totp.token():06d}"


def wrong_code_of(factor: SecondFactor) -> str:
    near = {code_of(factor, steps=steps) for steps in (-2, -1, 0, 1, 2)}
    return next(f"{n:06d}" for n in range(9) if f"{n:06d}" not in near)


def logged_in(user: User) -> Client:
    """A browser in which the right password was given."""
    client = Client()
    client.post(LOGIN, {"username": user.username, "password": PASSWORD})
    return client


def is_asked(response: Any) -> bool:
    return bool(response.status_code == 302 and response["Location"].startswith(PAGE))


def errors_of(response: Any) -> str:
    return str(response.context["form"].errors)


# --- logging in


def test_without_a_second_factor_the_password_is_enough(olga):
    assert logged_in(olga).get(BUCKETS).status_code == 200


def test_with_one_the_password_opens_nothing(olga, factor):
    client = logged_in(olga)
    for path in (INDEX, BUCKETS, "/api/docs/", reverse("admin:password_change")):
        assert is_asked(client.get(path)), path
    assert is_asked(client.post(BUCKETS, {"action": "pause_monitoring"}))
    shown = str(client.get(PAGE).content, "utf-8")
    assert BUCKETS not in shown


def test_the_right_code_opens_what_was_wanted(olga, factor):
    client = logged_in(olga)
    page = client.get(BUCKETS, follow=True)
    response = client.post(PAGE, {"code": code_of(factor), "next": page.context["next"]})
    assert (response.status_code, response["Location"]) == (302, BUCKETS)
    assert client.get(BUCKETS).status_code == 200


def test_a_code_may_be_typed_with_a_blank_and_be_half_a_minute_old(olga, factor):
    code = code_of(factor, steps=-1)
    assert logged_in(olga).post(PAGE, {"code": f"{code[:3]} {code[3:]}"}).status_code == 302


@pytest.mark.parametrize("elsewhere", ["https://evil.example/", "//evil.example/", "javascript:1"])
def test_the_page_leads_nowhere_else(olga, factor, elsewhere):
    response = logged_in(olga).post(PAGE, {"code": code_of(factor), "next": elsewhere})
    assert response["Location"] == INDEX


def test_a_wrong_code_opens_nothing(olga, factor):
    client = logged_in(olga)
    response = client.post(PAGE, {"code": wrong_code_of(factor)})
    assert "not the code" in errors_of(response)
    assert is_asked(client.get(INDEX))


@pytest.mark.parametrize("code", ["", "abcdef", "٣٣٣٣٣٣", "-1", "1" * 11])
def test_what_is_no_code_is_refused_like_a_wrong_one(olga, factor, code):
    client = logged_in(olga)
    assert client.post(PAGE, {"code": code}).status_code == 200
    assert is_asked(client.get(INDEX))


def test_a_code_is_good_for_one_login(olga, factor):
    code = code_of(factor)
    assert logged_in(olga).post(PAGE, {"code": code}).status_code == 302
    assert "not the code" in errors_of(logged_in(olga).post(PAGE, {"code": code}))


def test_after_a_wrong_code_even_a_right_one_has_to_wait(olga, factor):
    client = logged_in(olga)
    for _ in range(5):
        client.post(PAGE, {"code": wrong_code_of(factor)})
    SecondFactor.objects.update(throttling_failure_count=5)
    response = client.post(PAGE, {"code": code_of(factor)})
    assert re.search(r"Try again in 1\d s", errors_of(response))


def test_nobody_who_knows_the_password_can_lock_its_owner_out_for_long(factor):
    SecondFactor.objects.update(throttling_failure_count=50)
    factor.refresh_from_db()
    factor.verify_token(wrong_code_of(factor))
    _, why = factor.verify_is_allowed()
    assert (why["locked_until"] - factor.throttling_failure_timestamp).total_seconds() <= 256


def test_the_session_gets_another_name_with_the_second_factor(olga, factor):
    client = logged_in(olga)
    before = client.cookies["sessionid"].value
    client.post(PAGE, {"code": code_of(factor)})
    assert client.cookies["sessionid"].value != before


def test_another_persons_code_is_no_use(olga, factor):
    oscar = User.objects.create_user("oscar", password=PASSWORD, is_staff=True)
    his = SecondFactor.objects.create(user=oscar)
    assert "not the code" in errors_of(logged_in(olga).post(PAGE, {"code": code_of(his)}))


def test_one_may_log_out_without_a_code(olga, factor):
    client = logged_in(olga)
    assert client.post(reverse("admin:logout")).status_code == 200
    assert client.get(PAGE)["Location"].startswith(LOGIN)


def test_programs_and_probes_are_not_asked(olga, factor, redis_server, settings):
    settings.SITE = settings.SITE.model_copy(update={"second_factor_required": True})
    client, _ = api_client.new_client()
    assert api_client.Caller(client).get("/api/v1/buckets/").status_code == 200
    assert logged_in(olga).get("/health").status_code == 200


# --- setting one up and removing it


def offered(client: Client) -> SecondFactor:
    """The app that the page offers to set up."""
    page = client.get(PAGE)
    assert page["Cache-Control"] == "max-age=0, no-cache, no-store, must-revalidate, private"
    user = User.objects.get(pk=client.session["_auth_user_id"])
    factor = SecondFactor(user=user, salt=client.session["second_factor_salt"])
    assert factor.key_to_type in page.context["app"]["key"].replace(" ", "")
    assert "<svg" in page.context["app"]["picture"]
    assert "style=" not in page.context["app"]["picture"]  # the browser would refuse it
    return factor


def test_a_person_sets_one_up_and_needs_it_from_then_on(olga):
    client = logged_in(olga)
    client.post(PAGE, {"code": code_of(offered(client))})
    assert client.get(BUCKETS).status_code == 200
    assert is_asked(logged_in(olga).get(BUCKETS))
    assert LogEntry.objects.get().get_change_message() == "Second factor set up"


def test_a_wrong_first_code_sets_nothing_up(olga):
    client = logged_in(olga)
    factor = offered(client)
    assert "not the code" in errors_of(client.post(PAGE, {"code": wrong_code_of(factor)}))
    assert not SecondFactor.objects.exists()
    assert offered(client).salt == factor.salt


def test_whoever_has_one_cannot_set_up_another_beside_it(olga, factor):
    other = SecondFactor(user=olga, salt="0" * 32)
    client = logged_in(olga)
    client.post(PAGE, {"code": code_of(other)})
    assert is_asked(client.get(INDEX))
    assert SecondFactor.objects.get() == factor


def test_removing_it_takes_a_code(olga, factor):
    client = logged_in(olga)
    client.post(PAGE, {"code": code_of(factor, steps=-1)})
    client.post(PAGE, {"code": wrong_code_of(factor)})
    assert SecondFactor.objects.exists()
    SecondFactor.objects.update(throttling_failure_count=0)
    client.post(PAGE, {"code": code_of(factor)})
    assert not SecondFactor.objects.exists()
    assert client.get(BUCKETS).status_code == 200


def test_where_it_is_required_nobody_gets_further_without_setting_one_up(olga, settings):
    settings.SITE = settings.SITE.model_copy(update={"second_factor_required": True})
    client = logged_in(olga)
    assert is_asked(client.get(BUCKETS))
    client.post(PAGE, {"code": code_of(offered(client))})
    assert client.get(BUCKETS).status_code == 200


# --- somebody has lost his app


def test_a_command_lets_somebody_in_again(olga, factor, capsys):
    call_command("resetsecondfactor", "olga")
    assert "olga" in capsys.readouterr().out
    assert logged_in(olga).get(BUCKETS).status_code == 200


def test_the_command_removes_everybodys_after_a_new_secret_key(olga, factor):
    call_command("resetsecondfactor", "--all")
    assert not SecondFactor.objects.exists()


def test_the_command_names_a_user_that_there_is_not(factor):
    with pytest.raises(CommandError, match="There is no user nobody"):
        call_command("resetsecondfactor", "olga", "nobody")
    assert SecondFactor.objects.exists()


def test_an_admin_removes_that_of_another_but_never_a_superusers(olga, factor):
    ada = User.objects.create_user("ada", password=PASSWORD, is_staff=True)
    ada.groups.add(Group.objects.get(name="admin"))
    oscar = User.objects.create_user("oscar", password=PASSWORD, is_staff=True)
    SecondFactor.objects.create(user=oscar)
    both = {"action": "remove_second_factors", "_selected_action": [olga.pk, oscar.pk]}
    logged_in(ada).post(reverse("admin:auth_user_changelist"), both)
    assert SecondFactor.objects.get().user == olga


# --- what is stored


def test_the_database_does_not_hold_the_key(olga):
    factor = services.set_up_second_factor(
        user=olga, salt="5a" * 16, code=code_of(SecondFactor(user=olga, salt="5a" * 16))
    )
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM buckets_secondfactor")
        stored = repr(cursor.fetchall())
    assert factor.key_to_type not in stored
    assert factor.key.hex() not in stored


def test_the_key_follows_from_secret_key_person_and_salt(olga, settings):
    oscar = User.objects.create_user("oscar")
    keys = {SecondFactor(user=user, salt=salt).key for user in (olga, oscar) for salt in "ab"}
    assert len(keys) == 4
    before = SecondFactor(user=olga, salt="a").key
    settings.SECRET_KEY = "another one"
    assert SecondFactor(user=olga, salt="a").key != before
