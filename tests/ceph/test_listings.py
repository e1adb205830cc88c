"""What a Ceph gateway lists, and says when asked for one object: the truth, whatever the key."""

import http.client
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from scanning import engine
from scanning.adapters.s3.storage import S3Storage
from scanning.core.deletions import HeadAnswer
from scanning.core.endpoint_profile import Fact, StartAfter, UrlEncoding
from scanning.core.endpoints import endpoint_name
from scanning.core.errors import AccessDenied
from scanning.scan.lane_splitter import Lane
from scanning.scan.prefetch import list_pages
from tests.ceph.nasty_keys import KEYS
from tests.support.ceph import CephAccount, CephGateway

pytestmark = pytest.mark.ceph

PREFIXES = ("", "a", "a ", "a%", "a+", "%", "&", "d/", "d//", "/", "//", "\x01", "é", "日", "none")


def md5_of_puts(account: CephAccount, bucket: str, bodies: Mapping[str, bytes]) -> dict[str, str]:
    """Put objects, many at once, and return what S3 says are their ETags."""

    def put(key: str) -> str:
        answer = account.client().put_object(Bucket=bucket, Key=key, Body=bodies[key])
        return answer["ETag"].strip('"')

    with ThreadPoolExecutor(8) as pool:
        return dict(zip(bodies, pool.map(put, bodies), strict=True))


def listed(storage: S3Storage, page_size: int = 1000) -> list[tuple[str, str, int]]:
    pages = list_pages(storage, Lane("", None), page_size=page_size)
    rows = storage.rows(b"".join(page.entries for page in pages)).columns
    return list(zip(rows.keys, rows.etags, rows.sizes, strict=True))


@pytest.fixture(scope="module")
def nasty(owner: CephAccount) -> tuple[str, dict[str, tuple[str, int]]]:
    """A bucket with all of `KEYS`, and the ETag and size of each."""
    bucket = owner.bucket("nasty-keys")
    bodies = {key: f"{number} {key}".encode() for number, key in enumerate(KEYS)}
    etags = md5_of_puts(owner, bucket, bodies)
    return bucket, {key: (etags[key], len(bodies[key])) for key in KEYS}


@pytest.mark.parametrize("page_size", [1, 7, 1000])
def test_every_key_is_listed_once_and_in_order_in_pages_of_any_size(
    owner, nasty, storage, page_size
):
    name, put = nasty
    keys = sorted(put, key=str.encode)
    assert listed(storage(owner, name), page_size) == [(key, *put[key]) for key in keys]


def test_a_prefix_shows_the_keys_that_begin_with_it(owner, nasty, storage):
    name, put = nasty
    keys = sorted(put, key=str.encode)
    for prefix in PREFIXES:
        shown = [key for key, *_ in listed(storage(owner, name, prefix=prefix), 3)]
        assert shown == [key for key in keys if key.startswith(prefix)], ascii(prefix)


def test_a_listing_begins_behind_any_key_also_one_that_is_gone(owner, nasty, storage):
    name, put = nasty
    there = storage(owner, name)
    keys = sorted(put, key=str.encode)
    for start in (start for key in KEYS for start in (key, f"{key[:255]}!")):
        behind = [key for key in keys if key.encode() > start.encode()]
        page = there.page(start, 1)
        assert there.rows(page.entries).columns.keys == behind[:1], ascii(start)


def test_an_object_is_found_by_its_key_and_no_other_is(owner, nasty, storage):
    name, put = nasty
    there = storage(owner, name)
    for key in KEYS:
        etag, _, size = there.look_up(key)
        assert (etag, size) == put[key]
        assert there.look_up(f"{key[:100]}\x02") is HeadAnswer.GONE


def test_a_scan_learns_what_this_server_does(owner, nasty, scan):
    name, _ = nasty
    assert scan(owner, name).ok
    [profile] = engine.endpoint_profiles([endpoint_name(owner.url)]).values()
    assert profile.learnt[Fact.START_AFTER].value == StartAfter.EXCLUSIVE
    assert profile.learnt[Fact.LIST_VERSION].value == "2"
    assert profile.url_encoding is UrlEncoding.HONOURED
    assert profile.begins_anywhere


# --- who may ask


def test_a_key_without_rights_is_refused_and_nothing_is_missing(owner, guest, storage):
    name = owner.bucket()
    owner.put(name, "there")
    stranger = storage(guest, name)
    with pytest.raises(AccessDenied):
        stranger.page("", 10)
    assert stranger.look_up("there") is HeadAnswer.REFUSED
    assert stranger.look_up("gone") is HeadAnswer.REFUSED


def test_a_key_that_may_only_list_tells_what_is_gone_from_what_it_may_not_read(
    owner, guest, storage
):
    name = owner.bucket()
    owner.put(name, "there")
    owner.allow(guest, name, "s3:ListBucket")
    lister = storage(guest, name)
    assert [key for key, *_ in listed(lister)] == ["there"]
    assert lister.look_up("there") is HeadAnswer.REFUSED
    assert lister.look_up("gone") is HeadAnswer.GONE


def test_a_key_that_may_read_is_told_the_version(owner, guest, storage):
    name = owner.bucket()
    owner.put(name, "there", b"12345")
    owner.allow(guest, name, "s3:ListBucket", "s3:GetObject")
    reader = storage(guest, name)
    assert reader.look_up("there")[2] == 5
    assert reader.look_up("gone") is HeadAnswer.GONE


def test_a_bucket_that_may_be_read_by_everybody_is_listed(owner, guest, storage):
    name = owner.bucket()
    owner.put(name, "there")
    owner.client().put_bucket_acl(Bucket=name, ACL="public-read")
    reader = storage(guest, name)
    assert [key for key, *_ in listed(reader)] == ["there"]
    assert reader.look_up("there") is HeadAnswer.REFUSED
    assert reader.look_up("gone") is HeadAnswer.GONE


# --- names and metadata


def test_names_that_only_ceph_has_are_listed(gateway: CephGateway, storage):
    account = gateway.account("cinema", tenant="films")
    try:
        for name in ("Media_In", "ALL.CAPS"):
            account.bucket(name)
            account.put(name, "a b")
            watched = storage(account, "watch", bucket_name=f"films:{name}")
            assert [key for key, *_ in listed(watched)] == ["a b"]
            assert watched.look_up("a b")[2] == 1
            assert watched.look_up("a") is HeadAnswer.GONE
    finally:
        account.close()


def test_metadata_in_raw_utf_8_arrives_as_it_was_written(owner, storage):
    """Clients other than boto3 send it so; the URL is signed, and no header but Host."""
    name, written = owner.bucket(), "Grüße, 日本 😀"
    url = urlsplit(
        owner.client().generate_presigned_url("put_object", Params={"Bucket": name, "Key": "k"})
    )
    with closing(http.client.HTTPConnection(url.netloc, timeout=60)) as connection:
        headers = {"x-amz-meta-note": written.encode()}
        connection.request("PUT", f"{url.path}?{url.query}", b"x", headers)
        assert connection.getresponse().status == 200
    assert storage(owner, name).head("k").metadata == {"note": written}
