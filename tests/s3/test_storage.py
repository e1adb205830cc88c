"""`S3Storage` over real HTTP: moto where it does what servers do, canned answers elsewhere."""

import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import replace

import pytest

from scanning.adapters.s3.storage import MOST_AT_ONE_PLACE, S3ClientCache, S3Storage
from scanning.core.errors import BucketNotFound, CredentialsRejected, StorageUnavailable
from scanning.core.listing.body import Columns
from scanning.core.segments.matcher import digest, end_of_rows
from scanning.core.types import BucketConfig, KeyPair, ObjectMetadata
from scanning.scan.lane_splitter import Lane
from scanning.scan.prefetch import list_pages
from tests.support.canned_http import Answer, CannedServer
from tests.support.listing_bodies import FLAVOURS, Row, aws, minio, plain, rgw
from tests.support.servers import LOCAL

PAIR = KeyPair("AKID", "secret")
KEYS = [
    "a b",
    "a%20b",
    "a+b",
    "a&b",
    "é",
    "😀",
    "p//q",
    "d/",
    "c'q\"",
    "\x01ctl",
    "z\ufffez",
    "<k>",
]


@pytest.fixture
def cache() -> Iterator[S3ClientCache]:
    cache = S3ClientCache(LOCAL, attempts=1)
    yield cache
    cache.clear_cache()


def storage(cache: S3ClientCache, url: str, bucket: str = "photos") -> S3Storage:
    return S3Storage(cache, BucketConfig(bucket, url, "r", "C"), PAIR)


@pytest.fixture
def moto(s3_server, cache):
    """A storage on a fresh bucket of the S3 server; `name` has a dot, as names may."""
    name = s3_server.bucket()
    pair = KeyPair(s3_server.access_key, s3_server.secret_key)
    return S3Storage(cache, BucketConfig(name, s3_server.url, "r", "C"), pair)


@pytest.fixture
def put(s3_server, moto):
    def put(key: str, body: bytes = b"x", **arguments: object) -> None:
        name = moto._bucket.name
        s3_server.client().put_object(Bucket=name, Key=key, Body=body, **arguments)

    return put


def listed(storing: S3Storage, *, page_size: int = 1000, start_after: str = "") -> Columns:
    """The rows of all pages, read from the stream of entries that the pages make."""
    pages = list_pages(storing, Lane(start_after, None), page_size=page_size)
    return storing.rows(b"".join(page.entries for page in pages)).columns


@pytest.mark.parametrize(
    ("name", "path"),
    [("Media_In", "/Media_In"), ("t1:Media", "/t1%3AMedia"), (":media", "/%3Amedia")],
)
def test_names_that_only_ceph_has_are_sent_as_it_expects_them(cache, name, path):
    """RGW decodes the path, and signs it encoded again."""
    with CannedServer(Answer(body=plain([]))) as server:
        bucket = BucketConfig("watch", server.url, "r", "C", bucket_name=name)
        source = S3Storage(cache, bucket, PAIR)
        source.page("", 10)
        source.head("a:b c")
    assert [line.split("?")[0] for line in server.lines] == [
        f"GET {path}",
        f"HEAD {path}/a%3Ab%20c",
    ]


def test_an_empty_bucket_is_one_last_page_without_objects(moto):
    page = moto.page("", 10)
    assert (page.entries, page.last_key, page.is_truncated) == (b"", "", False)
    assert len(listed(moto)) == 0


@pytest.mark.parametrize("page_size", [1, 3, 12, 1000])
def test_all_keys_come_once_and_in_order_whatever_the_page_size(moto, put, cache, page_size):
    for key in KEYS:
        put(key)
    assert listed(moto, page_size=page_size).keys == sorted(KEYS, key=str.encode)
    assert cache.parser.unrecognised == 0


def test_a_listing_can_start_anywhere(moto, put):
    for key in KEYS:
        put(key)
    assert listed(moto, start_after="d/").keys == ["p//q", "z\ufffez", "é", "😀"]
    assert moto.page("\x01ctl", 1).last_key == "<k>"


