"""The lists of /api/v1/: filters, order, pages, and how much they ask of the database."""

from typing import Any

import pytest
from django.core.cache import cache
from django.utils import timezone

from buckets import services
from buckets.models import Bucket, Credential
from tests.support import api_client

pytestmark = pytest.mark.django_db(transaction=True)

BUCKETS, CREDENTIALS = "/api/v1/buckets/", "/api/v1/credentials/"


@pytest.fixture
def caller(redis_server):
    """With a bucket media-in that has keys of its own, and a credential that nobody uses."""
    api_client.use_fast_hashes()
    cache.clear()
    client, _ = api_client.new_client()
    api_client.add_bucket("media-in")
    services.add_credential(name="shared", access_key="AK", secret_key="SK")
    return api_client.Caller(client)


def _some(caller, **columns: Any) -> None:
    """Buckets one to three; ``columns`` are their status columns, by position."""
    for position, name in enumerate(("one", "two", "three")):
        api_client.add_bucket(name, region=f"r-{position}", webhook_url="")
        values = {column: values[position] for column, values in columns.items()}
        Bucket.objects.filter(name=name).update(**values)


def _names(caller, query: str) -> list[str]:
    return [bucket["name"] for bucket in caller.get(f"{BUCKETS}?{query}").json()["results"]]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("region=r-1", ["two"]),
        ("search=THR", ["three"]),
        ("search=api.example", ["media-in"]),
        ("search=%25", []),
        ("state=failing", ["one"]),
        ("state=held", ["three"]),
        ("state=waiting", ["media-in"]),
        ("state=watched", ["two"]),
        ("credential=two", ["two"]),
        ("notifications_enabled=false", ["two"]),
        ("monitoring_enabled=false", []),
        ("ordering=-name&page_size=2", ["two", "three"]),
        ("ordering=objects", ["two", "three", "media-in", "one"]),
        ("ordering=-objects", ["three", "two", "media-in", "one"]),
        ("page=2&page_size=3", ["two"]),
        ("page=9", []),
    ],
)
def test_buckets_are_filtered_and_sorted(caller, query, names):
    now = timezone.now()
    _some(
        caller,
        object_count=(None, 2, 3),
        last_scan_at=(now, now, now),
        last_error_class=("AccessDenied", "", ""),
        held_since=(None, None, now),
        notifications_enabled=(True, False, True),
    )
    assert _names(caller, query) == names


def test_pages_are_linked_and_keep_their_filters(caller):
    _some(caller)
    seen, url, pages = [], f"{BUCKETS}?page_size=2&ordering=-name", 0
    while url:
        page = caller.get(url).json()
        seen += [bucket["name"] for bucket in page["results"]]
        url, pages = page["next"], pages + 1
    assert (seen, pages) == (["two", "three", "one", "media-in"], 2)
    assert page["count"] == 4
    assert _names(caller, page["previous"].partition("?")[2]) == ["two", "three"]


def test_lists_of_5000_are_as_many_queries_as_lists_of_one(caller, django_assert_num_queries):
    credential = Credential.objects.get(name="shared")
    # No signals: nothing here is about Redis.
    Bucket.objects.bulk_create(
        Bucket(name=f"bucket-{n}", region="r", endpoint="r.example.com", credential=credential)
        for n in range(5000)
    )
    caller.get(BUCKETS)  # notes the client's use
    # The client, the count, the page, what Redis waits for, prices of the endpoints.
    with django_assert_num_queries(5):
        page = caller.get(f"{BUCKETS}?page_size=500&search=bucket&ordering=-last_scan_at").json()
    assert (page["count"], len(page["results"])) == (5000, 500)
    with django_assert_num_queries(3):  # the client, the count, the page
        page = caller.get(CREDENTIALS).json()
    assert page["results"][1]["bucket_count"] == 5000
