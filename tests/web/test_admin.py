"""The operator's pages, through Django's test client and the real database."""

import re
from typing import Any
from urllib.parse import unquote

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.urls import reverse

from buckets import services
from buckets.models import ApiClient, Bucket, Credential, Outbox
from buckets.sync import vault_removals
from scanning import wiring

pytestmark = pytest.mark.django_db(transaction=True)

ADD = reverse("admin:buckets_bucket_add")
LIST = reverse("admin:buckets_bucket_changelist")
ACCESS, SECRET = "AKIAPLAINTOSEE", "wJalrPlainToSee/K7MDENG"


@pytest.fixture
def bucket() -> Bucket:
    return services.add_bucket(
        name="media-in", region="us-iad-1", access_key=ACCESS, secret_key=SECRET
    )


def typed(**values: str) -> dict[str, str]:
    form = {
        "name": "media-in",
        "region": "us-iad-1",
        "access_key": ACCESS,
        "secret_key": SECRET,
        "monitoring_enabled": "on",
        "notifications_enabled": "on",
        "fetch_metadata": "on",
        "announce_created": "on",
        "announce_updated": "on",
        "announce_detected": "on",
        "first_scan": "announce",
    }
    return {k: v for k, v in (form | values).items() if v}


def change(bucket: Bucket, **values: str) -> dict[str, str]:
    credential = {"credential": str(bucket.credential_id), "endpoint": bucket.endpoint}
    return typed(**{"name": "", "access_key": "", "secret_key": "", **credential, **values})


def change_url(row: Bucket | Credential | ApiClient) -> str:
    return reverse(f"admin:buckets_{row._meta.model_name}_change", args=[row.pk])


def text(response: Any) -> str:
    return str(response.content, "utf-8")


def said(response: Any) -> list[str]:
    return [str(message) for message in response.context["messages"]]


def errors_of(response: Any) -> dict[str, list[str]]:
    return dict(response.context["adminform"].form.errors)


def test_the_log_in_page_opens_and_every_page_asks_for_a_log_in(client):
    assert "bucketwatch" in text(client.get(reverse("admin:login")))
    assert client.get(LIST).status_code == 302


def test_one_form_adds_a_bucket_with_its_keys(operator, redis_server):
    response = operator.post(ADD, typed(), follow=True)

    added = Bucket.objects.get()
    assert (added.name, added.endpoint) == ("media-in", "us-iad-1.linodeobjects.com")
    assert wiring.vault().read_all()["MEDIA_IN"].secret_key == SECRET
    assert wiring.background().bucket_configs.load().buckets.keys() == {"media-in"}
    assert len(said(response)) == 1
    assert "added successfully" in said(response)[0]


def test_a_bucket_can_use_a_stored_credential(operator):
    shared = services.add_credential(name="shared", access_key=ACCESS, secret_key=SECRET)

    operator.post(ADD, typed(credential=str(shared.pk), access_key="", secret_key=""))

    assert Bucket.objects.get().credential == shared


@pytest.mark.parametrize(
    ("wrong", "field", "fix"),
    [
        pytest.param({"name": "Media In"}, "name", "without s3://", id="name"),
        pytest.param({"region": ""}, "region", "Enter a region", id="neither-region"),
        pytest.param({"region": ""}, "endpoint", "or an endpoint", id="nor-endpoint"),
        pytest.param({"endpoint": "host/path"}, "endpoint", "no path", id="endpoint"),
        pytest.param({"secret_key": ""}, "secret_key", "both halves", id="half-a-pair"),
        pytest.param({"polling_interval": "0"}, "polling_interval", "1 second", id="interval"),
        pytest.param({"webhook_url": "ftp://x"}, "webhook_url", "https://", id="webhook"),
        pytest.param(
            {"webhook_url": "https://x/", "webhook_client_id": "me"},
            "webhook_token_url",
            "all three",
            id="oauth2",
        ),
    ],
)
def test_what_is_wrong_is_said_at_its_field_and_nothing_typed_is_lost(operator, wrong, field, fix):
    response = operator.post(ADD, typed(polling_interval="77") | wrong)

    assert fix in " ".join(errors_of(response)[field])
    assert not Bucket.objects.exists()
    form = response.context["adminform"].form
    assert form["notifications_enabled"].value() is True
    for name, value in ({"polling_interval": "77"} | wrong).items():
        assert form[name].value() == value
    assert SECRET not in text(response)
    assert ACCESS not in text(response)