def test_an_object_is_listed_with_its_etag_size_and_time(moto, put, s3_server):
    put("k", b"hello")
    head = s3_server.client().head_object(Bucket=moto._bucket.name, Key="k")
    rows = listed(moto)
    assert (rows.keys, rows.etags, rows.sizes) == (["k"], ["5d41402abc4b2a76b9719d911017c592"], [5])
    assert rows.last_modified[0] // 1000 == int(head["LastModified"].timestamp())


@pytest.mark.parametrize("key", KEYS, ids=ascii)
def test_head_tells_content_type_and_metadata_of_any_key(moto, put, key):
    put(key, b"hello", ContentType="text/plain", Metadata={"owner": "me"})
    assert moto.head(key) == ObjectMetadata(
        etag="5d41402abc4b2a76b9719d911017c592",
        content_type="text/plain",
        metadata={"owner": "me"},
    )


def test_head_of_an_object_that_is_gone_is_none(moto):
    assert moto.head("nothing") is None


def test_a_bucket_that_is_not_there_is_never_an_empty_listing(s3_server, cache):
    pair = KeyPair(s3_server.access_key, s3_server.secret_key)
    missing = BucketConfig("no-such-bucket", s3_server.url, "r", "C")
    with pytest.raises(BucketNotFound, match=r"^bucket no-such-bucket at 127\.0\.0\.1:"):
        listed(S3Storage(cache, missing, pair))


def test_keys_that_the_server_does_not_know_are_told_as_such(s3_server, cache):
    with pytest.raises(CredentialsRejected, match="does not know the access key"):
        listed(storage(cache, s3_server.url, s3_server.bucket()))


@pytest.mark.parametrize("max_keys", [-1, 0, 1001, 2**31])
def test_a_page_size_that_servers_answer_oddly_is_never_sent(cache, max_keys):
    with pytest.raises(ValueError, match="max_keys must be 1 to 1000"):
        storage(cache, "http://127.0.0.1:1").page("", max_keys)


@pytest.mark.parametrize("key", ["k" * 1024, "é" * 512, "😀" * 256], ids=["ASCII", "é", "😀"])
def test_the_longest_keys_are_listed(cache, key):
    with CannedServer(Answer(200, rgw([Row(key), Row("\U0010ffff")]))) as server:
        assert listed(storage(cache, server.url)).keys == [key, "\U0010ffff"]


def test_the_first_request_asks_in_version_2_with_url_encoding(cache):
    with CannedServer(Answer(200, rgw([Row("z")]))) as server:
        storage(cache, server.url).page("k/\x01 %", 7)
        [asked] = server.asked
    assert asked == {
        "list-type": "2",
        "encoding-type": "url",
        "max-keys": "7",
        "start-after": "k/\x01 %",
    }
    assert server.lines[0].startswith("GET /photos?")


def test_a_listing_goes_on_by_its_token_and_ends_only_when_it_says_so(cache):
    short, last = rgw([Row("a'%20\x01")], is_truncated=True, token="raw\x01"), rgw([Row("b")])
    with CannedServer(Answer(200, short), Answer(200, last)) as server:
        assert listed(storage(cache, server.url)).keys == ["a'%20\x01", "b"]
        assert [asked.get("continuation-token") for asked in server.asked] == [None, "raw\x01"]
        assert "start-after" not in server.asked[1]


def test_a_listing_without_a_token_goes_on_after_the_last_decoded_key(cache):
    short, last = rgw([Row("a'%20\x01")], is_truncated=True), rgw([Row("b")])
    with CannedServer(Answer(200, short), Answer(200, last)) as server:
        assert listed(storage(cache, server.url)).keys == ["a'%20\x01", "b"]
        assert [asked.get("start-after") for asked in server.asked] == [None, "a'%20\x01"]


