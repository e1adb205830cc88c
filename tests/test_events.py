"""`scanning/core/events.py`: texts put together by hand are what json would write."""

import hashlib
import json

from hypothesis import given
from hypothesis import strategies as st

from scanning.core import events
from scanning.core.types import BucketConfig, Change, EventType, ObjectMetadata, ObjectState

BUCKET = BucketConfig("photos", "http://s3.example:9000", "region", "CREDENTIAL")
NOW = 1_700_000_000.25

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
states = st.builds(
    ObjectState,
    etag=texts,
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


def reference(change: Change, head: ObjectMetadata | None) -> dict[str, object]:
    current, previous = change.current, change.previous
    if head is None or head.etag != current.etag:
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
        "event_id": events.event_id("photos", change),
        "sequencer": "00ff",
    }
    if previous is not None:
        message["previous"] = {
            "etag": previous.etag,
            "size": previous.size,
            "last_modified": previous.last_modified,
        }
    return message


@given(changes, heads)
def test_a_notification_is_what_json_writes(change, head):
    text = events.Notifications(BUCKET, now=NOW, sequencer="00ff").text(change, head)
    assert text == json.dumps(reference(change, head), separators=(",", ":"), ensure_ascii=False)


@given(changes)
def test_an_event_id_is_a_hash_of_what_happened_to_which_version(change):
    kind = change.event_type
    what = "appeared" if kind in {EventType.CREATED, EventType.DETECTED} else kind.value
    before, now = change.previous, change.current
    parts = [
        "photos",
        change.key,
        what,
        before and [before.etag, before.last_modified],
        None if kind is EventType.DELETED else [now.etag, now.last_modified],
    ]
    expected = hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()
    assert events.event_id("photos", change) == expected


def test_created_and_detected_are_one_thing_in_an_id():
    state = ObjectState("e", 1.5, 1)
    created, detected = (
        events.event_id("photos", Change(kind, "a", state, None))
        for kind in (EventType.CREATED, EventType.DETECTED)
    )
    assert created == detected
