"""What viewers, operators and admins may do, and that nobody becomes more than he is."""

import re
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from buckets import audit, services
from buckets.accounts import roles
from buckets.models import Bucket
from tests.support import api_client

pytestmark = pytest.mark.django_db(transaction=True)

USERS = reverse("admin:auth_user_changelist")
BUCKETS = reverse("admin:buckets_bucket_changelist")
PASSWORD = "correct-horse-battery"


@pytest.fixture(autouse=True)
def _fast_hashes() -> None:
    api_client.use_fast_hashes()


def person(name: str, role: str | None = None, **fields: Any) -> User:
    user = User.objects.create_user(name, password=PASSWORD, is_staff=True, **fields)
    if role:
        user.groups.add(Group.objects.get(name=role))
    return user


def browser_of(role: str) -> Client:
    client = Client()
    client.force_login(person(f"a-{role}", role))
    return client


def change_url(row: Any) -> str:
    return reverse(f"admin:{row._meta.label_lower.replace('.', '_')}_change", args=[row.pk])


def buttons(response: Any) -> list[str]:
    """What can be pressed on a page to change something: not search, log-out and the theme."""
    page = str(response.content, "utf-8")
    main = page.split('id="content', 1)[1]
    forms = re.findall(r'<form [^>]*method="post".*?</form>', main, re.DOTALL)
    found = [tag for form in forms for tag in re.findall(r"<(?:input|button)\b[^>]*>", form)]
    return [tag for tag in found if "submit" in tag or tag.startswith("<button")]


# --- the groups


def permissions(name: str) -> set[str]:
    rows = Permission.objects.filter(group__name=name).select_related("content_type")
    return {f"{row.content_type.app_label}.{row.codename}" for row in rows}


@pytest.mark.parametrize("role", roles.ROLES)
def test_each_role_has_its_permissions_after_a_migration(role):
    assert permissions(role) == roles.ROLES[role]


def test_another_migration_changes_nothing_of_a_group_that_somebody_made():
    own = Group.objects.create(name="night shift")
    own.permissions.add(Permission.objects.get(codename="view_bucket"))
    call_command("migrate", verbosity=0)
    assert permissions("night shift") == {"buckets.view_bucket"}


def test_another_migration_puts_a_role_right_and_keeps_who_has_it():
    user = person("olga", "operator")
    Group.objects.get(name="operator").permissions.clear()
    call_command("migrate", verbosity=0)
    assert permissions("operator") == roles.OPERATOR
    assert list(user.groups.values_list("name", flat=True)) == ["operator"]


# --- what a role sees


def test_a_viewer_sees_buckets_and_nothing_to_press():
    bucket = api_client.add_bucket()
    viewer = browser_of("viewer")
    for url in (BUCKETS, change_url(bucket), change_url(bucket.credential)):
        response = viewer.get(url)
        assert response.status_code == 200
        assert "media-in" in str(response.content)
        assert "Secret key" not in str(response.content)
        assert buttons(response) == []
    assert 'name="action"' not in str(viewer.get(BUCKETS).content)


def test_an_operator_has_buttons_so_that_their_absence_means_something():
    bucket = api_client.add_bucket()
    operator = browser_of("operator")
    assert buttons(operator.get(change_url(bucket)))
    assert 'name="action"' in str(operator.get(BUCKETS).content)


@pytest.mark.parametrize(
    "path",
    [
        "buckets/apiclient/?secret_hash__startswith=m",
        "buckets/apiclient/?name=a&secret_hash__gt=m",
        "buckets/apiclient/?secret_hash=m",
        "auth/user/?password__startswith=m",
        "auth/user/?second_factor__salt__startswith=1",
        "auth/group/?user__password__startswith=m",
        "auth/group/?user__second_factor__salt__startswith=1",
        "buckets/credential/?buckets__webhook_url__startswith=h",
    ],
)
def test_what_no_page_shows_cannot_be_guessed_by_whether_a_row_is_listed(path):
    api_client.new_client()
    assert browser_of("admin").get(f"/admin/{path}").status_code == 400


