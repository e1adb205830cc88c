"""What an operator has to look at: the reason, the next step, and never a long list."""

import json
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
import redis
from django.utils import timezone
from pydantic import SecretStr

from buckets.health.alerts import EXAMPLES, LIMIT_PER_KIND, Alert, AlertKind
from buckets.health.overview import overview
from buckets.models import Bucket, Outbox, VaultRemoval
from scanning import wiring
from scanning.core import errors, redis_keys
from scanning.core.remedies import REMEDIES
from tests.support import api_client, engine_buckets

pytestmark = pytest.mark.django_db

QUEUE = "linode:notifications:queue"


@pytest.fixture
def store(safe_redis) -> Iterator[redis.Redis]:
    with safe_redis.client() as client:
        client.set(redis_keys.LEADER, "host:1")
        yield client


@pytest.fixture
def small_queue(settings) -> None:
    queue_conf = settings.SCANNING.queue.model_copy(update={"high_water": 10})
    settings.SCANNING = settings.SCANNING.model_copy(update={"queue": queue_conf})
    wiring.reset()


def fail(*names: str, error: str = "AccessDenied") -> None:
    for name in names:
        api_client.add_with_status(name, last_error=f"{name}: S3 says no", last_error_class=error)


def attention() -> list[Alert]:
    return list(overview().attention)


def only() -> Alert:
    [found] = attention()
    return found


def test_nothing_to_look_at_is_an_empty_list(store):
    assert attention() == []
    api_client.add_with_status("media-in", last_scan_at=timezone.now())
    assert attention() == []


def test_a_failing_bucket_is_named_with_its_error_and_what_to_do(store):
    fail("media-in")
    assert only() == Alert(
        AlertKind.FAILING,
        "media-in: the key pair may not list the bucket",
        "media-in: S3 says no",
        "Allow the access key to list and read the bucket, or use another credential.",
        "media-in",
        error_class="AccessDenied",
    )


def test_a_paused_bucket_needs_no_attention(store):
    fail("media-in")
    api_client.add_with_status("media-out")
    Bucket.objects.filter(name="media-in").update(monitoring_enabled=False)
    assert attention() == []


def test_many_buckets_with_one_error_are_one_line_with_examples(store):
    fail(*(f"bucket-{number}" for number in range(EXAMPLES + 2)))
    fail("other", error="Throttled")
    many, other = attention()
    assert (many.title, many.bucket, many.count) == (
        "5 buckets: the key pair may not list the bucket",
        None,
        5,
    )
    assert many.reason == (
        "Among them bucket-0, bucket-1, bucket-2. The first says: bucket-0: S3 says no"
    )
    assert (other.bucket, other.title) == ("other", "other: S3 asks to slow down")


def test_an_error_that_nobody_expected_is_sent_to_the_log(store):
    fail("media-in", error="BucketwatchError")
    assert "log of the workers" in only().next_step


def leaves(kind: type[Exception]) -> Iterator[type[Exception]]:
    """The errors of the product, and not those that other tests derive from them."""
    children = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
    if not children:
        yield kind
    for child in children:
        yield from leaves(child)


OF_SCANS = [*leaves(errors.TransientError), *leaves(errors.PermanentError)]


@pytest.mark.parametrize("kind", OF_SCANS, ids=lambda kind: kind.__name__)
def test_there_is_advice_for_every_error_that_ends_a_scan(kind):
    assert kind in REMEDIES


def test_held_buckets_are_listed_the_longest_held_first_and_not_without_end(store):
    now = timezone.now()
    for number in range(LIMIT_PER_KIND + 3):
        since = now - timedelta(hours=number)
        api_client.add_with_status(
            f"bucket-{number}", held_since=since, held_missing=12345, last_scan_at=now
        )
    *shown, more = attention()
    assert [found.bucket for found in shown] == [f"bucket-{n}" for n in range(12, 2, -1)]
    assert "12,345 objects that were known are not listed any more" in shown[0].reason
    assert "release the hold" in shown[0].next_step
    assert (more.bucket, more.count) == (None, 3)
    assert more.title == "3 buckets more: mass deletions or moved times wait for a choice"


