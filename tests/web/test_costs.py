"""What watching costs, as pages, the form, the API and the terminal say it."""

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis as redis_library
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import expect

from buckets import services
from buckets.health.alerts import AlertKind
from buckets.health.overview import overview
from buckets.management import status_report
from buckets.models import Bucket, Endpoint
from scanning import wiring
from scanning.core import redis_keys
from scanning.core.request_costs import RequestKind
from scanning.ports import EndpointUsage, RequestReport
from tests.support import api_client
from tests.support.browser import chromium, log_in, new_page

pytestmark = pytest.mark.django_db(transaction=True)

ENDPOINT = "us-iad-1.linodeobjects.com"
ADD = reverse("admin:buckets_bucket_add")


@pytest.fixture
def redis(safe_redis) -> Iterator[redis_library.Redis]:
    with safe_redis.client() as client:
        client.set(redis_keys.LEADER, "host:1")
        yield client


@pytest.fixture
def bucket(redis) -> Bucket:
    """With a million objects and a minute between its passes."""
    api_client.add_with_status("media-in", object_count=1_000_000, last_scan_at=timezone.now())
    Endpoint.objects.get_or_create(name=ENDPOINT)
    return Bucket.objects.get(name="media-in")


@pytest.fixture
def prices(settings) -> None:
    """AWS's, in dollars."""
    section = settings.SCANNING.requests.model_copy(
        update={"price_per_1000": "0.005/0.0004", "currency": "USD"}
    )
    settings.SCANNING = settings.SCANNING.model_copy(update={"requests": section})
    wiring.reset()


def send(**numbers: int) -> None:
    """As if these had been sent for media-in today, by kind."""
    sent = {("media-in", RequestKind(kind)): number for kind, number in numbers.items()}
    report = RequestReport(f"test-{time.time_ns()}", 1, sent)
    wiring.background().endpoint_health.share_usage(EndpointUsage(ENDPOINT, report=report))


def text(response: Any) -> str:
    page = re.sub(r"<(script|style|title)\b.*?</\1>", "", str(response.content, "utf-8"))
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


# --- pages


def test_the_page_of_a_bucket_says_what_was_sent_and_what_a_day_takes(operator, bucket):
    send(list=2000, head_metadata=7, head_witness=2, head_bucket=30)
    page = text(operator.get(reverse("admin:buckets_bucket_overview", args=[bucket.pk])))
    sent = "2,000 LIST, 7 HEAD for metadata, 2 HEAD of missing objects, 30 HEAD of buckets"
    assert f"Requests today {sent} " in page
    assert "Requests a day passes 1,440,000 LIST, objects 9 HEAD, probes 17,280 HEAD" in page
    assert "Budget" not in page


def test_a_price_turns_requests_into_money(operator, bucket, prices):
    send(list=2000)
    page = text(operator.get(reverse("admin:buckets_bucket_overview", args=[bucket.pk])))
    assert "Requests today 2,000 LIST; 0.01 USD " in page
    assert "passes 1,440,000 LIST, probes 17,280 HEAD; 7.21 USD, 216.21 USD in 30 days" in page


def test_the_price_of_an_endpoint_wins(operator, bucket, prices):
    endpoint = Endpoint.objects.get(name=ENDPOINT)
    services.update_endpoint(endpoint=endpoint, request_price="1")
    send(list=2000)
    page = text(operator.get(reverse("admin:buckets_bucket_overview", args=[bucket.pk])))
    assert "Requests today 2,000 LIST; 2.00 USD " in page


def test_a_bucket_that_was_never_scanned_has_no_forecast(operator, redis):
    bucket = api_client.add_bucket("media-in")
    page = text(operator.get(reverse("admin:buckets_bucket_overview", args=[bucket.pk])))
    assert "Requests today none " in page
    assert "Requests a day not known before the first scan" in page


def test_a_budget_is_shown_with_what_is_left_of_it(operator, bucket):
    services.update_bucket(bucket=bucket, requests_per_day=5000)
    send(list=2000)
    page = text(operator.get(reverse("admin:buckets_bucket_overview", args=[bucket.pk])))
    assert "Budget 5,000 a day, 3,000 left today" in page


def test_the_page_of_an_endpoint_adds_its_buckets_up(operator, bucket):
    api_client.add_with_status("media-out", object_count=10, last_scan_at=timezone.now())
    send(list=2000, head_bucket=5)
    endpoint = Endpoint.objects.get(name=ENDPOINT)
    services.update_endpoint(endpoint=endpoint, requests_per_day=10_000)
    page = text(operator.get(reverse("admin:buckets_endpoint_change", args=[endpoint.pk])))
    assert "Today: 2,000 LIST, 5 HEAD of buckets A day: passes 1,441,440 LIST, probes" in page
    assert "10,000 a day, 7,995 left today" in page