def test_an_empty_page_that_is_not_the_last_is_followed_by_its_token(cache):
    empty = Answer(200, rgw([], is_truncated=True, token="tok&amp;en\x01"))
    with CannedServer(empty, empty, Answer(200, rgw([Row("z")]))) as server:
        assert listed(storage(cache, server.url), start_after="k").keys == ["z"]
        assert [asked.get("start-after") for asked in server.asked] == ["k", None, None]
        assert server.asked[1]["continuation-token"] == "tok&en\x01"


def test_empty_pages_are_not_followed_for_ever(cache):
    with CannedServer(Answer(200, rgw([], is_truncated=True, token="t"))) as server:
        with pytest.raises(StorageUnavailable, match="on and on with empty pages"):
            listed(storage(cache, server.url))
        assert len(server.asked) == 1 + MOST_AT_ONE_PLACE


def test_as_many_empty_pages_are_followed_as_there_are_delete_markers_to_skip(cache):
    """A versioned bucket whose objects were all deleted: eight in a row ended every scan of it."""
    pages = [rgw([], is_truncated=True, token=f"key-{n}") for n in range(100)]
    answers = [Answer(200, page) for page in (*pages, rgw([Row("z")]))]
    with CannedServer(*answers) as server:
        assert listed(storage(cache, server.url)).keys == ["z"]


def test_an_empty_page_without_a_token_is_an_error(cache):
    with (
        CannedServer(Answer(200, rgw([], is_truncated=True))) as server,
        pytest.raises(StorageUnavailable, match="neither that it is the last nor, in NextCont"),
    ):
        listed(storage(cache, server.url))


def test_a_server_that_repeats_a_page_is_an_error_not_a_loop(cache):
    with CannedServer(Answer(200, rgw([Row("a"), Row("b")], is_truncated=True))) as server:
        with pytest.raises(StorageUnavailable, match="does not go on after the key"):
            listed(storage(cache, server.url))
        assert len(server.asked) == 2


def test_a_row_that_the_next_page_repeats_is_one(cache):
    """To some servers "after" a key means "from" it."""
    pages = [["a", "b%"], ["b%", "c"], ["c"]]
    answers = [Answer(200, rgw(map(Row, keys), is_truncated=keys != ["c"])) for keys in pages]
    with CannedServer(*answers) as server:
        assert listed(storage(cache, server.url)).keys == ["a", "b%", "c"]


def test_a_page_with_nothing_but_the_row_before_it_is_gone_on_from_by_its_token(cache):
    answers = [
        rgw([Row("a")], is_truncated=True, token="t"),
        rgw([Row("a")], is_truncated=True, token="u"),
        rgw([Row("b")]),
    ]
    with CannedServer(*(Answer(200, body) for body in answers)) as server:
        assert listed(storage(cache, server.url), page_size=1).keys == ["a", "b"]
        assert [asked.get("continuation-token") for asked in server.asked] == [None, "t", "u"]


@pytest.mark.parametrize("flavour", [rgw, plain], ids=["encoded", "raw"])
def test_a_row_that_comes_twice_is_one(cache, flavour):
    rows = [Row(key) for key in ("a", "b", "b", "c")]
    with CannedServer(Answer(200, flavour(rows))) as server:
        assert listed(storage(cache, server.url)).keys == ["a", "b", "c"]


