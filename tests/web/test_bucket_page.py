"""The operator's page of one bucket: overview, buttons, explanation, connection test."""

import csv
import io
import json
import re
import time
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from buckets import services
from buckets.models import Bucket, Credential
from buckets.sync import scan_status
from scanning import wiring
from scanning.core import redis_keys
from scanning.core.endpoint_profile import Fact, TotalsSource
from scanning.core.endpoints import endpoint_name
from scanning.core.probing import LastProbe
from scanning.core.totals import Totals
from tests.support import engine_buckets
from tests.support.commands import manage

pytestmark = pytest.mark.django_db(transaction=True)

ADD = reverse("admin:buckets_bucket_add")
MOST_QUERIES = 30


@pytest.fixture
def viewer(client: Client) -> Client:
    user = User.objects.create(username="vera", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_bucket"))
    client.force_login(user)
    return client


@pytest.fixture
def bucket() -> Bucket:
    return services.add_bucket(name="media-in", region="us-iad-1", access_key="A", secret_key="S")


@pytest.fixture
def real(s3_server) -> Bucket:
    """A bucket of the S3 server, with an object in it and the right keys."""
    name = s3_server.bucket()
    s3_server.put(name, "a/<b>.txt")
    return services.add_bucket(
        name=name,
        region="r",
        endpoint=s3_server.url,
        access_key=s3_server.access_key,
        secret_key=s3_server.secret_key,
    )


def url(bucket: Bucket, page: str = "overview") -> str:
    return reverse(f"admin:buckets_bucket_{page}", args=[bucket.pk])


def html(response: Any) -> str:
    return str(response.content, "utf-8")


def text(response: Any) -> str:
    page = re.sub(r"<(script|style|title)\b.*?</\1>", "", html(response))
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def do(operator: Client, bucket: Bucket, action: str) -> Any:
    return operator.post(url(bucket, "do"), {"action": action}, follow=True)


def said(response: Any) -> str:
    return " ".join(str(message) for message in response.context["messages"])


# --- overview


def test_the_overview_says_how_the_bucket_is(operator, store, bucket):
    Bucket.objects.update(
        last_scan_at=timezone.now(),
        last_scan_duration_s=0.25,
        object_count=4711,
        prefix="in/",
        notifications_enabled=False,
    )
    store.sadd(redis_keys.REGIONS, bucket.region)
    store.zadd(redis_keys.due(bucket.region), {bucket.name: time.time() + 12.5 * 3600})
    store.hset(redis_keys.events_of_day(int(time.time() // 86400)), "media-in", 12)

    page = text(operator.get(url(bucket)))

    for fact in (
        "media-in on time",
        "Objects 4,711",
        "Events today 12",
        "Duration 250 ms",
        "Next scan in 12 h",
        "Polling interval 1 min (default)",
        "Keys beginning with “in/”",
        "Notifications off: what changes is not announced",
    ):
        assert fact in page


@pytest.mark.parametrize(
    ("quiet_s", "shown"),
    [
        pytest.param(None, "1 min (default), up to 15 min while nothing changes", id="unknown"),
        pytest.param(
            3000, "1 min (default), up to 15 min while nothing changes; now 4 min", id="quiet"
        ),
    ],
)
def test_the_overview_says_which_interval_is_in_force(operator, store, bucket, quiet_s, shown):
    Bucket.objects.update(polling_longest=900)
    if quiet_s is not None:
        times = {"scan_at": "1764444000.5", "changed_at": str(1764444000.5 - quiet_s)}
        store.hset(redis_keys.bucket(bucket.name), mapping=times)
    assert f"Polling interval {shown} Requests today" in text(operator.get(url(bucket)))


@pytest.mark.parametrize(
    ("given", "conf", "probe", "says"),
    [
        ({}, "auto", LastProbe(Totals(4711, 2048)), "every 5 s: 4,711 objects, 2.0 KiB, not seen"),
        ({"probe_interval": 7}, "auto", LastProbe(Totals(1, 0), 1.0), "every 7 s: 1 objects"),
        ({}, "auto", None, "every 5 s; none was answered yet"),
        ({}, "auto", LastProbe(None), "none: its credential is told no totals"),
        ({}, 9, LastProbe(None), "none, but a look every 9 s: its credential is told no totals"),
        ({"probe_interval": 0}, "auto", None, "off"),
        ({}, 0, None, "off"),
        ({"polling_interval": 5}, "auto", None, "none: it is scanned as often"),
        ({"objects": 1000}, "auto", None, "none: to list its one page costs the same"),
        ({"objects": None}, "auto", None, "from its first complete scan on"),
        ({"error": "AccessDenied"}, "auto", None, "none while its scans fail"),
    ],
)
def test_the_overview_says_what_probes_saw_or_why_there_are_none(
    operator, store, settings, bucket, given, conf, probe, says
):
    section = settings.SCANNING.probe.model_copy(update={"interval": conf})
    settings.SCANNING = settings.SCANNING.model_copy(update={"probe": section})
    status = {"objects": 4711, "error": ""} | given
    Bucket.objects.update(object_count=status["objects"], last_error_class=status["error"])
    settings_given = {name: value for name, value in given.items() if "interval" in name}
    services.update_bucket(bucket=bucket, **settings_given)
    if probe:
        wiring.background().probes.record({bucket.name: probe}, {})
    assert f"Probes {says}" in text(operator.get(url(bucket)))


def test_the_overview_says_that_an_endpoint_tells_no_totals(operator, store, bucket):
    Bucket.objects.update(object_count=4711)
    wiring.background().probes.record({bucket.name: LastProbe(None)}, {})
    endpoint = endpoint_name(bucket.endpoint)
    wiring.background().endpoint_profiles.learn(endpoint, {Fact.TOTALS: TotalsSource.NONE})
    page = text(operator.get(url(bucket)))
    assert "Probes none: its endpoint tells no totals" in page


def test_the_history_of_scans_is_drawn_and_said(operator, store, bucket):
    for n in range(3):
        scan = [time.time() - 60 * n, 1.5, 1000 + n, n, "AccessDenied" if n == 1 else ""]
        store.lpush(redis_keys.history("media-in"), json.dumps(scan))

    page = html(operator.get(url(bucket)))

    assert "1 of 3 failed" in page
    assert 'aria-label="Duration of the last 3 scans: at most 2 s, lately 2 s."' in page
    assert 'aria-label="Objects of the last 3 scans: at most 1,002, lately 1,000."' in page
    assert "failed: the key pair may not list the bucket</title>" in page


def test_a_look_between_two_scans_is_told_from_them(operator, store, bucket):
    for key, at, changes in [(redis_keys.history, 60, 7), (redis_keys.look_history, 30, 3)]:
        store.lpush(key("media-in"), json.dumps([time.time() - at, 1.5, 1000, changes, ""]))
    page = html(operator.get(url(bucket)))
    assert 'aria-label="Objects of the last 1 scan: at most 1,000, lately 1,000."' in page
    assert 'aria-label="Changes found of the last 2 scans: at most 7, lately 3."' in page
    assert "UTC, look: 3</title>" in page


def test_recent_notifications_are_those_of_the_bucket(operator, store, bucket):
    for name, key in (("media-in", "mine.txt"), ("other", "theirs.txt")):
        commit = {"bucket": name, "at": time.time(), "count": 1, "events": [["created", key, 1]]}
        store.xadd(redis_keys.EVENTS, {"commit": json.dumps(commit)})
    page = text(operator.get(url(bucket)))
    assert "mine.txt" in page
    assert "theirs.txt" not in page


def test_a_failing_bucket_says_why_and_what_to_do(operator, store, bucket):
    Bucket.objects.update(
        last_error="media-in: 403",
        last_error_class="AccessDenied",
        last_error_at=timezone.now() - timedelta(hours=5, minutes=30),
    )
    page = text(operator.get(url(bucket)))
    assert "The key pair may not list the bucket" in page
    assert "media-in: 403 (5 h ago)" in page
    assert "Next step: Allow the access key to list and read the bucket" in page


def test_without_redis_the_overview_shows_what_the_database_knows(operator, bucket):
    page = text(operator.get(url(bucket)))
    assert "Redis does not answer" in page
    assert "Region us-iad-1" in page
    assert "Last change has not reached the scanner yet" in page


def test_the_overview_takes_few_queries(operator, store, bucket, django_assert_max_num_queries):
    with django_assert_max_num_queries(MOST_QUERIES):
        operator.get(url(bucket))


def test_a_bucket_that_is_not_there_answers_404(operator):
    for page in ("overview", "explain", "held", "held_csv"):
        assert operator.get(reverse(f"admin:buckets_bucket_{page}", args=[4711])).status_code == 404


# --- buttons


@pytest.mark.parametrize(
    ("action", "field", "value"),
    [
        ("pause", "monitoring_enabled", False),
        ("resume", "monitoring_enabled", True),
        ("silence", "notifications_enabled", False),
        ("notify", "notifications_enabled", True),
    ],
)
def test_a_button_changes_the_bucket_and_redis(operator, store, bucket, action, field, value):
    changes: dict[str, Any] = {field: not value}
    services.update_bucket(bucket=bucket, **changes)

    answer = do(operator, bucket, action)

    bucket.refresh_from_db()
    assert getattr(bucket, field) is value
    assert len(answer.context["messages"]) == 1
    seen = wiring.background().bucket_configs.get("media-in")
    assert seen is not None
    assert (seen.active, seen.notifications) == (
        bucket.monitoring_enabled,
        bucket.notifications_enabled,
    )


def test_a_scan_is_asked_for(operator, store, bucket):
    store.zadd(redis_keys.due(bucket.region), {bucket.name: 4e9})
    assert "due now" in said(do(operator, bucket, "scan"))
    assert store.zscore(redis_keys.due(bucket.region), bucket.name) < 3e9


def test_a_scan_of_a_paused_bucket_is_refused(operator, store, bucket):
    services.set_monitoring(bucket=bucket, enabled=False)
    assert "resume its monitoring first" in said(do(operator, bucket, "scan"))


def test_a_hold_is_released_or_the_bucket_starts_over(operator, store, bucket):
    assert "Nothing is held" in said(do(operator, bucket, "release"))
    Bucket.objects.update(held_since=timezone.now(), held_missing=7)
    store.hset(redis_keys.bucket("media-in"), "held_since", "1")
    page = text(operator.get(url(bucket)))
    assert "7 objects missing: a mass deletion is held" in page
    assert "Announce 7 deletions" in page

    assert "Released" in said(do(operator, bucket, "release"))
    assert store.hget(redis_keys.bucket("media-in"), "released") == "1"

    assert "starts over" in said(do(operator, bucket, "rebaseline"))
    assert store.hget(redis_keys.bucket("media-in"), "released") is None


def test_a_button_without_redis_says_that_nothing_was_done(operator, bucket):
    assert "Nothing was done" in said(do(operator, bucket, "scan"))


def test_an_unknown_button_answers_404(operator, bucket):
    assert operator.post(url(bucket, "do"), {"action": "explode"}).status_code == 404
    assert operator.get(url(bucket, "do")).status_code == 405


def test_who_may_only_look_sees_no_buttons_and_cannot_press_them(viewer, store, bucket):
    Bucket.objects.update(held_since=timezone.now())
    page = html(viewer.get(url(bucket)))
    assert "a mass deletion is held" in page
    assert 'name="action"' not in page
    assert viewer.post(url(bucket, "do"), {"action": "pause"}).status_code == 403
    assert viewer.post(url(bucket, "change"), {"_test": "1"}).status_code == 403
    assert "Test connection" not in html(viewer.get(url(bucket, "change")))


def test_who_may_not_even_look_sees_nothing(client, bucket):
    client.force_login(User.objects.create(username="ute", is_staff=True))
    for page in ("overview", "explain", "held", "held_csv"):
        assert client.get(url(bucket, page)).status_code == 403


# --- explain


def test_a_key_is_explained(operator, store, real):
    page = operator.get(url(real, "explain"), {"key": "a/<b>.txt"})
    assert "The next scan announces it" in text(page)
    assert "created" in text(page)
    assert "a/&lt;b&gt;.txt" in html(page)
    assert "1 byte" in text(page)


def test_a_key_that_is_nowhere_is_explained(operator, store, real):
    page = text(operator.get(url(real, "explain"), {"key": "nowhere"}))
    assert "The next scan announces nothing of it" in page


def test_without_redis_nothing_is_explained_and_the_reason_is_said(operator, real):
    page = text(operator.get(url(real, "explain"), {"key": "a"}))
    assert "Redis does not answer" in page


# --- held deletions


@pytest.fixture
def emptied(real, s3_server, settings, capsys) -> Bucket:
    """All 105 objects of it were deleted, and their deletion is held."""
    deletions = settings.SCANNING.deletions.model_copy(update={"mass_minimum": 1})
    settings.SCANNING = settings.SCANNING.model_copy(update={"deletions": deletions})
    engine_buckets.trust()
    for key in ("=1+1", "a/\u202eb", *(f"key-{n:03}" for n in range(102))):
        s3_server.put(real.name, key)
    assert manage(capsys, "runscan", real.name).status == 0
    for row in s3_server.client().list_objects_v2(Bucket=real.name)["Contents"]:
        s3_server.client().delete_object(Bucket=real.name, Key=row["Key"])
    assert "105 missing, held" in manage(capsys, "runscan", real.name).out
    Bucket.objects.update(held_since=timezone.now(), held_missing=105, last_scan_at=timezone.now())
    emptied: Bucket = real
    return emptied


def test_before_anything_is_confirmed_the_bucket_shows_which_objects_are_held(
    viewer, store, emptied
):
    assert url(emptied, "held") in html(viewer.get(url(emptied)))
    page = viewer.get(url(emptied, "held"))
    assert "105 objects of 105 held" in text(page)
    assert "105 objects missing, held since 20" in text(page)
    assert "another time" not in text(page)
    assert "The first 100 by key are below" in text(page)
    assert "<code>a/&lt;b&gt;.txt</code>" in html(page)
    assert "<code>a/\\u202eb</code>" in html(page)
    assert "key-096" in html(page)
    assert "key-097" not in html(page)
    assert 'name="action"' not in html(page)
    assert url(emptied, "held_csv") in html(page)


def test_all_held_objects_are_downloaded_as_csv(viewer, store, emptied):
    answer = viewer.get(url(emptied, "held_csv"))
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    disposition = f'attachment; filename="{emptied.name}-held.csv"'
    assert answer["Content-Disposition"] == disposition
    lines = io.StringIO(str(b"".join(answer.streaming_content), "utf-8"), newline="")
    keys = [row["key"] for row in csv.DictReader(lines)]
    assert keys == ["'=1+1", "a/<b>.txt", "a/\u202eb", *(f"key-{n:03}" for n in range(102))]


def test_who_may_decide_does_so_where_the_objects_are_shown(operator, store, emptied):
    assert "Announce 105 deletions" in text(operator.get(url(emptied, "held")))
    assert "Released" in said(do(operator, emptied, "release"))
    assert "Nothing is held" in text(operator.get(url(emptied, "held")))


def test_a_bucket_that_holds_nothing_has_no_tab_for_it(operator, store, bucket):
    assert url(bucket, "held") not in html(operator.get(url(bucket)))
    assert "Nothing is held" in text(operator.get(url(bucket, "held")))


@pytest.fixture
def stormy(real, s3_server, settings, capsys) -> Bucket:
    """Both of its objects have other times and are else the same, which is held."""
    deletions = settings.SCANNING.deletions.model_copy(update={"mass_minimum": 1})
    settings.SCANNING = settings.SCANNING.model_copy(update={"deletions": deletions})
    engine_buckets.trust()
    s3_server.put(real.name, "b")
    assert manage(capsys, "runscan", real.name).status == 0
    s3_server.touch(real.name, "a/<b>.txt", "b")
    assert "of 2 only the time moved, held" in manage(capsys, "runscan", real.name).out
    scan_status.flush()
    stormy: Bucket = real
    return stormy


def test_a_storm_of_moved_times_is_shown_with_both_times_before_anybody_chooses(
    operator, store, stormy
):
    page = text(operator.get(url(stormy)))
    assert "2 of 2 objects with another time only: they are held" in page
    assert url(stormy, "held") in html(operator.get(url(stormy)))
    held = operator.get(url(stormy, "held"))
    assert "2 objects of 2 held" in text(held)
    assert "2 objects with another time only, held since 20" in text(held)
    assert "New time" in text(held)
    assert "<code>a/&lt;b&gt;.txt</code>" in html(held)
    for choice in ("Announce 2 updates", "Take 2 new times silently", "Start over silently"):
        assert choice in page
        assert choice in text(held)
    assert "Announce 0 deletions" not in text(held)
    [header, *rows] = csv.reader(
        io.StringIO(str(b"".join(operator.get(url(stormy, "held_csv")).streaming_content), "utf-8"))
    )
    assert header[-1] == "new_last_modified"
    assert all(row[2] < row[4] for row in rows)


@pytest.mark.parametrize(
    ("action", "said_so", "updated"),
    [
        ("announce_updates", "the next scan announces the updates", 2),
        ("take_times", "takes the new times, and announces nothing", 0),
    ],
)
def test_what_somebody_chose_for_moved_times_is_done_by_the_next_scan(
    operator, store, stormy, capsys, action, said_so, updated
):
    assert said_so in said(do(operator, stormy, action))
    ran = manage(capsys, "runscan", stormy.name).out
    assert f"{updated} updated" in ran
    assert "held" not in ran
    scan_status.flush()
    assert "Nothing is held any more" in said(do(operator, stormy, action))
    assert url(stormy, "held") not in html(operator.get(url(stormy)))
    assert "0 updated" in manage(capsys, "runscan", stormy.name).out


def test_both_kinds_of_holds_are_shown_beside_each_other(operator, store, bucket):
    now = timezone.now()
    Bucket.objects.update(
        held_since=now, held_missing=7, held_moved_since=now, held_moved=5, object_count=9
    )
    page = text(operator.get(url(bucket)))
    assert "7 objects missing: a mass deletion is held" in page
    assert "5 of 9 objects with another time only" in page
    assert "Announce 7 deletions" in page
    assert "Announce 5 updates" in page


def test_without_redis_the_page_says_why_held_objects_cannot_be_shown(operator, bucket):
    page = operator.get(url(bucket, "held_csv"), follow=True)
    assert page.redirect_chain == [(url(bucket, "held"), 302)]
    assert "Redis does not answer" in text(page)


# --- connection test


def form(bucket: Bucket, **changes: str) -> dict[str, str]:
    typed = {
        "name": bucket.name,
        "region": bucket.region,
        "endpoint": bucket.endpoint,
        "first_scan": "announce",
        "_test": "1",
    }
    return typed | changes


def test_the_stored_keys_are_tested_by_a_button(operator, store, real):
    assert "The keys work" in said(do(operator, real, "test"))
    assert "a/<b>.txt" in said(do(operator, real, "test"))
    assert Credential.objects.get().last_verified_at is not None


def test_what_is_wrong_is_said_with_the_fix(operator, store, real):
    services.rotate_credential(credential=real.credential, access_key="A", secret_key="S")
    answer = said(do(operator, real, "test"))
    assert "Give the bucket's credential a valid key pair" in answer


def test_a_new_bucket_is_tested_before_it_is_saved(operator, s3_server, real):
    Bucket.objects.all().delete()
    right = form(real, access_key=s3_server.access_key, secret_key=s3_server.secret_key)

    page = operator.post(ADD, right)

    assert "The keys work" in text(page)
    assert "a/&lt;b&gt;.txt" in html(page)
    assert "nothing is saved" in text(page)
    assert not Bucket.objects.exists()
    assert s3_server.secret_key not in html(page)

    page = operator.post(ADD, right | {"secret_key": "wrong"})
    assert "The keys work" not in text(page)
    assert "Give the bucket's credential" in text(page).replace("&#x27;", "'")


def test_what_is_missing_is_said_before_s3_is_asked(operator, real):
    page = text(operator.post(ADD, form(real, region="", endpoint="")))
    assert "Enter a region such as us-iad-1" in page
    assert "Enter both halves of the key pair" in page


def test_changed_settings_are_tested_and_not_stored(operator, store, real):
    changes = form(real, credential=str(real.credential_id), endpoint="http://127.0.0.1:1")
    page = text(operator.post(url(real, "change"), changes))
    assert "check the endpoint, the network" in page
    assert Bucket.objects.get().endpoint == real.endpoint


def test_the_form_offers_shared_credentials_and_the_buckets_own(operator, bucket):
    services.add_credential(name="team", access_key="A", secret_key="S")
    other = services.add_bucket(name="other", region="r", access_key="A", secret_key="S")
    offered = operator.get(url(bucket, "change")).context["adminform"].form["credential"]
    names = {str(label) for _, label in offered.field.choices}
    assert {"team", "media-in"} <= names
    assert other.credential.name not in names


def test_a_pass_that_is_not_over_says_how_far_it_has_come(operator, store, bucket):
    Bucket.objects.update(object_count=5000)
    progress = {"began": time.time() - 125, "listed": 1234, "after": "k", "appeared": 0}
    store.hset(redis_keys.bucket("media-in"), "progress", json.dumps(progress))
    page = text(operator.get(url(bucket)))
    assert "Scan under way 1,234 objects listed of about 5,000; it began 2 min ago" in page


def test_a_bucket_that_redis_forgot_asks_how_to_go_on(operator, store, bucket):
    Bucket.objects.update(lost_since=timezone.now())
    page = text(operator.get(url(bucket)))
    assert "Redis forgot what was known of it" in page
    assert "Only remember what is there" in page

    assert "only remembers" in said(do(operator, bucket, "remember_lost"))
    bucket.refresh_from_db()
    assert bucket.lost_since is None
    assert bucket.first_scan == "baseline"
    assert "nothing to choose" in said(do(operator, bucket, "announce_lost"))


def test_what_redis_forgot_can_be_announced(operator, store, bucket):
    Bucket.objects.update(lost_since=timezone.now())
    assert "announces what Redis does not know" in said(do(operator, bucket, "announce_lost"))
    assert Bucket.objects.get().lost_since is None