def test_a_storm_of_moved_times_is_told_with_what_can_be_chosen(store):
    now = timezone.now()
    times = {"held_moved_since": now, "held_moved": 1234, "last_scan_at": now}
    api_client.add_with_status("stormy", **times)
    earlier = now - timedelta(hours=1)
    api_client.add_with_status("both", **times, held_since=earlier, held_missing=5)
    deletion, _, storm = attention()
    assert (deletion.bucket, storm.bucket) == ("both", "stormy")
    assert storm.title == "stormy: a storm of moved times waits for a choice"
    assert "1,234 objects with the known ETag and size have another time" in storm.reason
    assert "take the new times silently" in storm.next_step


def test_redis_away_is_told_with_what_the_database_knows(redis_server):
    fail("media-in")
    redis_server.stop()
    away, failing = attention()
    assert (away.kind, failing.kind) == (AlertKind.REDIS_AWAY, AlertKind.FAILING)
    assert "Redis does not answer" in away.reason
    assert "nothing is lost" in away.reason


def test_a_redis_that_may_lose_data_is_told_of_with_the_setting_to_change(store):
    store.config_set("save", "")
    assert only().kind is AlertKind.REDIS_AT_RISK
    assert only().reason.startswith("appendonly is off and save is empty: a restart of Redis loses")
    assert only().next_step == "Set appendonly to yes."


def test_every_warning_of_redis_ends_with_what_to_do(store, settings):
    with store.pipeline() as pipe:  # a user who may not ask what it is about
        pipe.execute_command(
            *["ACL", "SETUSER", "few", "on", ">few", "~*", "+@all", "-info", "-config"]
        )
        pipe.execute()
    url = settings.SCANNING.redis.url.get_secret_value().replace("//", "//few:few@")
    redis_conf = settings.SCANNING.redis.model_copy(update={"url": SecretStr(url)})
    settings.SCANNING = settings.SCANNING.model_copy(update={"redis": redis_conf})
    wiring.reset()
    found = only()
    store.execute_command("ACL", "DELUSER", "few")
    assert found.reason == "Whether Redis may lose data cannot be checked."
    assert found.next_step.startswith("Let our user run INFO")


def die(store: redis.Redis, *endpoints: str) -> None:
    pace = {"dead_since": time.time(), "wait_until": time.time() + 5, "why": "no answer in 30 s"}
    for endpoint in endpoints:
        store.set(redis_keys.pace(endpoint), json.dumps(pace))
        store.zadd(redis_keys.PACES, {endpoint: time.time()})


def test_an_endpoint_that_does_not_answer_is_named_with_the_reason(store):
    die(store, "s3.example.com")
    assert only().kind is AlertKind.ENDPOINT_DEAD
    assert only().title == "s3.example.com does not answer"
    assert only().reason.startswith("no answer in 30 s. Its buckets wait;")


def test_many_dead_endpoints_are_not_listed_without_end(store):
    die(store, *(f"s3-{number:02}.example.com" for number in range(LIMIT_PER_KIND + 2)))
    *shown, more = attention()
    assert len(shown) == LIMIT_PER_KIND
    assert (more.title, more.count) == ("2 endpoints more do not answer", 2)


def test_without_a_monitor_nothing_is_scheduled(store):
    engine_buckets.schedule(store, engine_buckets.put("media-in"), at=time.time() + 50)
    assert attention() == []
    store.delete(redis_keys.LEADER)
    assert only().kind is AlertKind.NO_MONITOR
    assert "manage.py runmonitor" in only().next_step


def test_where_no_monitor_ever_ran_that_is_said_too(store):
    api_client.add_with_status("media-in", webhook_url="https://api.example.com/hook")
    assert attention() == []
    store.delete(redis_keys.LEADER)
    assert only().kind is AlertKind.NO_MONITOR


def test_an_empty_installation_needs_no_monitor(store):
    store.delete(redis_keys.LEADER)
    assert attention() == []


def late(store: redis.Redis, number: int, *, running: int) -> Alert:
    now = time.time()
    for n in range(number):
        engine_buckets.schedule(store, engine_buckets.put(f"bucket-{n}"), at=now - 60)
    for n in range(running):
        store.zadd(redis_keys.running(engine_buckets.REGION), {f"other-{n}": now + 60})
    return only()