def test_adding_a_bucket_twice_is_refused_at_its_name(operator, bucket):
    response = operator.post(ADD, typed(access_key="OTHER", secret_key="OTHER"))

    assert "watched already" in errors_of(response)["name"][0]
    assert wiring.vault().read_all()["MEDIA_IN"].access_key == ACCESS


def test_a_collision_of_vault_names_is_refused_at_the_name(operator):
    services.add_credential(name="media_in", access_key="A", secret_key="S")

    response = operator.post(ADD, typed())

    assert "belong to credential media_in" in errors_of(response)["name"][0]
    assert wiring.vault().read_all()["MEDIA_IN"].access_key == "A"


def test_a_vault_that_cannot_be_read_is_said_in_the_form_and_nothing_is_saved(operator, settings):
    wiring.vault()
    (settings.DATA_DIR / "vault.enc").write_text("not a vault")

    response = operator.post(ADD, typed())

    assert "damaged" in errors_of(response)["__all__"][0]
    assert response.context["adminform"].form["region"].value() == "us-iad-1"
    assert not Bucket.objects.exists()
    assert not LogEntry.objects.exists()


def test_keys_stay_when_a_change_leaves_them_empty_and_are_replaced_when_it_does_not(
    operator, bucket
):
    operator.post(change_url(bucket), change(bucket, polling_interval="30"))
    bucket.refresh_from_db()
    assert bucket.polling_interval == 30
    assert wiring.vault().read_all()["MEDIA_IN"].access_key == ACCESS

    operator.post(change_url(bucket), change(bucket, access_key="NEW", secret_key="NEWER"))
    assert wiring.vault().read_all()["MEDIA_IN"].secret_key == "NEWER"


def test_a_change_form_says_what_is_wrong_too(operator, bucket):
    response = operator.post(change_url(bucket), change(bucket, access_key="NEW"))

    assert "both halves" in errors_of(response)["secret_key"][0]
    assert wiring.vault().read_all()["MEDIA_IN"].access_key == ACCESS


def test_a_form_that_was_open_for_long_puts_back_nothing_that_it_did_not_change(operator, bucket):
    page = operator.get(change_url(bucket))
    assert page.status_code == 200
    Bucket.objects.filter(pk=bucket.pk).update(object_count=12, last_error="Access denied")

    operator.post(change_url(bucket), change(bucket, webhook_url="https://api.example.com/hook"))

    bucket.refresh_from_db()
    assert (bucket.object_count, bucket.last_error) == (12, "Access denied")
    assert bucket.webhook_url == "https://api.example.com/hook"


def test_the_name_of_a_bucket_cannot_be_changed(operator, bucket):
    operator.post(change_url(bucket), change(bucket, name="other"))

    assert [b.name for b in Bucket.objects.all()] == ["media-in"]


def test_with_redis_down_the_save_succeeds_and_the_operator_is_told(operator):
    response = operator.post(ADD, typed(), follow=True)

    assert Bucket.objects.exists()
    assert any("not in Redis yet" in message for message in said(response))
    overview = reverse("admin:buckets_bucket_overview", args=[Bucket.objects.get().pk])
    assert "has not reached the scanner yet" in text(operator.get(overview))


