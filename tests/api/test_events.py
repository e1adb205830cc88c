"""/api/v1/events/: the window on what happened lately, read from the stream of commits."""

import json
import time
from typing import Any

import pytest
from django.core.cache import cache

from scanning.core import redis_keys
from tests.support import api_client

pytestmark = pytest.mark.django_db

EVENTS = "/api/v1/events/"


@pytest.fixture
def caller():
    api_client.use_fast_hashes()
    cache.clear()
    client, _ = api_client.new_client(scope="read")
    return api_client.Caller(client)


@pytest.fixture
def stream(redis_server):
    """Adds a commit to the stream, as the engine's commit does."""
    with redis_server.client() as redis:

        def add(bucket: str, *events: tuple[str, str, int], count: int = 0, at: Any = 0.0) -> None:
            told = {"bucket": bucket, "at": at, "count": count or len(events), "events": events}
            redis.xadd(redis_keys.EVENTS, {"commit": json.dumps(told)})

        yield add


def _keys(caller, query: str = "") -> list[str]:
    return [event["key"] for event in caller.get(f"{EVENTS}?{query}").json()["results"]]


def test_an_event_says_what_happened_to_which_object_and_when(caller, stream):
    stream("media-in", ("created", "a/b c.mp4", 1024), at=1640995260.5)
    answer = caller.get(EVENTS).json()
    assert answer["results"] == [
        {
            "bucket": "media-in",
            "bucket_name": "media-in",
            "type": "created",
            "key": "a/b c.mp4",
            "size": 1024,
            "at": "2022-01-01T00:01:00.500000Z",
        }
    ]


def test_the_newest_commit_comes_first_and_in_it_keys_keep_their_order(caller, stream):
    stream("one", ("created", "a", 1), ("created", "b", 1))
    stream("two", ("deleted", "c", 1), ("updated", "d", 1))
    assert _keys(caller) == ["c", "d", "a", "b"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("bucket=one", ["x/3", "x/1", "y/2"]),
        ("bucket=nobody", []),
        ("type=deleted", ["x/4", "x/1"]),
        ("prefix=x/", ["x/4", "x/3", "x/1"]),
        ("bucket=one&type=created&prefix=x", ["x/3"]),
        ("limit=2", ["x/4", "x/3"]),
        ("limit=1&type=deleted", ["x/4"]),
        ("prefix=%20", []),
    ],
)
def test_events_are_chosen_by_bucket_type_and_beginning_of_key(caller, stream, query, found):
    stream("one", ("deleted", "x/1", 1), ("created", "y/2", 1))
    stream("one", ("created", "x/3", 1))
    stream("two", ("deleted", "x/4", 1))
    assert _keys(caller, query) == found


def test_the_window_says_how_far_back_it_goes_and_what_it_leaves_out(caller, stream):
    before = time.time()
    stream("one", ("created", "a", 1), count=4000)
    stream("two", ("created", "b", 1), count=3)
    window = caller.get(f"{EVENTS}?bucket=one").json()["window"]
    assert window["not_listed"] == 3999
    assert window["since"][:10] == time.strftime("%Y-%m-%d", time.gmtime(before))
    assert "window" in window["note"]


def test_without_any_commit_the_window_is_empty(caller, redis_server):
    answer = caller.get(EVENTS).json()
    assert answer["results"] == []
    assert (answer["window"]["since"], answer["window"]["not_listed"]) == (None, 0)


def test_a_rare_event_is_found_behind_many_others(caller, stream):
    stream("rare", ("deleted", "a", 1))
    for n in range(250):
        stream("often", ("created", f"{n}", 1))
    assert _keys(caller, "type=deleted") == ["a"]
    assert len(_keys(caller, "limit=1000")) == 251


def test_what_is_no_commit_of_ours_is_passed_over(caller, stream, redis_server):
    stream("one", ("created", "good", 1))
    stream("one", ("moved", "of no known type", 1))
    stream("one", ("created", "of no time", 1), at="soon")
    stream("one", ("created", "of no day", 1), at=1e300)
    with redis_server.client() as redis:
        for entry in ({"other": "1"}, {"commit": "{"}, {"commit": "[]"}, {"commit": "7"}):
            redis.xadd(redis_keys.EVENTS, entry)
    assert _keys(caller) == ["good"]


def test_a_key_that_is_no_text_is_shown_as_well_as_it_can_be(caller, stream):
    stream("one", ("created", "half \ud800", 1))
    assert _keys(caller) == ["half ?"]


def test_without_redis_the_answer_is_503(caller):
    response = caller.get(EVENTS)
    assert response.status_code == 503
    assert "Redis" in api_client.error_of(response)


def test_a_stream_of_another_type_is_503_too(caller, redis_server):
    with redis_server.client() as redis:
        redis.set(redis_keys.EVENTS, "not a stream")
    assert caller.get(EVENTS).status_code == 503
