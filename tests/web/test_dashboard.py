"""The operator's first page."""

import html
import json
import re
import time
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.urls import reverse
from django.utils import timezone

from buckets import services
from buckets.models import Bucket, Credential, Outbox
from buckets.pages import dashboard
from scanning import engine
from scanning.core import redis_keys
from scanning.core.metrics import counters
from scanning.core.metrics.telemetry import EndpointLoad
from scanning.core.types import EventType

pytestmark = pytest.mark.django_db(transaction=True)

PAGE = reverse("admin:index")
QUEUE = "linode:notifications:queue"
MOST_QUERIES = 30


@pytest.fixture
def redis(redis_server):
    with redis_server.client() as client:
        client.config_set("appendonly", "yes")
        client.set(redis_keys.LEADER, "host:1")
        yield client


@pytest.fixture
def bucket() -> Bucket:
    bucket = services.add_bucket(
        name="media-in",
        region="us-iad-1",
        access_key="A",
        secret_key="S",
        webhook_url="https://api.example.com/hook",
    )
    Bucket.objects.update(last_scan_at=timezone.now())
    return bucket


def text(response: Any) -> str:
    """What the page says, without its tags."""
    page = re.sub(r"<(script|style|title)\b.*?</\1>", "", str(response.content, "utf-8"))
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def schedule(redis: Any, bucket: Bucket, *, at: float) -> None:
    redis.sadd(redis_keys.REGIONS, bucket.region)
    redis.zadd(redis_keys.due(bucket.region), {bucket.name: at})


def minute(redis: Any, ago: int, **counted: int) -> None:
    fields = {counters.ANNOUNCED.get(name, name): n for name, n in counted.items()}  # type: ignore[call-overload]
    redis.hset(f"{redis_keys.MINUTE_PREFIX}{int(time.time() // 60) - ago}", mapping=fields)


def test_when_all_is_well_it_says_so(operator, redis, bucket):
    schedule(redis, bucket, at=time.time() + 60)
    page = text(operator.get(PAGE))
    assert "All is well: 1 bucket on time" in page
    assert "Needs attention" not in page


def test_before_the_first_scans_it_does_not_call_buckets_on_time(operator, redis, bucket):
    Bucket.objects.update(last_scan_at=None)
    assert "1 bucket waits for a first scan" in text(operator.get(PAGE))


def test_what_needs_attention_comes_with_reason_next_step_and_a_link(operator, redis, bucket):
    Bucket.objects.update(last_error="403 <AccessDenied>", last_error_class="AccessDenied")

    page = operator.get(PAGE)

    assert "1 thing needs attention" in text(page)
    assert "403 &lt;AccessDenied&gt;" in text(page)
    assert "Next step: Allow the access key to list and read the bucket" in text(page)
    assert reverse("admin:buckets_bucket_overview", args=[bucket.pk]) in str(page.content)


def test_buckets_that_fail_alike_are_one_thing_that_leads_to_all_of_them(operator, redis, bucket):
    for n in range(5):
        Bucket.objects.create(
            name=f"b-{n}",
            region="r",
            endpoint="e",
            credential=bucket.credential,
            last_error_class="AccessDenied" if n else "BucketNotFound",
        )

    page = str(operator.get(PAGE).content, "utf-8")

    assert "4 buckets: the key pair may not list the bucket" in page
    url = re.search(r'href="([^"]+error=AccessDenied)"', page)
    assert url is not None
    listed = operator.get(html.unescape(url[1])).context["cl"].result_list
    assert [row.name for row in listed] == ["b-1", "b-2", "b-3", "b-4"]


def test_each_state_is_counted_and_leads_to_its_list(operator, redis, bucket):
    schedule(redis, bucket, at=1.0)

    page = str(operator.get(PAGE).content, "utf-8")

    [tile] = re.findall(r'<a class="tile is-late"[^>]*>.*?</a>', page, re.DOTALL)
    assert "<strong>1</strong>" in tile
    url = re.search(r'href="([^"]+)"', tile)
    assert url is not None
    assert "media-in" in str(operator.get(url[1]).content, "utf-8")


def test_queue_rates_and_regions_are_shown(operator, redis, bucket):
    schedule(redis, bucket, at=1.0)
    redis.zadd(redis_keys.running(bucket.region), {"another": time.time() + 60})
    redis.rpush(QUEUE, json.dumps({"detection_time": time.time() - 12.5 * 3600}))
    for ago in range(6):  # this one too: it may end before the page is made
        minute(redis, ago, total_objects_scanned=60_000, list_calls=90, queue_length=ago * 100)

    page = text(operator.get(PAGE))

    assert "Queue 1 " in page
    assert "oldest for 12 h" in page
    assert "Objects a second 1,000" in page
    assert "1.5 LIST calls a second" in page
    assert "us-iad-1 1 1 0 1 of 15" in page


def test_a_queue_whose_oldest_has_no_time_is_not_called_empty(operator, redis, bucket):
    assert "Queue 0 nothing waits" in text(operator.get(PAGE))
    redis.rpush(QUEUE, "not ours")
    assert "Queue 1 the oldest does not say since when" in text(operator.get(PAGE))