def test_with_redis_there_nothing_is_said_about_it(operator, redis_server, bucket):
    response = operator.post(change_url(bucket), change(bucket, polling_interval="9"), follow=True)

    assert not any("Redis" in message for message in said(response))
    assert "has not reached the scanner yet" not in text(response)


def test_with_redis_down_a_deletion_succeeds_and_the_operator_is_told(operator, bucket):
    url = reverse("admin:buckets_bucket_delete", args=[bucket.pk])

    response = operator.post(url, {"post": "yes"}, follow=True)

    assert not Bucket.objects.exists()
    assert any("not in Redis yet" in message for message in said(response))


@pytest.mark.parametrize("by_action", [True, False])
def test_a_deletion_succeeds_without_the_vault_and_the_operator_is_told(
    operator, bucket, settings, by_action
):
    vault_file = settings.DATA_DIR / "vault.enc"
    kept = vault_file.read_bytes()
    vault_file.write_text("not a vault")
    action = {"action": "delete_buckets", "_selected_action": [bucket.pk], "confirmed": "yes"}
    form = action if by_action else {"post": "yes"}
    url = LIST if by_action else reverse("admin:buckets_bucket_delete", args=[bucket.pk])

    response = operator.post(url, form, follow=True)

    assert any("the vault still holds of it" in message for message in said(response))
    assert not Bucket.objects.exists()
    vault_file.write_bytes(kept)
    assert vault_removals.flush_now()
    assert wiring.vault().names() == frozenset()


def test_a_credential_is_stored_replaced_and_removed(operator):
    add = reverse("admin:buckets_credential_add")
    operator.post(add, {"name": "shared", "access_key": ACCESS, "secret_key": SECRET})
    credential = Credential.objects.get()
    assert wiring.vault().read_all()["SHARED"].access_key == ACCESS

    operator.post(change_url(credential), {"access_key": "NEW", "secret_key": "NEWER"})
    assert wiring.vault().read_all()["SHARED"].secret_key == "NEWER"

    operator.post(reverse("admin:buckets_credential_delete", args=[credential.pk]), {"post": "yes"})
    assert wiring.vault().read_all() == {}
    assert not Credential.objects.exists()


def test_a_credential_in_use_cannot_be_deleted(operator, bucket):
    credential = bucket.credential
    url = reverse("admin:buckets_credential_delete", args=[credential.pk])

    page = text(operator.post(url, {"post": "yes"}, follow=True))

    assert "media-in" in page
    assert Credential.objects.exists()
    assert "MEDIA_IN" in wiring.vault().read_all()


def test_before_a_deletion_its_consequences_are_said(operator, bucket):
    credential = bucket.credential
    page = text(operator.get(reverse("admin:buckets_bucket_delete", args=[bucket.pk])))
    assert "Stop watching media-in?" in page
    assert "Nothing in S3 is touched" in page
    page = text(operator.get(reverse("admin:buckets_credential_delete", args=[credential.pk])))
    assert "A bucket uses it: give it another credential first." in page


def test_times_are_written_alike_on_all_pages(operator, bucket):
    written = LogEntry.objects.earliest("pk").action_time
    page = text(operator.get(reverse("admin:buckets_bucket_history", args=[bucket.pk])))
    assert f"{written:%Y-%m-%d %H:%M:%S UTC}" in page


def test_the_secret_of_an_api_client_is_shown_once_and_works(operator):
    response = operator.post(
        reverse("admin:buckets_apiclient_add"), {"name": "ingest", "scope": "manage"}
    )

    found = re.search(r'id="client-secret">([^<]+)<', text(response))
    assert found
    secret = found[1]
    client = ApiClient.objects.get()
    assert client.client_id in text(response)
    assert secret not in client.secret_hash
    assert "no-store" in response["Cache-Control"]
    assert secret not in unquote(str(response.cookies) + str(operator.cookies))
    for url in (change_url(client), reverse("admin:buckets_apiclient_changelist")):
        assert secret not in text(operator.get(url))


