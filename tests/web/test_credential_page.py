"""The operator's pages of a credential: who uses it, rotation, verification."""

import re
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.urls import reverse

from buckets import services
from buckets.models import Bucket, Credential
from scanning import wiring

pytestmark = pytest.mark.django_db(transaction=True)

LIST = reverse("admin:buckets_credential_changelist")


@pytest.fixture
def shared(s3_server) -> Credential:
    """The right keys, used by a bucket that is there and by one that is not."""
    credential = services.add_credential(
        name="team", access_key=s3_server.access_key, secret_key=s3_server.secret_key
    )
    for name in (s3_server.bucket("is-there"), "is-not-there"):
        services.add_bucket(name=name, region="r", endpoint=s3_server.url, credential=credential)
    return credential


def url(credential: Credential, page: str) -> str:
    return reverse(f"admin:buckets_credential_{page}", args=[credential.pk])


def html(response: Any) -> str:
    return str(response.content, "utf-8").replace("&#x27;", "'")


def outcome(page: Any, bucket: str) -> str:
    pk = Bucket.objects.get(name=bucket).pk
    cell = html(page).split(f'id="outcome-{pk}"', 1)[1].split("</td>")[0]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", cell)).strip(" >")


def test_the_list_says_who_uses_a_credential_and_leads_there(operator, shared):
    services.add_bucket(name="own", region="r", access_key="A", secret_key="S")
    page = html(operator.get(LIST))
    assert "2 buckets</a>" in page
    assert "the bucket of this name" in page
    assert reverse("admin:buckets_bucket_changelist") + "?credential=team" in page


@pytest.mark.parametrize(("kind", "names"), [("shared", ["team"]), ("own", ["own"])])
def test_the_list_can_be_narrowed_to_credentials_of_a_kind(operator, shared, kind, names):
    services.add_bucket(name="own", region="r", access_key="A", secret_key="S")
    page = operator.get(LIST, {"kind": kind})
    assert [row.name for row in page.context["cl"].result_list] == names


def test_verifying_says_of_each_bucket_whether_the_keys_work_there(operator, shared):
    assert outcome(operator.get(url(shared, "verify")), "is-there") == "not verified here"

    page = operator.post(url(shared, "verify"))

    assert outcome(page, "is-there").startswith("works")
    assert "Correct its name" in outcome(page, "is-not-there")
    assert "2 of 2 verified, 1 failed" in html(page)


def test_one_bucket_can_be_verified_alone(operator, shared):
    only = Bucket.objects.get(name="is-there")
    page = operator.post(url(shared, "verify"), {"bucket": only.pk})
    assert outcome(page, "is-there").startswith("works")
    assert outcome(page, "is-not-there") == "not verified here"


def test_a_rotation_leads_to_its_verification(operator, shared):
    keys = {"access_key": "NEW", "secret_key": "NEWER"}

    page = operator.post(url(shared, "change"), keys, follow=True)

    assert page.redirect_chain[-1][0] == url(shared, "verify")
    assert wiring.vault().read_all()["TEAM"].secret_key == "NEWER"
    assert "Give the bucket's credential" in outcome(
        operator.post(url(shared, "verify")), "is-there"
    )


def test_a_change_of_words_leads_back_to_the_list(operator, shared):
    page = operator.post(url(shared, "change"), {"endpoint": "s3.example.com"}, follow=True)
    assert page.redirect_chain[-1][0] == LIST


def test_who_may_only_look_sees_the_buckets_and_cannot_verify(client, shared):
    user = User.objects.create(username="vera", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_credential"))
    client.force_login(user)
    page = html(client.get(url(shared, "verify")))
    assert "is-there" in page
    assert "Verify" not in page
    assert client.post(url(shared, "verify")).status_code == 403


def test_a_credential_that_nobody_uses_says_so(operator):
    unused = services.add_credential(name="unused", access_key="A", secret_key="S")
    assert "No bucket uses this credential" in html(operator.get(url(unused, "verify")))
    assert operator.get(reverse("admin:buckets_credential_verify", args=[4711])).status_code == 404


def test_who_may_see_nothing_sees_nothing(client, shared):
    client.force_login(User.objects.create(username="ute", is_staff=True))
    assert client.get(url(shared, "verify")).status_code == 403