ODD_ENTRIES = {
    "a key that is not UTF-8": (b"<Key>l-K<", b"<Key>l-caf%E9.txt<", "l-caf%E9.txt"),
    "a lone surrogate": (b"<Key>l-K<", b"<Key>l-&#xD800;<", "l-&#xD800;"),
    "a bare ampersand": (b"<Key>l-K<", b"<Key>l-a&b<", "l-a&b"),
    "a long key": (b"<Key>l-K<", b"<Key>l-" + b"k" * 1_100 + b"<", "l-" + "k" * 998),
    "a long ETag": (b"2427f", b"2427f" + b"e" * 300, "l-K"),
    "no size": (b"<Size>7</Size>", b"", "l-K"),
    "a size of -1": (b"<Size>7</Size>", b"<Size>-1</Size>", "l-K"),
    "a size that no object has": (b"<Size>7</Size>", b"<Size>9223372036854775808</Size>", "l-K"),
    "an empty time": (b"2024-07-07T12:34:56.789Z", b"", "l-K"),
    "a time that is none": (b"2024-07-07", b"2024-13-07", "l-K"),
    "the year 1": (b"2024-07-07T12:34:56.789Z", b"0001-01-01T00:00:00Z", "l-K"),
    "no time": (b"<LastModified>2024-07-07T12:34:56.789Z</LastModified>", b"", "l-K"),
    "no key": (b"<Key>l-K</Key>", b"", ""),
    "an empty key": (b"<Key>l-K</Key>", b"<Key></Key>", ""),
    "no children": (None, b"<Contents></Contents>", ""),
}
ODD = Row("l-K", etag="2427f", last_modified="2024-07-07T12:34:56.789Z", size=7)


@pytest.mark.parametrize("flavour", [rgw, aws, plain], ids=["rgw", "aws", "plain"])
@pytest.mark.parametrize(("old", "new", "shown"), ODD_ENTRIES.values(), ids=ODD_ENTRIES)
@pytest.mark.parametrize("is_last", [False, True], ids=["between", "last"])
def test_one_odd_row_costs_one_row(cache, flavour, old, new, shown, is_last):
    if flavour is plain:
        new, shown = new.replace(b"%E9", b"\xe9"), shown.replace("%E9", r"\xe9")
    body = flavour([Row("0good"), *([] if is_last else [Row("zgood")])])
    odd = flavour([ODD])
    odd = odd[odd.index(b"<Contents>") : odd.rindex(b"</Contents>") + len(b"</Contents>")]
    assert old is None or old in odd
    odd = odd.replace(old, new) if old else new
    first = body.index(b"</Contents>") + len(b"</Contents>")
    body = (body[:first] + odd + body[first:]).replace(b"<KeyCount>2", b"<KeyCount>3")
    with CannedServer(Answer(200, body)) as server:
        asking = storage(cache, server.url)
        page = asking.page("", 9)
        rows = asking.rows(page.entries)
    assert rows.columns.keys == ["0good", *([] if is_last else ["zgood"])]
    assert [row.shown[:1000] for row in rows.odd] == [shown]
    assert page.last_key in ({"0good", "l-K", "l-a&b", "l-&#xD800;"} if is_last else {"zgood"})


def test_what_follows_a_row_that_cannot_be_read_is_listed_by_token(cache):
    odd = rgw([Row("K")], is_truncated=True, token="t2").replace(b"K</Key>", b"%E9</Key>")
    answers = [
        rgw([Row("a"), Row("K")], is_truncated=True, token="t1").replace(b"K<", b"%E9<"),
        odd,
        rgw([Row("b")]),
    ]
    with CannedServer(*(Answer(200, body) for body in answers)) as server:
        assert listed(storage(cache, server.url), page_size=2).keys == ["a", "b"]
        assert [asked.get("continuation-token") for asked in server.asked] == [None, "t1", "t2"]


def test_rows_that_cannot_be_read_do_not_come_for_ever(cache):
    odd = rgw([Row("K")], is_truncated=True, token="t").replace(b"K</Key>", b"%E9</Key>")
    with CannedServer(Answer(200, odd)) as server, pytest.raises(StorageUnavailable) as caught:
        listed(storage(cache, server.url), page_size=1)
    assert "it goes on and on with rows that cannot be read" in str(caught.value)


def test_a_page_full_of_long_rows_is_not_what_s3_sends(cache):
    body = rgw(Row(f"{n:03}" + "k" * 9_000) for n in range(20))
    with CannedServer(Answer(200, body)) as server, pytest.raises(StorageUnavailable) as caught:
        listed(storage(cache, server.url))
    assert "its rows are longer than S3 sends" in str(caught.value)