def test_an_api_client_can_be_disabled(operator):
    client, _ = services.create_api_client(name="ingest")

    operator.post(change_url(client), {"name": "ingest", "scope": "manage"})

    client.refresh_from_db()
    assert client.enabled is False


def test_an_api_client_can_be_deleted(operator):
    client, _ = services.create_api_client(name="ingest")

    operator.post(reverse("admin:buckets_apiclient_delete", args=[client.pk]), {"post": "yes"})

    assert not ApiClient.objects.exists()


def test_a_credential_that_is_saved_without_new_keys_keeps_its_own(operator, bucket):
    response = operator.post(change_url(bucket.credential), {})

    assert response.status_code == 302
    assert wiring.vault().read_all()["MEDIA_IN"].access_key == ACCESS


def test_a_name_that_another_api_client_has_is_refused_at_its_field(operator):
    services.create_api_client(name="ingest")

    response = operator.post(
        reverse("admin:buckets_apiclient_add"), {"name": "ingest", "scope": "manage"}
    )

    assert "choose another" in errors_of(response)["name"][0]


def test_no_page_and_no_log_entry_holds_a_key(operator, redis_server):
    operator.post(ADD, typed())
    bucket = Bucket.objects.get()
    operator.post(change_url(bucket), change(bucket, access_key=ACCESS, secret_key=SECRET))
    credential = bucket.credential

    pages = [
        LIST,
        change_url(bucket),
        change_url(credential),
        reverse("admin:buckets_credential_changelist"),
        reverse("admin:buckets_bucket_history", args=[bucket.pk]),
        reverse("admin:index"),
    ]
    for url in pages:
        page = operator.get(url)
        assert page.status_code == 200
        assert ACCESS not in text(page), url
        assert SECRET not in text(page), url
    logged = [f"{entry.object_repr} {entry.change_message}" for entry in LogEntry.objects.all()]
    assert len(logged) == 3
    assert not any(ACCESS in line or SECRET in line for line in logged)


def test_pages_of_django_q2_that_would_always_be_empty_are_gone(operator):
    assert "django_q" not in text(operator.get(reverse("admin:index")))


def test_somebody_who_may_only_look_sees_the_page_and_changes_nothing(client, bucket):
    viewer = User.objects.create(username="vera", is_staff=True)
    viewer.user_permissions.set(Permission.objects.filter(codename="view_bucket"))
    client.force_login(viewer)

    assert client.get(change_url(bucket)).status_code == 200
    assert client.post(change_url(bucket), change(bucket, polling_interval="5")).status_code == 403
    client.post(LIST, {"action": "pause_monitoring", "_selected_action": [bucket.pk]})
    bucket.refresh_from_db()
    assert bucket.polling_interval is None
    assert bucket.monitoring_enabled
    assert Outbox.objects.count() == 1


def test_the_history_of_a_bucket_shows_who_changed_it_whether_person_or_program(operator, bucket):
    client, _ = services.create_api_client(name="ingest", client_id="bw-1")
    services.update_bucket(bucket=bucket, polling_interval=9, by=client)
    operator.post(change_url(bucket), change(bucket, polling_interval="30"))

    page = text(operator.get(reverse("admin:buckets_bucket_history", args=[bucket.pk])))

    assert "API client bw-1 (ingest)" in page
    assert "olga" in page
    assert "Changed polling interval (s)." in page


@pytest.mark.parametrize(("action", "enabled"), [("disable", False), ("enable", True)])
def test_api_clients_are_switched_by_actions_of_the_list(operator, action, enabled):
    client, _ = services.create_api_client(name="ingest")
    ApiClient.objects.update(enabled=not enabled)
    url = reverse("admin:buckets_apiclient_changelist")

    answer = operator.post(url, {"action": action, "_selected_action": client.pk}, follow=True)

    assert ApiClient.objects.get().enabled is enabled
    assert f"1 {action}d" in text(answer)
