"""What a Ceph gateway says of a bucket as a whole, and to whom."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from scanning.core.totals import Totals
from tests.ceph.conftest import Open
from tests.support.ceph import CephAccount

pytestmark = pytest.mark.ceph


@pytest.fixture
def totals_of(storage: Open, owner: CephAccount) -> Callable[..., Totals | None]:
    def totals(name: str, account: CephAccount = owner) -> Totals | None:
        return storage(account, name).totals()

    return totals


def listed(account: CephAccount, name: str) -> Totals:
    pages = account.client().get_paginator("list_objects_v2").paginate(Bucket=name)
    sizes = [row["Size"] for page in pages for row in page.get("Contents", [])]
    return Totals(len(sizes), sum(sizes))


def test_totals_are_exact_and_immediate_after_every_change(owner, totals_of):
    name, dice = owner.bucket(), random.Random(5)  # noqa: S311 - the same changes in every run
    there: dict[str, int] = {}
    for _ in range(150):
        key = f"key-{dice.randrange(40)}"
        if key in there and dice.random() < 0.4:
            owner.client().delete_object(Bucket=name, Key=key)
            del there[key]
        else:
            there[key] = dice.randrange(100)
            owner.put(name, key, bytes(there[key]))
        assert totals_of(name) == Totals(len(there), sum(there.values()))


def test_after_a_race_of_writers_they_are_what_is_listed(owner, totals_of):
    name = owner.bucket()

    def race(number: int) -> None:
        dice = random.Random(number)  # noqa: S311 - the same changes in every run
        for _ in range(60):
            key = f"key-{dice.randrange(30)}"
            if dice.random() < 0.3:
                owner.client().delete_object(Bucket=name, Key=key)
            else:
                owner.put(name, key, bytes(dice.randrange(50)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(race, range(8)))
    assert totals_of(name) == listed(owner, name)


def test_what_keeps_count_and_bytes_is_invisible(owner, totals_of):
    name = owner.bucket()
    for key in ("a", "b"):
        owner.put(name, key, b"1234")
    before = totals_of(name)
    owner.put(name, "a", b"4321")
    owner.client().delete_object(Bucket=name, Key="b")
    owner.put(name, "c", b"5678")
    assert totals_of(name) == before == Totals(2, 8)


def test_parts_of_unfinished_uploads_count_though_no_listing_shows_them(owner, totals_of):
    name, s3 = owner.bucket(), owner.client()
    owner.put(name, "there", b"12345")
    upload = s3.create_multipart_upload(Bucket=name, Key="film")["UploadId"]
    without = totals_of(name)
    s3.upload_part(Bucket=name, Key="film", UploadId=upload, PartNumber=1, Body=b"123")
    with_part = totals_of(name)
    assert with_part.size_bytes == without.size_bytes + 3
    assert with_part.objects > without.objects
    assert listed(owner, name) == Totals(1, 5)
    s3.abort_multipart_upload(Bucket=name, Key="film", UploadId=upload)
    assert totals_of(name) == Totals(1, 5)


def test_old_versions_count_though_no_listing_shows_them(owner, totals_of):
    name, s3 = owner.bucket(), owner.client()
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    for _ in range(5):
        owner.put(name, "key", b"1234567890")
    s3.delete_object(Bucket=name, Key="key")
    assert totals_of(name) == Totals(5, 50)
    assert listed(owner, name) == Totals(0, 0)


@pytest.mark.parametrize("rights", [("s3:ListBucket",), ("s3:ListBucket", "s3:GetObject")])
def test_whoever_may_list_is_told(owner, guest, totals_of, rights):
    name = owner.bucket()
    owner.put(name, "there", b"12345")
    owner.allow(guest, name, *rights)
    assert totals_of(name, guest) == Totals(1, 5)


def test_whoever_may_read_by_the_buckets_acl_is_told(owner, guest, totals_of):
    name = owner.bucket()
    owner.put(name, "there", b"12345")
    owner.client().put_bucket_acl(Bucket=name, ACL="public-read")
    assert totals_of(name, guest) == Totals(1, 5)


def test_a_stranger_is_told_none_and_that_is_no_error(owner, guest, totals_of):
    name = owner.bucket()
    owner.put(name, "there", b"12345")
    assert totals_of(name, guest) is None