def test_the_digest_level_tells_all_without_parsing_a_row(cache):
    body = rgw([Row("a"), Row("b"), Row("c")], is_truncated=True)
    with CannedServer(Answer(200, body), Answer(200, rgw([Row("a"), Row("b")]))) as server:
        asking = storage(cache, server.url)
        three, two = asking.page("", 3), asking.page("", 2)
    assert (three.last_key, three.is_truncated) == ("c", True)
    first_two = three.entries[: end_of_rows(three.entries, 0, 2)]
    assert digest(first_two) == digest(two.entries)
    assert digest(three.entries) != digest(two.entries)
    assert asking.rows(three.entries).columns.keys == ["a", "b", "c"]
    assert asking.rows(three.entries).columns.last_modified == [1714566896789] * 3


STRANGE = {
    "a comment": (b"<IsTruncated>", b"<!-- hello --><IsTruncated>"),
    "entries with attributes": (b"<Contents>", b"<Contents id='1'>"),
    "a prefixed namespace": (b"ListBucketResult", b"s3:ListBucketResult"),
    "entries with a prefix": (b"Contents>", b"s3:Contents>"),
}


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize(("old", "new"), STRANGE.values(), ids=STRANGE)
def test_a_body_of_another_shape_is_read_by_botocore_with_the_same_result(cache, flavour, old, new):
    usual = FLAVOURS[flavour]([Row("a%20b"), Row("b", etag=""), Row("c d")])
    strange = usual.replace(old, new)
    if b"s3:ListB" in strange:
        strange = strange.replace(b"xmlns=", b"xmlns:s3=")
        strange = strange.replace(
            b"<s3:ListBucketResult>", b"<s3:ListBucketResult xmlns:s3='x'>", 1
        )
    elif b"s3:" in strange:
        strange = strange.replace(b"<ListBucketResult", b"<ListBucketResult xmlns:s3='x'", 1)
    assert strange != usual
    with CannedServer(Answer(200, usual), Answer(200, strange)) as server:
        asking = storage(cache, server.url)
        expected, page = asking.page("", 9), asking.page("", 9)
    assert cache.parser.unrecognised == 1
    assert (page.last_key, page.is_truncated) == ("c d", False)
    assert asking.rows(page.entries) == asking.rows(expected.entries)
    assert cache.parser.unrecognised == 1


def without_is_truncated(body: bytes) -> bytes:
    return re.sub(b"<IsTruncated>.*?</IsTruncated>", b"", body)


def test_without_is_truncated_the_token_and_the_number_of_keys_tell(cache):
    first = rgw([Row("a"), Row("b")], is_truncated=True, token="t")
    last = rgw([Row("c"), Row("d")])
    with CannedServer(
        Answer(200, without_is_truncated(first)), Answer(200, without_is_truncated(last))
    ) as server:
        assert listed(storage(cache, server.url)).keys == ["a", "b", "c", "d"]


def test_without_is_truncated_a_full_page_may_not_be_the_last(cache):
    full = Answer(200, without_is_truncated(rgw([Row("a"), Row("b")])))
    with (
        CannedServer(full) as server,
        pytest.raises(StorageUnavailable, match="no IsTruncated"),
    ):
        storage(cache, server.url).page("", 2)


ZLIB = zlib.compress(rgw([Row("a"), Row("b")]))
PACKED = {
    "gzip": ("gzip", gzip.compress(rgw([Row("a"), Row("b")]))),
    "x-gzip": ("X-GZip", gzip.compress(rgw([Row("a"), Row("b")]))),
    "deflate": ("deflate", ZLIB),
    "deflate without its header": ("deflate", ZLIB[2:-4]),
}


@pytest.mark.parametrize(("coding", "body"), PACKED.values(), ids=PACKED)
def test_a_body_that_is_compressed_unasked_is_read(cache, coding, body):
    with CannedServer(Answer(200, body, {"Content-Encoding": coding})) as server:
        assert listed(storage(cache, server.url)).keys == ["a", "b"]


