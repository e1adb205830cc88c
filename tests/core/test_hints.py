"""What a hint names, in each of the forms in which S3 servers and event buses say it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanning.core.hints import Hint, UnreadableHint, read_hints

AWS: dict[str, Any] = {
    "Records": [
        {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "awsRegion": "us-west-2",
            "eventName": "ObjectCreated:Put",
            "s3": {
                "s3SchemaVersion": "1.0",
                "configurationId": "all",
                "bucket": {"name": "media-in", "arn": "arn:aws:s3:::media-in"},
                "object": {"key": "a/b+c%C3%A9.mp4", "size": 1024, "sequencer": "0055AED6"},
            },
        }
    ]
}
MINIO: dict[str, Any] = {
    "EventName": "s3:ObjectCreated:Put",
    "Key": "media-in/a/b cé.mp4",
    "Records": [
        {
            "eventSource": "minio:s3",
            "s3": {"bucket": {"name": "media-in"}, "object": {"key": "a%2Fb+c%C3%A9.mp4"}},
        }
    ],
}
CEPH: dict[str, Any] = {
    "Records": [
        {
            "eventSource": "ceph:s3",
            "awsRegion": "default",
            "s3": {"bucket": {"name": "media-in", "id": "503a"}, "object": {"key": "50%+1.mp4"}},
            "opaqueData": "me@example.com",
        }
    ]
}
EVENT_BRIDGE: dict[str, Any] = {
    "version": "0",
    "detail-type": "Object Created",
    "source": "aws.s3",
    "detail": {"bucket": {"name": "media-in"}, "object": {"key": "a/b c.mp4", "size": 5}},
}
TEST = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "media-in", "HostId": "h"}
PLAIN = {"bucket": "media-in", "keys": ["a/b.mp4", "50%+1.mp4"]}


def cloud_event(**members: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": "1", "type": "com.amazonaws.s3", "source": "x"} | members


def read(document: Any, **headers: str) -> list[Hint]:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return read_hints(body, {name.replace("_", "-"): value for name, value in headers.items()})


def meant(document: Any, **headers: str) -> set[tuple[str, str]]:
    """Every bucket and key that would be looked at."""
    return {(hint.bucket, key) for hint in read(document, **headers) for key in hint.keys}


@pytest.mark.parametrize(
    ("document", "key"),
    [
        pytest.param(AWS, "a/b cé.mp4", id="s3"),
        pytest.param(MINIO, "a/b cé.mp4", id="minio"),
        pytest.param(CEPH, "50%+1.mp4", id="ceph, which does not encode"),
        pytest.param(AWS["Records"][0], "a/b cé.mp4", id="one record alone"),
        pytest.param(MINIO | {"Records": None}, "a/b cé.mp4", id="minio's envelope alone"),
        pytest.param(EVENT_BRIDGE, "a/b c.mp4", id="eventbridge"),
        pytest.param(cloud_event(data=AWS), "a/b cé.mp4", id="cloud event around s3's"),
        pytest.param(cloud_event(data=AWS["Records"][0]), "a/b cé.mp4", id="around a record"),
        pytest.param(
            cloud_event(data=AWS["Records"][0]["s3"]), "a/b cé.mp4", id="around the record's s3"
        ),
        pytest.param(cloud_event(data=EVENT_BRIDGE["detail"]), "a/b c.mp4", id="around a detail"),
        pytest.param(cloud_event(data=PLAIN), "a/b.mp4", id="around our own"),
        pytest.param(
            cloud_event(data={"bucket": "media-in", "key": "k", "size": 1}), "k", id="flat data"
        ),
        pytest.param(
            cloud_event(source="aws:s3.us-west-2.media-in", subject="a/b.mp4", data={"etag": "1"}),
            "a/b.mp4",
            id="by the specification's adapter",
        ),
        pytest.param(
            cloud_event(source="minio:s3..media-in", subject="a/b.mp4"), "a/b.mp4", id="no region"
        ),
        pytest.param(
            cloud_event(source="arn:aws:s3:::media-in", subject="a/b.mp4"), "a/b.mp4", id="an arn"
        ),
        pytest.param(
            cloud_event(source="s3://media-in/", subject="a/b.mp4"), "a/b.mp4", id="a url"
        ),
        pytest.param(
            cloud_event(
                source="//storage.googleapis.com/projects/_/buckets/media-in",
                subject="objects/a/b.mp4",
            ),
            "a/b.mp4",
            id="google",
        ),
    ],
)
def test_every_form_names_bucket_and_key(document, key):
    assert ("media-in", key) in meant(document)
    assert {bucket for bucket, _ in meant(document)} == {"media-in"}


def test_a_program_names_keys_as_they_are():
    assert read(PLAIN) == [Hint("media-in", ("a/b.mp4",)), Hint("media-in", ("50%+1.mp4",))]


def test_a_list_holds_several_of_any_form():
    batch = [PLAIN, AWS, cloud_event(data=CEPH), TEST]
    assert len(read(batch)) == 4
    assert meant(batch) == meant(PLAIN) | meant(AWS) | meant(CEPH)


@pytest.mark.parametrize("document", [TEST, {"Records": []}, [], cloud_event(data=TEST)])
def test_what_only_tests_the_connection_names_nothing(document):
    assert read(document) == []


def test_a_bucket_with_dots_in_its_name_is_found_behind_the_region():
    event = cloud_event(source="ceph:s3.default.media.example.com", subject="k")
    assert meant(event) == {("media.example.com", "k")}


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        pytest.param(json.dumps(CEPH).encode(), "application/json", id="ceph"),
        pytest.param(b"", "application/json", id="no data"),
        pytest.param(b"\x00\xff film", "video/mp4", id="the object itself"),
    ],
)
def test_a_cloud_event_in_headers(body, content_type):
    found = read_hints(
        body,
        {
            "ce-specversion": "1.0",
            "ce-source": "ceph:s3.default.media-in",
            "ce-subject": "50%+1.mp4",
            "content-type": content_type,
        },
    )
    assert ("media-in", "50%+1.mp4") in {(hint.bucket, key) for hint in found for key in hint.keys}


@pytest.mark.parametrize(
    "subject", ["caf%C3%A9.txt", "café.txt".encode().decode("latin-1")], ids=["spec", "ceph"]
)
def test_a_key_in_a_header_is_utf_8_however_it_got_there(subject):
    headers = {"ce_specversion": "1.0", "ce_source": "arn:aws:s3:::media-in"}
    assert ("media-in", "café.txt") in meant(b"", ce_subject=subject, **headers)


@pytest.mark.parametrize(
    ("document", "member", "problem"),
    [
        pytest.param(b"{", "__all__", "not JSON", id="broken"),
        pytest.param(b"\xff", "__all__", "UTF-8", id="other bytes"),
        pytest.param(b"[" * 100_000, "__all__", "not JSON", id="deep"),
        pytest.param("text", "__all__", "JSON object", id="text"),
        pytest.param([1], "__all__", "In element 0", id="a list of something else"),
        pytest.param({}, "bucket", "must be text", id="nothing"),
        pytest.param({"bucket": "b"}, "keys", "a list of at least one", id="no keys"),
        pytest.param({"bucket": "b", "keys": []}, "keys", "at least one", id="empty keys"),
        pytest.param({"bucket": "b", "keys": "k"}, "keys", "a list", id="keys in text"),
        pytest.param({"bucket": "b", "keys": ["k", 1]}, "keys", "keys[1] must be", id="number"),
        pytest.param({"bucket": "b", "keys": [""]}, "keys", "one character", id="empty key"),
        pytest.param({"bucket": "b", "keys": ["k" * 1025]}, "keys", "1024", id="long key"),
        pytest.param({"bucket": "b", "keys": ["\ud800"]}, "keys", "UTF-8", id="no UTF-8"),
        pytest.param({"bucket": "b" * 256, "keys": ["k"]}, "bucket", "No bucket", id="long name"),
        pytest.param({"bucket": "b\0", "keys": ["k"]}, "bucket", "No bucket", id="NUL"),
        pytest.param({"bucket": "b", "key": "k"}, "key", "known are", id="misspelt"),
        pytest.param({"a b": 1}, "__all__", "known are", id="odd member"),
        pytest.param(
            {"Records": [AWS["Records"][0], {"s3": {}}]}, "Records", "Records[1].s3", id="record"
        ),
        pytest.param(
            {"Records": [{"s3": {"bucket": {"name": "b"}, "object": {}}}]},
            "Records",
            "Records[0].s3.object.key must be text",
            id="no key",
        ),
        pytest.param(
            {"Records": [{"s3": {"bucket": {}, "object": {"key": "k"}}}]},
            "Records",
            "bucket's name",
            id="no bucket",
        ),
        pytest.param(cloud_event(source=""), "source", "name the bucket", id="no source"),
        pytest.param(cloud_event(), "subject", "the object's key", id="no subject"),
        pytest.param([PLAIN, {"bucket": 1}], "bucket", "In element 1", id="in a list"),
    ],
)
def test_what_cannot_be_read_is_named(document, member, problem):
    with pytest.raises(UnreadableHint) as refused:
        read(document)
    assert refused.value.member == member
    assert problem in refused.value.problem


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("specversion", "source", "subject", "data", "bucket", "keys", "key"),
                    *("name", "object", "s3", "Records", "detail", "Event", "EventName", "Key"),
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON, st.dictionaries(st.sampled_from(["ce-specversion", "ce-source"]), st.text(max_size=9)))
def test_whatever_is_sent_is_read_or_refused(document, headers):
    try:
        found = read_hints(json.dumps(document).encode(), headers)
    except UnreadableHint:
        return
    assert all(hint.bucket and hint.keys and all(hint.keys) for hint in found)