def test_dashboard_and_terminal_count_what_all_sent_today(operator, bucket, prices):
    send(list=2000, head_metadata=500)
    page = text(operator.get(reverse("admin:index")))
    assert "Requests today 2,500 2,000 LIST, 500 HEAD for metadata; 0.01 USD" in page
    lines = status_report.lines(overview(), timezone.now(), bad=str, good=str)
    assert "TODAY       2,000 LIST, 500 HEAD for metadata; 0.01 USD (UTC)" in list(lines)


def test_without_redis_the_forecast_is_there(operator, bucket, redis_server):
    redis_server.stop()
    page = text(operator.get(reverse("admin:buckets_bucket_overview", args=[bucket.pk])))
    assert "Requests today — " in page
    assert "Requests a day passes 1,440,000 LIST" in page


def test_endpoints_of_many_buckets_are_as_many_queries_as_those_of_one(
    operator, bucket, django_assert_max_num_queries
):
    endpoint = Endpoint.objects.get(name=ENDPOINT)
    like = {"region": bucket.region, "endpoint": bucket.endpoint, "credential": bucket.credential}
    Bucket.objects.bulk_create(Bucket(name=f"bucket-{number}", **like) for number in range(100))
    with django_assert_max_num_queries(20):
        operator.get(reverse("admin:buckets_endpoint_change", args=[endpoint.pk]))


# --- the form


def forecast(operator: Client, **fields: str) -> str:
    answer = operator.get(reverse("admin:buckets_bucket_forecast_new"), fields)
    assert answer.status_code == 200
    return answer.content.decode()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        pytest.param({}, "Enter about how many objects there are", id="unknown"),
        pytest.param(
            {"expected_objects": "5000"}, "passes 7,200 LIST, probes 17,280 HEAD.", id="by default"
        ),
        pytest.param(
            {"expected_objects": "5000", "polling_interval": "3600"},
            "passes 120 LIST, probes 288 HEAD.",
            id="slow",
        ),
        pytest.param(
            {"expected_objects": "5000", "probe_interval": "0"}, "passes 7,200 LIST.", id="unprobed"
        ),
        pytest.param(
            {"expected_objects": "5", "polling_longest": "3600"},
            "passes at most 1,440 LIST.",
            id="adaptive",
        ),
        pytest.param({"expected_objects": "many"}, "Enter a whole number.", id="no number"),
        pytest.param(
            {"expected_objects": "5", "polling_interval": "0"}, "Enter at least 1 second", id="0 s"
        ),
        pytest.param(
            {"expected_objects": "5000", "requests_per_day": "1000"},
            "That is more than the budget of 1,000: passes would come less often.",
            id="budget",
        ),
    ],
)
def test_the_form_of_a_new_bucket_says_what_it_would_cost(operator, redis, fields, said):
    assert said in forecast(operator, **fields)


def test_a_stored_bucket_is_forecast_by_its_objects_unless_others_are_given(operator, bucket):
    url = reverse("admin:buckets_bucket_forecast", args=[bucket.pk])
    assert "passes 1,440,000 LIST, probes" in operator.get(url).content.decode()
    assert "passes 1,440 LIST." in operator.get(url, {"expected_objects": "7"}).content.decode()
    page = text(operator.get(reverse("admin:buckets_bucket_change", args=[bucket.pk])))
    said = "passes 1,440,000 LIST, probes 17,280 HEAD."
    assert f"With 1,000,000 objects, a day: {said}" in page