@pytest.mark.parametrize("says", ["True", "1", "yes", ""])
def test_a_page_that_may_or_may_not_be_the_last_is_an_error(cache, says):
    """To botocore it would be the last, and whatever follows it gone."""
    body = rgw([Row("a")]).replace(b"<IsTruncated>false", b"<IsTruncated>%b" % says.encode())
    with (
        CannedServer(Answer(200, body)) as server,
        pytest.raises(StorageUnavailable, match="does not say whether more follows"),
    ):
        storage(cache, server.url).page("", 9)


def test_a_body_of_another_shape_is_continued_too(cache):
    odd = [
        rgw(rows, is_truncated=more, echo="\x01", token=token).replace(b"<Name>", b"<!-- --><Name>")
        for rows, more, token in [
            ([Row("a")], True, "\x01"),
            ([], True, "t"),
            ([Row("b")], False, ""),
        ]
    ]
    with CannedServer(*(Answer(200, body) for body in odd)) as server:
        assert listed(storage(cache, server.url)).keys == ["a", "b"]
        assert server.asked[1]["continuation-token"] == "\x01"
        assert server.asked[2]["continuation-token"] == "t"
    assert cache.parser.unrecognised == 3


def test_entries_of_another_shape_are_read_by_botocore_and_keep_their_digest(cache):
    body = minio([Row("a b"), Row("c%")])
    turned = body.replace(b"<Key>a+b</Key>", b"").replace(
        b"<Size>3</Size>", b"<Size>3</Size><Key>a+b</Key>", 1
    )
    with CannedServer(Answer(200, body), Answer(200, turned)) as server:
        asking = storage(cache, server.url)
        expected, page = asking.page("", 9), asking.page("", 9)
    assert asking.rows(page.entries) == asking.rows(expected.entries)
    assert digest(page.entries) != digest(expected.entries)
    assert cache.parser.unrecognised == 1


def test_a_last_entry_that_is_not_what_it_seems_is_read_by_botocore(cache):
    """Going on after the key of something else would skip what lies between."""
    body = rgw([Row("a"), Row("b")]).replace(
        b"<Contents><Key>b", b"<Contents><Owner><Key>zz</Key></Owner><Key>b"
    )
    with CannedServer(Answer(200, body)) as server:
        page = storage(cache, server.url).page("", 9)
    assert (page.entries.count(b"<Contents>"), page.last_key) == (2, "b")
    assert cache.parser.unrecognised == 1


def test_entries_that_even_botocore_counts_otherwise_are_an_error(cache):
    entries = rgw([Row("a")]).replace(b"<Size>", b"<!--</Contents>--><Size>")
    entries = entries[entries.index(b"<Contents>") : entries.rindex(b"</ListBucketResult>")]
    with pytest.raises(StorageUnavailable, match="its entries are not what S3 sends"):
        storage(cache, "http://127.0.0.1:1").rows(entries)


def test_the_same_bytes_mean_other_keys_without_url_encoding(cache):
    body = rgw([Row("a%20b")])
    raw = body.replace(b"<EncodingType>url</EncodingType>", b"")
    with CannedServer(Answer(200, body), Answer(200, raw)) as server:
        asking = storage(cache, server.url)
        encoded, plain = asking.page("", 9), asking.page("", 9)
    assert (encoded.last_key, plain.last_key) == ("a%20b", "a%2520b")
    assert asking.rows(plain.entries).columns.keys == ["a%2520b"]
    assert digest(encoded.entries) != digest(plain.entries)
    assert cache.parser.unrecognised == 0


def test_a_prefix_limits_what_is_listed(moto, put, cache):
    for key in ("a", "logs/1", "logs/2", "z"):
        put(key)
    limited = S3Storage(cache, replace(moto._bucket, prefix="logs/"), moto._pair)
    assert listed(limited, page_size=1).keys == ["logs/1", "logs/2"]
    assert listed(limited, start_after="logs/1").keys == ["logs/2"]