def test_late_buckets_of_a_region_without_workers_ask_for_workers(store):
    found = late(store, 2, running=0)
    assert (found.kind, found.count) == (AlertKind.LATE, 2)
    assert found.title == f"2 buckets in {engine_buckets.REGION} are late"
    assert "no worker takes this region's buckets" in found.reason
    assert "manage.py runworkers" in found.next_step


def test_late_buckets_of_a_full_region_ask_for_more_slots(store):
    found = late(store, 1, running=15)
    assert found.title == f"1 bucket in {engine_buckets.REGION} is late"
    assert "all 15 slots" in found.reason
    assert "PARALLEL_RATE_LIMIT_PER_REGION" in found.next_step


def test_late_buckets_of_a_region_with_free_slots_ask_for_more_threads(store):
    found = late(store, 1, running=3)
    assert "3 of 15 slots" in found.reason
    assert "PARALLEL_MAX_WORKERS" in found.next_step


@pytest.mark.parametrize(
    ("length", "kind"), [(7, None), (8, AlertKind.QUEUE_FILLING), (10, AlertKind.QUEUE_FULL)]
)
def test_the_queue_is_watched_before_and_when_it_is_full(small_queue, store, length, kind):
    store.rpush(QUEUE, *["{}"] * length)
    assert [found.kind for found in attention()] == ([kind] if kind else [])


def test_a_queue_that_nobody_reads_is_told_of(store):
    store.rpush(QUEUE, f'{{"detection_time": {time.time() - 7300}}}')
    assert only().kind is AlertKind.QUEUE_UNREAD
    assert "has waited for 2 h" in only().reason


def test_changes_that_do_not_reach_redis_are_told_of_after_a_while(store):
    Outbox.add(["a", "b"])
    Outbox.add(["a"])
    assert attention() == []
    Outbox.objects.update(created_at=timezone.now() - timedelta(minutes=5))
    assert (only().kind, only().count) == (AlertKind.NOT_MIRRORED, 2)
    assert only().title == "Changes of 2 buckets have not reached the scanner"


def test_removals_that_do_not_reach_the_vault_are_told_of_after_a_while(store):
    VaultRemoval.objects.create(kind="pair", name="A")
    assert attention() == []
    VaultRemoval.objects.update(created_at=timezone.now() - timedelta(minutes=5))
    assert only().kind is AlertKind.VAULT_REMOVALS
    assert only().title == "The vault still holds 1 entry to be removed"


def test_a_site_without_any_webhook_is_told_so(store):
    api_client.add_with_status("media-in", webhook_url="")
    assert only().kind is AlertKind.NO_WEBHOOK
    assert "READY_REQUIRE_WEBHOOK" in only().next_step


def test_the_worst_comes_first(small_queue, store):
    now = timezone.now()
    store.rpush(QUEUE, *["{}"] * 10)
    api_client.add_with_status("held", held_since=now, held_missing=5, last_scan_at=now)
    fail("failing")
    assert late_kinds(store) == [
        AlertKind.QUEUE_FULL,
        AlertKind.FAILING,
        AlertKind.HELD,
        AlertKind.LATE,
    ]


def late_kinds(store: redis.Redis) -> list[AlertKind]:
    engine_buckets.schedule(store, engine_buckets.put("late"), at=time.time() - 60)
    return [found.kind for found in attention()]


def test_five_thousand_buckets_cost_a_handful_of_queries(store, django_assert_max_num_queries):
    api_client.add_bucket("media-in")
    [example] = Bucket.objects.all()
    Bucket.objects.bulk_create(
        Bucket(
            name=f"bucket-{n}",
            region="r",
            endpoint="e",
            credential=example.credential,
            webhook_url="https://example.com",
            last_error="e",
            last_error_class=["AccessDenied", "Throttled"][n % 2],
        )
        for n in range(5000)
    )
    with django_assert_max_num_queries(9):
        found = attention()
    assert [one.count for one in found] == [2500, 2500]