def test_who_may_only_look_sees_the_forecast_of_what_is_stored(client, bucket, django_user_model):
    user = django_user_model.objects.create(username="vera", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_bucket"))
    client.force_login(user)
    answer = client.get(reverse("admin:buckets_bucket_change", args=[bucket.pk]))
    assert "passes 1,440,000 LIST, probes 17,280 HEAD." in text(answer)
    assert "bjects about" not in text(answer)
    assert "xpected objects" not in text(answer)
    assert client.get(reverse("admin:buckets_bucket_forecast", args=[bucket.pk])).status_code == 403
    assert client.get(reverse("admin:buckets_bucket_forecast_new")).status_code == 403


def test_who_may_not_see_buckets_sees_no_forecast(client, bucket):
    for url in (
        reverse("admin:buckets_bucket_forecast_new"),
        reverse("admin:buckets_bucket_forecast", args=[bucket.pk]),
    ):
        assert client.get(url).status_code == 302


def test_the_number_for_the_forecast_is_not_saved(operator, redis):
    fields = {"name": "media-in", "region": "us-iad-1", "access_key": "A", "secret_key": "S"}
    fields |= {"first_scan": "announce", "expected_objects": "5000", "requests_per_day": "700"}
    operator.post(ADD, fields)
    bucket = Bucket.objects.get()
    assert (bucket.requests_per_day, bucket.object_count) == (700, None)
    assert wiring.background().bucket_configs.load().buckets["media-in"].requests_per_day == 700


@pytest.mark.browser
def test_the_forecast_follows_the_form_and_no_secret_is_sent_for_it(
    live_server, redis, django_user_model
):
    executable = chromium()
    if executable is None:
        pytest.skip("NO BROWSER TESTS: no chromium runs here (apt-get install chromium)")
    django_user_model.objects.create_superuser("olga", password="open sesame, please")
    with new_page(executable) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        log_in(page, live_server.url, "olga", "open sesame, please")
        page.goto(f"{live_server.url}{ADD}")
        said = page.locator("[data-forecast]")
        expect(said).to_contain_text("Enter about how many objects there are")
        page.fill("#id_secret_key", "wrJalrXUtnFEMI")
        page.fill("#id_expected_objects", "1000000")
        expect(said).to_contain_text("passes 1,440,000 LIST, probes 17,280 HEAD.")
        page.fill("#id_polling_interval", "3600")
        expect(said).to_contain_text("passes 24,000 LIST, probes 288 HEAD.")
        page.fill("#id_probe_interval", "10")
        expect(said).to_contain_text("passes 24,000 LIST, probes 8,640 HEAD.")
        page.fill("#id_polling_interval", "0")
        expect(said).to_contain_text("Enter at least 1 second")
    forecasts = [url for url in asked if "/forecast/" in url]
    assert forecasts
    assert not any("wrJalrXUtnFEMI" in url for url in forecasts)


# --- the API


def test_the_api_tells_requests_and_forecasts(bucket, prices):
    send(list=2000, head_bucket=5)
    caller = api_client.Caller(api_client.new_client()[0])
    shown = caller.get("/api/v1/buckets/media-in/").json()
    assert shown["requests_today"] == {
        "list": 2000,
        "head_metadata": 0,
        "head_witness": 0,
        "head_bucket": 5,
        "cost": pytest.approx(0.010002),
    }
    expected = {"list": 1_440_000, "head_metadata": 0, "head_witness": 0, "head_bucket": 17_280}
    assert shown["forecast"] == expected | {"cost": pytest.approx(7.206912)}
    url = f"/api/v1/endpoints/{ENDPOINT}/"
    body = {"requests_per_day": 10_000, "request_price": "0.1"}
    there = caller.send("PATCH", url, body).json()
    assert (there["requests_per_day"], there["request_price"]) == (10_000, "0.1")
    assert there["requests_today"]["list"] == 2000
    assert there["forecast"]["cost"] == pytest.approx(145.728)
    refused = caller.send("PATCH", url, {"request_price": "cheap"})
    assert refused.status_code == 400
    assert "the price of 1,000 requests" in api_client.error_of(refused)


# --- attention


def test_a_bucket_whose_budget_runs_short_needs_attention(bucket):
    services.update_bucket(bucket=bucket, requests_per_day=28_800)
    send(list=27_000)
    redis = wiring.background().connection.client
    until = time.time() // 86400 * 86400 + 86400 + 17 * 3600
    redis.zadd(redis_keys.STRETCHED, {"media-in": until, "removed": until})
    [alert] = [one for one in overview().attention if one.kind is AlertKind.BUDGET]
    assert alert.bucket == "media-in"
    assert alert.title == "media-in: its budget of requests makes passes rarer"
    assert alert.reason == (
        "The next one is at 17:00 UTC, not 1 min after the last: 27,000 of its 28,800 requests a "
        "day were sent. What changes there is announced later."
    )
    assert alert.next_step == (
        "Lengthen its polling interval to 50 min or more, which the budget pays for, or raise the "
        "requests a day."
    )


def test_the_budget_of_an_endpoint_is_named_too(bucket):
    endpoint = Endpoint.objects.get(name=ENDPOINT)
    services.update_endpoint(endpoint=endpoint, requests_per_day=10_000)
    send(list=12_000)
    wiring.background().connection.client.zadd(
        redis_keys.STRETCHED, {"media-in": time.time() + 3600}
    )
    [alert] = overview().attention
    assert "12,000 of the 10,000 that the buckets of its endpoint share" in alert.reason
    services.update_endpoint(endpoint=endpoint, requests_per_day=None)
    assert overview().attention == []


def test_many_buckets_that_run_short_are_one_line(redis):
    names = [f"bucket-{number:02}" for number in range(12)]
    for name in names:
        api_client.add_with_status(name, last_scan_at=timezone.now())
    redis.zadd(redis_keys.STRETCHED, dict.fromkeys(names, time.time() + 3600))
    [alert] = overview().attention
    assert alert.count == 12
    assert alert.title == "12 buckets: budgets of requests make passes rarer"
    assert "Among them bucket-00, bucket-01, bucket-02 …" in alert.reason