def test_soon_after_a_start_rates_are_those_since_then(operator, redis, bucket):
    schedule(redis, bucket, at=1.0)
    minute(redis, 0, total_objects_scanned=6_000_000, list_calls=6_000)

    page = text(operator.get(PAGE))

    assert re.search(r"Objects a second [1-9]", page)
    assert re.search(r"[1-9][\d,.]* LIST calls a second", page)


@pytest.mark.parametrize(
    ("lengths", "trend"),
    [
        pytest.param([100] * 10, "steady", id="steady"),
        pytest.param([100] * 5 + [200] * 5, "growing", id="growing"),
        pytest.param([200] * 5 + [100] * 5, "shrinking", id="shrinking"),
        pytest.param([100], "", id="not-known-yet"),
    ],
)
def test_the_trend_of_the_queue_is_a_word(operator, redis, bucket, lengths, trend):
    for ago, length in enumerate(reversed(lengths)):
        minute(redis, ago, queue_length=length)
    page = text(operator.get(PAGE))
    said = [word for word in ("steady", "growing", "shrinking") if word in page]
    assert said == ([trend] if trend else [])


def test_the_chart_says_in_words_what_it_shows(operator, redis, bucket):
    minute(redis, 3, **{EventType.CREATED: 40, EventType.DELETED: 2})
    page = str(operator.get(PAGE).content, "utf-8")
    assert (
        'aria-label="Notifications in the last hour: 40 created, 0 updated, 0 detected, 2 deleted; '
        'at most 42 a minute."' in page
    )
    assert re.search(r"<title>\d\d:\d\d UTC: 40 created, 2 deleted</title>", page)


def test_recent_notifications_show_keys_as_they_are(operator, redis, bucket):
    events = [["created", "a/<b> & c.txt", 1536]]
    commit = {"bucket": "media-in", "at": time.time() - 5, "count": 1, "events": events}
    redis.xadd(redis_keys.EVENTS, {"commit": json.dumps(commit)})
    page = text(operator.get(PAGE))
    assert "a/&lt;b&gt; &amp; c.txt" in page
    assert "1.5 KiB" in page


def test_without_redis_it_says_so_and_shows_what_the_database_knows(operator, bucket):
    page = text(operator.get(PAGE))
    assert "Redis is away" in page
    assert "1 fine when last seen" in page
    assert "on time" not in page
    assert "Recent notifications" not in page


def test_a_new_installation_is_told_how_to_begin(operator, redis):
    page = text(operator.get(PAGE))
    assert "No bucket is watched yet" in page
    assert "Add a bucket" in page


def test_who_may_not_see_buckets_is_told_what_he_may_see(client):
    user = User.objects.create(username="ute", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_user"))
    client.force_login(user)
    page = text(client.get(PAGE))
    assert "Your account may not see the buckets" in page
    assert "Users" in page


def test_who_may_only_look_sees_all_of_it_and_is_offered_nothing(client, redis):
    user = User.objects.create(username="vera", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_bucket"))
    client.force_login(user)
    page = str(client.get(PAGE).content, "utf-8")
    assert reverse("admin:buckets_bucket_changelist") in page
    assert reverse("admin:buckets_bucket_add") not in page


def test_five_thousand_buckets_take_few_queries(operator, redis, django_assert_max_num_queries):
    pair = Credential.objects.create(name="shared", vault_prefix="SHARED")
    Bucket.objects.bulk_create(
        Bucket(
            name=f"bucket-{n}",
            region=f"r-{n % 25}",
            endpoint="s3.example.com",
            credential=pair,
            last_error_class="AccessDenied" if n % 7 else "",
            held_since=timezone.now(),
        )
        for n in range(5000)
    )
    redis.sadd(redis_keys.REGIONS, *(f"r-{n}" for n in range(25)))
    for n in range(5000):
        redis.zadd(redis_keys.due(f"r-{n % 25}"), {f"bucket-{n}": 1.0})
    with django_assert_max_num_queries(MOST_QUERIES):
        page = operator.get(PAGE)
    assert "5,000" in text(page)
    assert len(engine.late_buckets()) == 5000


def test_work_that_takes_a_while_is_shown_while_it_does(operator, redis, bucket):
    redis.sadd(redis_keys.CLEARING, "old-a", "old-b")
    Outbox.add(["media-in"])
    page = text(operator.get(PAGE))
    assert "What Redis knew of 2 removed buckets is being cleared: old-a, old-b" in page
    assert "Changes of 1 bucket are on their way to the scanner" in page


def test_a_region_says_whether_its_endpoints_may_be_asked_freely(operator, redis, bucket):
    schedule(redis, bucket, at=time.time() + 60)
    assert "0 of 15 free" in text(operator.get(PAGE))
    away = EndpointLoad(
        bucket.endpoint, state="dead", list_per_s=0, wait_until=time.time(), why="No answer."
    )
    slowed = EndpointLoad(bucket.endpoint, state="slowed", list_per_s=12.5)
    loads = engine.telemetry().regions
    [row] = dashboard.region_rows(loads, [slowed])
    assert row.pace == slowed
    [row] = dashboard.region_rows(loads, [away])
    assert row.pace == away
