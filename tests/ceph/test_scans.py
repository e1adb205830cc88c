"""Scans of a Ceph gateway's buckets: what is announced is what its clients did."""

import hashlib
import random
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from tests.ceph.conftest import Scan
from tests.support.ceph import CephAccount
from tests.support.notifications import QUEUE, queued
from tests.support.servers import WRITERS

pytestmark = pytest.mark.ceph

ALL_EVENTS = ("created", "updated", "detected", "deleted")
PART_BYTES = 5 * 1024 * 1024  # the smallest that S3 takes, but for the last


class Client:
    """Changes a bucket, and notes in a journal what has to be announced of it."""

    def __init__(self, account: CephAccount, bucket: str) -> None:
        self.bucket, self._s3 = bucket, account.client()
        self.there: dict[str, str] = {}  # key -> ETag
        self._dice = random.Random(7)  # noqa: S311 - the same changes in every run

    def write(self, keys: Iterable[str]) -> dict[str, tuple[str, str]]:
        """Create or overwrite objects; key -> event and ETag."""
        bodies = {key: self._dice.randbytes(8) for key in keys}
        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(self._put, bodies, bodies.values()))
        journal = {}
        for key, body in bodies.items():
            etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
            journal[key] = ("updated" if key in self.there else "created", etag)
            self.there[key] = etag
        return journal

    def delete(self, keys: Iterable[str]) -> dict[str, tuple[str, str]]:
        gone = list(keys)
        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(self._delete, gone))
        return {key: ("deleted", self.there.pop(key)) for key in gone}

    def some(self, count: int) -> list[str]:
        return self._dice.sample(sorted(self.there), count)

    def _put(self, key: str, body: bytes) -> None:
        self._s3.put_object(Bucket=self.bucket, Key=key, Body=body)

    def _delete(self, key: str) -> None:
        self._s3.delete_object(Bucket=self.bucket, Key=key)


@pytest.fixture
def announced(scan: Scan, owner: CephAccount, store: redis.Redis) -> Any:
    """Scan a bucket, and take what is queued: key -> event and ETag. No key comes twice."""

    def announced(name: str, account: CephAccount = owner, **ours: Any) -> dict[str, Any]:
        result = scan(account, name, **{"events": ALL_EVENTS, "fetch_metadata": False} | ours)
        assert result.ok, result.error
        said = queued(store)
        store.delete(QUEUE)
        events = {event["key"]: (event["event_type"], event["etag"]) for event in said}
        assert len(events) == len(said)
        return events

    return announced


def test_what_is_announced_of_thousands_of_objects_is_what_a_client_did(owner, announced):
    name = owner.bucket()
    client = Client(owner, name)
    made = client.write(f"{n % 17:02}/a b+{n:05}" for n in range(2500))
    assert announced(name) == made
    for lanes in (1, 4, 4):
        gone = client.delete(client.some(80))
        changed = client.write(client.some(80))
        new = client.write(f"{client.some(1)[0]}/{n}" for n in range(80))
        assert announced(name, lanes=lanes) == gone | changed | new
        assert announced(name, lanes=lanes) == {}


# --- uploads in parts


def test_an_upload_in_parts_that_began_before_a_baseline_is_announced_when_it_is_there(
    owner, announced
):
    name = owner.bucket()
    s3 = owner.client()
    owner.put(name, "old")
    upload = s3.create_multipart_upload(Bucket=name, Key="film.mp4")["UploadId"]
    where = {"Bucket": name, "Key": "film.mp4", "UploadId": upload}
    parts = [
        {
            "PartNumber": number,
            "ETag": s3.upload_part(**where, PartNumber=number, Body=body)["ETag"],
        }
        for number, body in enumerate((bytes(PART_BYTES), b"the end"), start=1)
    ]
    assert announced(name, first_scan="baseline") == {}
    s3.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
    [(key, (event, etag))] = announced(name, first_scan="baseline").items()
    assert (key, etag.endswith("-2")) == ("film.mp4", True)
    assert event in {"created", "detected"}
    assert announced(name, first_scan="baseline") == {}


def test_uploads_that_are_never_finished_are_no_objects(owner, announced):
    name = owner.bucket()
    s3 = owner.client()
    owner.put(name, "there")
    for number in range(20):
        upload = s3.create_multipart_upload(Bucket=name, Key=f"a/{number}")["UploadId"]
        s3.upload_part(Bucket=name, Key=f"a/{number}", UploadId=upload, PartNumber=1, Body=b"part")
    assert set(announced(name)) == {"there"}
    assert announced(name) == {}


# --- versions


def test_of_a_bucket_with_versions_the_current_ones_are_watched(owner, announced):
    name = owner.bucket()
    s3 = owner.client()
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    client = Client(owner, name)
    keys = [f"k{n:02}" for n in range(30)]
    first = client.write(keys)
    assert announced(name) == first
    for _ in range(3):
        last = client.write(keys[:10])
    assert announced(name) == last
    gone = client.delete(keys[5:15])  # a delete marker each
    assert announced(name) == gone
    marker = s3.list_object_versions(Bucket=name, Prefix="k12")["DeleteMarkers"][0]["VersionId"]
    s3.delete_object(Bucket=name, Key="k12", VersionId=marker)
    [(key, (event, etag))] = announced(name).items()
    assert (key, etag) == ("k12", first["k12"][1])
    assert event in {"created", "detected"}
    newest = s3.list_object_versions(Bucket=name, Prefix="k00")["Versions"][0]
    s3.delete_object(Bucket=name, Key="k00", VersionId=newest["VersionId"])
    [(key, (event, etag))] = announced(name).items()
    assert (key, event) == ("k00", "updated")
    assert etag != newest["ETag"].strip('"')


def test_a_bucket_full_of_delete_markers_is_listed_to_its_end(owner, announced):
    name = owner.bucket()
    s3 = owner.client()
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    client = Client(owner, name)
    client.write(f"gone/{n:04}" for n in range(1100))
    client.delete(list(client.there))
    made = client.write(("a", "gone/0700", "z"))
    assert announced(name) == made


# --- who may ask


@pytest.mark.parametrize("rights", [("s3:ListBucket",), ("s3:ListBucket", "s3:GetObject")])
def test_deletions_are_announced_at_once_to_whoever_may_list(owner, guest, announced, rights):
    """HEAD of what is gone says 404 to them, also where HEAD of what is there is refused."""
    name = owner.bucket()
    owner.allow(guest, name, *rights)
    client = Client(owner, name)
    made = client.write(f"{n:02}" for n in range(20))
    assert announced(name, guest) == made
    gone = client.delete(client.some(5))
    assert announced(name, guest) == gone