@pytest.mark.parametrize(
    "path", ["buckets/bucket/add/", "buckets/apiclient/", "auth/user/", "auth/group/"]
)
def test_a_viewer_is_refused_everything_else(path):
    assert browser_of("viewer").get(f"/admin/{path}").status_code == 403


@pytest.mark.parametrize("action", ["pause_monitoring", "release_holds", "delete_selected"])
def test_a_viewer_cannot_act_by_sending_the_form_by_hand(action):
    bucket = api_client.add_bucket()
    body = {"action": action, "_selected_action": [bucket.pk], "post": "yes"}
    browser_of("viewer").post(BUCKETS, body)
    assert Bucket.objects.get().monitoring_enabled


@pytest.mark.parametrize("path", ["buckets/apiclient/", "auth/user/", "auth/group/"])
def test_an_operator_sees_neither_programs_nor_people(path):
    assert browser_of("operator").get(f"/admin/{path}").status_code == 403


def test_an_operator_adds_and_deletes_buckets():
    operator = browser_of("operator")
    assert operator.get(reverse("admin:buckets_bucket_add")).status_code == 200
    bucket = api_client.add_bucket()
    operator.post(reverse("admin:buckets_bucket_delete", args=[bucket.pk]), {"post": "yes"})
    assert not Bucket.objects.exists()


# --- people


def new_person(**changes: Any) -> dict[str, Any]:
    password = {"usable_password": "true", "password1": PASSWORD, "password2": PASSWORD}
    return {"username": "vera"} | password | changes


def test_an_admin_adds_people_with_a_role_who_can_log_in():
    viewer = Group.objects.get(name="viewer")
    browser_of("admin").post(reverse("admin:auth_user_add"), new_person(groups=[viewer.pk]))
    assert User.objects.get(username="vera").is_staff
    client = Client()
    client.login(username="vera", password=PASSWORD)
    assert client.get(BUCKETS).status_code == 200


def test_an_admin_can_make_nobody_a_superuser():
    vera = person("vera")
    admin = browser_of("admin")
    everything = Permission.objects.values_list("pk", flat=True)
    body = {"username": "vera", "is_active": "on", "is_staff": "on", "is_superuser": "on"}
    response = admin.post(change_url(vera), body | {"user_permissions": list(everything)})
    assert response.status_code == 302, response.context["errors"]
    vera.refresh_from_db()
    assert not vera.is_superuser
    assert not vera.user_permissions.exists()


def test_the_page_of_a_role_says_in_words_what_it_allows(admin_client):
    viewer = Group.objects.get(name="viewer")
    page = admin_client.get(reverse("admin:auth_group_change", args=[viewer.pk]))
    assert "View bucket, View credential" in page.content.decode()


def test_an_admin_can_neither_change_nor_delete_a_superuser():
    root = person("root", is_superuser=True)
    admin = browser_of("admin")
    assert buttons(admin.get(change_url(root))) == []
    password = reverse("admin:auth_user_password_change", args=[root.pk])
    assert admin.post(password, new_person()).status_code == 403
    delete = {"action": "delete_selected", "_selected_action": [root.pk], "post": "yes"}
    admin.post(USERS, delete)
    assert User.objects.filter(username="root").exists()


def test_an_admin_cannot_change_groups():
    group = Group.objects.create(name="night shift")
    assert buttons(browser_of("admin").get(change_url(group))) == []


@pytest.mark.parametrize("role", roles.ROLES)
def test_a_superuser_cannot_change_a_role_by_mistake(admin_client, role):
    group = Group.objects.get(name=role)
    assert buttons(admin_client.get(change_url(group))) == []
    delete = {"action": "delete_selected", "_selected_action": [group.pk], "post": "yes"}
    admin_client.post(reverse("admin:auth_group_changelist"), delete)
    assert Group.objects.filter(name=role).exists()


def test_the_stand_ins_of_the_history_are_not_in_the_list_of_people(admin_client):
    services.create_api_client(name="importer", by=None)
    assert User.objects.filter(username=audit.COMMAND_LINE).exists()
    assert audit.COMMAND_LINE not in str(admin_client.get(USERS).content)
