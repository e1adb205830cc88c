"""The operator's list of buckets: what it shows, its filters and its actions."""

import time
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from buckets import selectors, services
from buckets.models import Bucket, Credential, Outbox
from scanning import wiring
from scanning.core import redis_keys

pytestmark = pytest.mark.django_db(transaction=True)

LIST = reverse("admin:buckets_bucket_changelist")
MOST_QUERIES = 30


@pytest.fixture
def bucket() -> Bucket:
    return services.add_bucket(name="media-in", region="us-iad-1", access_key="A", secret_key="S")


def text(response: Any) -> str:
    return str(response.content, "utf-8")


def shown(operator: Client, **query: str) -> list[str]:
    return [row.name for row in operator.get(LIST, query).context["cl"].result_list]


def act(operator: Client, action: str, *buckets: Bucket, **more: str) -> Any:
    chosen = {"action": action, "_selected_action": [bucket.pk for bucket in buckets]}
    return operator.post(LIST, chosen | more, follow=True)


def schedule(store: Any, bucket: Bucket, *, at: float) -> None:
    store.sadd(redis_keys.REGIONS, bucket.region)
    store.zadd(redis_keys.due(bucket.region), {bucket.name: at})


def cell(response: Any, column: str) -> str:
    """The text of one column of the only row."""
    row = text(response).split("<tbody>")[1].split("</tbody>")[0]
    html = row.split(f"field-{column}", 1)[1].split(">", 1)[1].split("</td>")[0]
    return "".join(part.split(">")[-1] for part in html.split("<")).strip()


# --- what it shows


def test_the_list_says_how_each_bucket_is(operator, bucket):
    assert cell(operator.get(LIST), "state") == "new"
    Bucket.objects.update(
        last_error="media-in: 403 <AccessDenied>",
        last_error_class="AccessDenied",
        object_count=4711,
        last_scan_at=timezone.now() - timedelta(hours=5, minutes=30),
        notifications_enabled=False,
    )

    page = operator.get(LIST)

    assert "<title>Buckets · bucketwatch</title>" in text(page)
    assert cell(page, "state") == "failing"
    assert cell(page, "objects") == "4,711"
    assert cell(page, "last_scan") == "5 h ago"
    assert cell(page, "notify") == "off"
    assert cell(page, "error") == "the key pair may not list the bucket"
    assert 'title="media-in: 403 &lt;AccessDenied&gt;"' in text(page)


@pytest.mark.parametrize(
    ("due_in", "is_running", "state", "says"),
    [
        pytest.param(12.5 * 3600, False, "on time", "in 12 h", id="later"),
        pytest.param(-1, False, "on time", "due now", id="due"),
        pytest.param(-1, True, "on time", "scanning now", id="running"),
        pytest.param(-12.5 * 3600, True, "on time", "scanning now", id="running-for-long"),
        pytest.param(-12.5 * 3600, False, "late", "12 h overdue", id="late"),
    ],
)
def test_the_list_says_when_a_bucket_is_scanned_next(
    operator, store, bucket, due_in, is_running, state, says
):
    Bucket.objects.update(last_scan_at=timezone.now())
    schedule(store, bucket, at=time.time() + due_in)
    if is_running:
        store.zadd(redis_keys.running(bucket.region), {bucket.name: time.time() + 60})

    page = operator.get(LIST)

    assert cell(page, "state") == state
    assert cell(page, "next_scan") == says


