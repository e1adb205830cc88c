"""`scanning/core/notification.py`: texts put together by hand are what json would write."""

import hashlib
import json
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from jsonschema_rs import ValidationError

from scanning.core import notification
from scanning.core.texts import strong_etag
from scanning.core.types import BucketConfig, Change, EventType, ObjectMetadata, ObjectState
from tests.support.notifications import example, message

BUCKET = BucketConfig("photos", "http://s3.example:9000", "region", "CREDENTIAL")
NOW = 1_700_000_000.25

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
states = st.builds(
    ObjectState,
    etag=st.text(st.characters(exclude_categories=["Cs"], exclude_characters='"'), max_size=8),
    last_modified=st.integers(0, 4_000_000_000_000).map(lambda at: at / 1000),
    size=st.integers(0, 5 * 2**40),
)
changes = st.builds(
    Change,
    event_type=st.sampled_from(EventType),
    key=texts,
    current=states,
    previous=st.none() | states,
)
heads = st.none() | st.builds(
    ObjectMetadata,
    etag=texts,
    content_type=texts,
    metadata=st.dictionaries(texts, texts, max_size=2),
)


def event_id(change: Change) -> str:
    """A hash of what happened to which version; created and detected are one thing in it."""
    kind = change.event_type
    what = "appeared" if kind in {EventType.CREATED, EventType.DETECTED} else kind.value
    before, now = change.previous, change.current
    told = 3 if before and before[:2] == now[:2] and kind is not EventType.DELETED else 2
    parts = [
        "photos",
        change.key,
        what,
        before and list(before[:told]),
        None if kind is EventType.DELETED else list(now[:told]),
    ]
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def reference(change: Change, head: ObjectMetadata | None) -> dict[str, object]:
    current, previous = change.current, change.previous
    if head is None or strong_etag(head.etag) != strong_etag(current.etag):
        head = ObjectMetadata("", "application/octet-stream", {})
    message = {
        "bucket": "photos",
        "key": change.key,
        "region": "s3.example:9000",
        "etag": current.etag,
        "size": current.size,
        "last_modified": current.last_modified,
        "event_type": change.event_type.value,
        "content_type": head.content_type,
        "metadata": head.metadata,
        "detection_time": NOW,
        "is_recent": NOW - current.last_modified <= 24 * 3600,
        "retry_count": 0,
        "event_id": event_id(change),
        "sequencer": "00ff",
    }
    if previous is not None:
        message["previous"] = {
            "etag": previous.etag,
            "size": previous.size,
            "last_modified": previous.last_modified,
        }
    return message


positions = st.tuples(st.integers(0, 2**50), st.integers(0, 2**40))


@given(positions, positions)
def test_sequencers_sort_as_text_as_fences_and_commits_do_as_numbers(one, other):
    assert (notification.sequencer(*one) < notification.sequencer(*other)) == (one < other)
    assert len(notification.sequencer(*one)) == len(notification.sequencer(*other))


@given(changes, heads)
def test_a_notification_is_what_json_writes_with_an_id_of_what_happened(change, head):
    [text] = notification.Notifications(BUCKET, now=NOW, sequencer="00ff").texts([change], [head])
    assert text == json.dumps(reference(change, head), separators=(",", ":"), ensure_ascii=False)


@pytest.mark.parametrize(("listed", "said"), [("x", 'W/"x'), ('W/"x', "x"), ('W/"x', 'W/"x')])
def test_a_weak_etag_describes_the_object_that_was_listed_with_a_strong_one(listed, said):
    change = Change(EventType.CREATED, "k", ObjectState(listed, 0.0, 1, 0.0), None)
    head = ObjectMetadata(said, "text/plain", {})
    [text] = notification.Notifications(BUCKET, now=NOW, sequencer="00ff").texts([change], [head])
    assert json.loads(text)["content_type"] == "text/plain"


def test_sizes_tell_changes_apart_that_have_one_etag_and_one_time():
    states = [ObjectState("", 1.0, size) for size in (1, 2, 3)]
    changes = [
        Change(EventType.UPDATED, "k", current, previous) for previous, current in pairwise(states)
    ]
    texts = notification.Notifications(BUCKET, now=NOW, sequencer="00ff").texts(changes, [None] * 2)
    assert len({json.loads(text)["event_id"] for text in texts}) == 2


@given(changes, heads)
def test_whatever_changed_is_announced_as_the_schema_says(change, head):
    assume(change.key)
    if change.previous is None:
        kinds = (EventType.CREATED, EventType.DETECTED)
    else:
        kinds = (EventType.UPDATED, EventType.DELETED)
    for kind in kinds:
        changed = change._replace(event_type=kind)
        write = notification.Notifications(BUCKET, now=NOW, sequencer="00ff")
        [text] = write.texts([changed], [head])
        message(text)


WRONG: dict[str, dict[str, object]] = {
    "a size in text": {"size": "11"},
    "half a byte": {"size": 0.5},
    "another event": {"event_type": "moved"},
    "a date": {"last_modified": "2025-03-01T12:03:02Z"},
    "an ETag in quotes": {"etag": '"5eb6"'},
    "no text in metadata": {"metadata": {"shot": 7}},
    "a creation that knows what was before": {"event_type": "created"},
    "a deletion that does not": {"event_type": "deleted", "previous": None},
}


@pytest.mark.parametrize("changes", WRONG.values(), ids=WRONG)
def test_the_schema_refuses_what_consumers_were_not_promised(changes):
    message(json.dumps(example()))
    with pytest.raises(ValidationError):
        message(json.dumps(example(**changes)))