def test_events_of_today_are_those_that_redis_counted(operator, store, bucket):
    store.hset(redis_keys.events_of_day(int(time.time() // 86400)), "media-in", 1234)
    assert cell(operator.get(LIST), "events_today") == "1,234"


def test_without_redis_the_list_says_so_and_shows_what_the_database_knows(operator, bucket):
    page = operator.get(LIST)
    assert "Redis does not answer" in text(page)
    assert cell(page, "state") == "new"
    assert cell(page, "next_scan") == "—"
    assert cell(page, "events_today") == "—"


def test_five_thousand_buckets_take_as_many_queries_as_one(
    operator, store, django_assert_max_num_queries
):
    pair = Credential.objects.create(name="shared", vault_prefix="SHARED")
    Bucket.objects.bulk_create(
        Bucket(name=f"bucket-{n}", region=f"r-{n % 25}", endpoint="s3.example.com", credential=pair)
        for n in range(5000)
    )
    late = {f"bucket-{n}": 1.0 for n in range(0, 5000, 25)}
    store.sadd(redis_keys.REGIONS, "r-0")
    store.zadd(redis_keys.due("r-0"), late)
    for query in ({}, {"state": "late"}, {"q": "bucket-1"}, {"p": "50"}, {"o": "2"}):
        with django_assert_max_num_queries(MOST_QUERIES):
            page = operator.get(LIST, query)
        assert page.status_code == 200
    assert len(shown(operator, state="late")) == 100
    assert "200" in text(operator.get(LIST)).split("state=late", 1)[1][:200]


# --- filters


@pytest.mark.parametrize("state", list(selectors.State), ids=lambda state: state.name)
def test_the_list_can_be_narrowed_to_a_state(operator, store, bucket, state):
    credential = bucket.credential
    now = timezone.now()
    facts: dict[str, dict[str, Any]] = {
        "paused": {"monitoring_enabled": False, "last_error_class": "AccessDenied"},
        "lost": {"lost_since": now, "last_error_class": "AccessDenied"},
        "failing": {"last_error_class": "AccessDenied", "held_since": now},
        "held": {"held_since": now, "last_scan_at": now},
        "late": {"last_scan_at": now},
        "watched": {"last_scan_at": now},
        "waiting": {},
    }
    Bucket.objects.all().delete()
    for name, members in facts.items():
        row = {"region": "r", "endpoint": "s3.example.com", "credential": credential}
        Bucket.objects.create(name=f"is-{name}", **row, **members)
    store.sadd(redis_keys.REGIONS, "r")
    store.zadd(
        redis_keys.due("r"), {"is-late": 1, "is-held": 1, "is-failing": 1, "is-watched": 4e9}
    )

    assert shown(operator, state=state.name.lower()) == [f"is-{state.name.lower()}"]

    late = selectors.late_buckets()
    assert selectors.state_counts(late=late) == dict.fromkeys(selectors.State, 1)


def test_the_list_can_be_searched_and_narrowed(operator, bucket):
    shared = services.add_credential(name="team-a", access_key="A", secret_key="S")
    services.add_bucket(
        name="other", region="fr-par-1", credential=shared, notifications_enabled=False
    )
    assert shown(operator, q="media") == ["media-in"]
    assert shown(operator, q="team-a") == ["other"]
    assert shown(operator, region="fr-par-1") == ["other"]
    assert shown(operator, notifications="off") == ["other"]
    assert shown(operator, notifications="on") == ["media-in"]
    assert shown(operator, credential="team-a") == ["other"]
    Bucket.objects.filter(name="other").update(last_error_class="AccessDenied")
    assert shown(operator, error="AccessDenied") == ["other"]
    assert "the key pair may not list the bucket" in text(operator.get(LIST))
    assert shown(operator, state="no such state") == ["media-in", "other"]
    assert "None matches" in text(operator.get(LIST, {"q": "nothing"}))


# --- actions


@pytest.mark.parametrize(
    ("action", "field", "value"),
    [
        ("disable_notifications", "notifications_enabled", False),
        ("enable_notifications", "notifications_enabled", True),
        ("pause_monitoring", "monitoring_enabled", False),
        ("resume_monitoring", "monitoring_enabled", True),
    ],
)
def test_actions_change_the_selected_buckets_and_redis(
    operator, redis_server, bucket, action, field, value
):
    changes: dict[str, Any] = {field: not value}
    services.update_bucket(bucket=bucket, **changes)

    act(operator, action, bucket)

    bucket.refresh_from_db()
    assert getattr(bucket, field) is value
    seen = wiring.background().bucket_configs.get("media-in")
    assert seen is not None
    assert seen.notifications is bucket.notifications_enabled
    assert seen.active is bucket.monitoring_enabled


def test_a_scan_is_asked_for_by_an_action(operator, store, bucket):
    paused = services.add_bucket(
        name="paused", region="r", credential=bucket.credential, monitoring_enabled=False
    )
    schedule(store, bucket, at=4e9)

    answer = act(operator, "scan_now", bucket, paused)

    assert "1 due now: scanned as soon as a worker is free; 1 paused" in text(answer)
    assert store.zscore(redis_keys.due("us-iad-1"), "media-in") < 3e9


def test_asking_for_a_scan_with_redis_down_says_that_none_was_asked_for(operator, bucket):
    assert "No scan was asked for" in text(act(operator, "scan_now", bucket))


def test_held_deletions_are_released_by_an_action_that_asks_first(operator, store, bucket):
    other = services.add_bucket(name="holds-none", region="r", credential=bucket.credential)
    store.hset(redis_keys.bucket("media-in"), "held_since", "1")
    Bucket.objects.filter(pk=bucket.pk).update(held_since=timezone.now(), held_missing=7)

    question = text(act(operator, "release_holds", bucket, other))
    assert "Announce the held deletions?" in question
    assert "7 objects missing" in question
    assert f'href="{reverse("admin:buckets_bucket_held", args=[bucket.pk])}"' in question
    assert "holds-none" not in question
    assert store.hget(redis_keys.bucket("media-in"), "released") is None

    answer = act(operator, "release_holds", bucket, other, confirmed="yes")
    assert "1 released" in text(answer)
    assert store.hexists(redis_keys.bucket("media-in"), "released")


@pytest.mark.parametrize(
    ("action", "question", "released"),
    [
        ("announce_updates", "Announce the held updates?", "5"),
        ("take_times", "Take the new times silently?", "silently"),
    ],
)
def test_held_times_are_released_by_an_action_that_asks_first(
    operator, store, bucket, action, question, released
):
    other = services.add_bucket(name="holds-none", region="r", credential=bucket.credential)
    store.hset(redis_keys.bucket("media-in"), mapping={"held_moved_since": "1", "held_moved": "5"})
    Bucket.objects.filter(pk=bucket.pk).update(held_moved_since=timezone.now(), held_moved=5)

    page = text(act(operator, action, bucket, other))
    assert question in page
    assert "5 objects with another time only" in page
    assert f'href="{reverse("admin:buckets_bucket_held", args=[bucket.pk])}"' in page
    assert "holds-none" not in page
    assert store.hget(redis_keys.bucket("media-in"), "released_moved") is None

    assert "1 released" in text(act(operator, action, bucket, other, confirmed="yes"))
    assert store.hget(redis_keys.bucket("media-in"), "released_moved") == released
    assert store.hget(redis_keys.bucket("media-in"), "released") is None


def test_releasing_where_nothing_is_held_says_so(operator, bucket):
    assert "None of them holds deletions" in text(act(operator, "release_holds", bucket))
    for action in ("announce_updates", "take_times"):
        assert "None of them holds moved times" in text(act(operator, action, bucket))


def test_releasing_with_redis_down_says_that_nothing_was_released(operator, bucket):
    Bucket.objects.filter(pk=bucket.pk).update(held_since=timezone.now())
    answer = act(operator, "release_holds", bucket, confirmed="yes")
    assert "Nothing was released" in text(answer)


def test_starting_over_asks_first_and_then_begins_a_new_generation(operator, store, bucket):
    Bucket.objects.filter(pk=bucket.pk).update(held_since=timezone.now(), held_missing=7)
    assert "Start over silently?" in text(act(operator, "rebaseline", bucket))
    bucket.refresh_from_db()
    before = bucket.generation

    answer = act(operator, "rebaseline", bucket, confirmed="yes")

    assert "1 start over" in text(answer)
    bucket.refresh_from_db()
    assert bucket.generation > before
    assert bucket.first_scan == "baseline"
    assert bucket.held_since is None


def test_deleting_asks_first_and_is_mirrored_and_empties_the_vault(operator, redis_server, bucket):
    assert "Stop watching these buckets?" in text(act(operator, "delete_buckets", bucket))
    assert Bucket.objects.exists()

    act(operator, "delete_buckets", bucket, confirmed="yes")

    assert not Bucket.objects.exists()
    assert wiring.background().bucket_configs.load().buckets == {}
    assert wiring.vault().read_all() == {}


def test_a_question_about_all_pages_is_answered_for_all_pages(operator, redis_server, bucket):
    for n in range(150):
        services.add_bucket(name=f"more-{n}", region="r", credential=bucket.credential)

    question = act(operator, "rebaseline", bucket, select_across="1")
    assert "151 buckets" in text(question)
    assert "and 131 more" in text(question)
    act(operator, "rebaseline", bucket, select_across="1", confirmed="yes")

    assert Bucket.objects.filter(first_scan="baseline").count() == 151


@pytest.mark.parametrize(
    ("action", "outcome"),
    [
        ("scan_now", "400 due now: scanned as soon as a worker is free"),
        ("pause_monitoring", "400 selected: paused"),
        ("release_holds", "400 released"),
        ("rebaseline", "400 start over"),
        ("remember_after_loss", "400 go on"),
        ("delete_buckets", "400 deleted"),
    ],
)
def test_actions_take_hundreds_of_buckets_in_a_few_queries(
    operator, store, bucket, django_assert_max_num_queries, action, outcome
):
    troubles = {"held_since": timezone.now(), "lost_since": timezone.now()}
    Bucket.objects.all().delete()
    Bucket.objects.bulk_create(
        Bucket(name=f"b-{n}", region="r", endpoint="e", credential=bucket.credential, **troubles)
        for n in range(400)
    )
    one = Bucket.objects.earliest("pk")

    with django_assert_max_num_queries(100):
        answer = act(operator, action, one, select_across="1", confirmed="yes")

    assert outcome in text(answer)
    assert LogEntry.objects.filter(object_id=str(one.pk)).exists()
    assert Outbox.objects.count() == 0


def test_djangos_own_deletion_of_several_is_not_offered(operator, bucket):
    assert "delete_selected" not in text(operator.get(LIST))
