"""`scanning/core/listing/body.py`: the bodies of listings, against botocore's own parser."""

import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import botocore.loaders
import botocore.parsers
import pytest
from botocore.compat import unquote_str
from botocore.model import ServiceModel
from hypothesis import given
from hypothesis import strategies as st

from scanning.core.error_bodies import read_error
from scanning.core.listing.body import (
    Columns,
    UnreadableListing,
    check_for_parser,
    is_whole,
    milliseconds,
    next_token,
    read_listing,
    read_rows,
    render_entries,
    says_last,
    without_echoes,
)
from scanning.core.segments.matcher import digest, end_of_rows
from tests.support.listing_bodies import (
    FLAVOURS,
    REPEATED,
    Row,
    adversarial,
    aws,
    minio,
    pretty,
    rgw,
)

ROWS = [
    Row("a b"),
    Row("a%20b", etag="0-2", last_modified="2023-12-31T23:59:59Z", size=0),
    Row("c&d'e\"f<g>", etag="", last_modified="1999-01-01T00:00:00.001Z", size=5 * 2**40),
    Row("d+e/é😀"),
]
SHAPE = (
    ServiceModel(botocore.loaders.Loader().load_service_model("s3", "service-2"))
    .operation_model("ListObjectsV2")
    .output_shape
)

keys = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
moments = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1))  # noqa: DTZ001
rows = st.builds(
    Row,
    key=keys
    | st.sampled_from(["a%20b", "a+b", "//", "d/", "\x01", "\ufffe", "\n\r", "&amp;", "%"]),
    etag=st.from_regex(r"\A[0-9a-f]{0,32}(-[0-9]{1,5})?\Z"),
    last_modified=moments.map(lambda at: at.isoformat(timespec="milliseconds") + "Z")
    | moments.map(lambda at: at.isoformat(timespec="seconds") + "Z"),
    size=st.integers(0, 5 * 2**40),
)
listings = st.lists(rows, max_size=8, unique_by=lambda row: row.key).map(
    lambda listed: sorted(listed, key=lambda row: row.key)
)


def by_botocore(body: bytes) -> Columns:
    assert SHAPE is not None
    parser = botocore.parsers.create_parser("rest-xml")
    answer = parser.parse({"status_code": 200, "headers": {}, "body": body}, SHAPE)
    contents = answer.get("Contents", [])
    encoded = answer.get("EncodingType") == "url"
    epoch, unit = datetime(1970, 1, 1, tzinfo=UTC), timedelta(milliseconds=1)
    return Columns(
        keys=[unquote_str(row["Key"]) if encoded else row["Key"] for row in contents],
        etags=[row["ETag"].strip('"') for row in contents],
        last_modified=[(row["LastModified"] - epoch) // unit for row in contents],
        sizes=[row["Size"] for row in contents],
    )


def read(body: bytes):
    listing = read_listing(body)
    assert listing is not None
    return listing


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("is_truncated", [True, False], ids=["truncated", "last"])
def test_every_servers_body_is_read_as_botocore_reads_it(flavour, is_truncated):
    body = FLAVOURS[flavour](ROWS, is_truncated=is_truncated)
    listing = read(body)
    assert listing.columns() == by_botocore(body)
    assert (listing.rows, listing.last_key) == (len(ROWS), ROWS[-1].key)
    assert listing.is_truncated is is_truncated
    assert listing.columns().keys == [row.key for row in ROWS]


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_an_empty_listing_has_no_rows_and_no_last_key(flavour):
    listing = read(FLAVOURS[flavour]([]))
    assert (listing.rows, listing.last_key, listing.is_truncated) == (0, "", False)
    assert listing.columns() == Columns([], [], [], [])
    assert listing.entries == b""


@given(listings, st.sampled_from([rgw, aws, minio, pretty]), st.booleans())
def test_rows_are_what_botocore_reads_for_any_keys(listed, flavour, is_truncated):
    body = flavour(listed, is_truncated=is_truncated)
    listing = read(body)
    assert listing.columns() == by_botocore(body)
    assert listing.last_key == (listed[-1].key if listed else "")
    assert listing.is_truncated is is_truncated


@given(listings, listings)
def test_equal_digests_mean_equal_rows(left, right):
    one, other = read(rgw(left)), read(rgw(right))
    same_rows = one.columns() == other.columns()
    assert (digest(one.entries) == digest(other.entries)) == same_rows


@given(listings, st.integers(0, 9), st.sampled_from([rgw, aws, minio, pretty]))
def test_the_digest_of_the_first_rows_is_that_of_a_page_of_them(listed, first, flavour):
    entries = read(flavour(listed)).entries
    start = entries[: end_of_rows(entries, 0, min(first, len(listed)))]
    assert digest(start) == digest(read(flavour(listed[:first])).entries)


@given(listings, st.integers(0, 8), st.sampled_from([rgw, aws, minio, pretty]))
def test_entries_are_the_same_bytes_wherever_a_page_is_cut(listed, cut, flavour):
    first, rest = read(flavour(listed[:cut])), read(flavour(listed[cut:]))
    whole = read(flavour(listed))
    assert first.entries + rest.entries == whole.entries
    assert read_rows(whole.entries, url_encoded=True) == whole.columns()


def test_white_space_between_entries_is_not_part_of_them():
    body = rgw(ROWS)
    spaced = body.replace(b"</Contents><Contents>", b"</Contents>\n  <Contents>")
    assert read(spaced).entries == read(body).entries


@given(listings)
def test_rendered_entries_are_read_as_the_rows_that_they_were_made_of(listed):
    columns = read(rgw(listed)).columns()
    assert read_rows(render_entries(columns), url_encoded=True) == columns


@pytest.mark.parametrize("echo", ["\x01", "\x0b\x1f", "\ufffe", "a &quot; b"], ids=repr)
def test_echoed_fields_that_are_no_xml_do_not_disturb(echo):
    body = rgw(ROWS, is_truncated=True, echo=echo, token=f"{echo}x")
    listing = read(body)
    assert listing.columns().keys == [row.key for row in ROWS]
    assert by_botocore(without_echoes(body)) == listing.columns()


def test_the_token_of_an_empty_page_is_found_however_raw_it_is():
    listing = read(rgw([], is_truncated=True, token="a&amp;\x01b"))
    assert (listing.rows, listing.is_truncated, listing.next_token) == (0, True, "a&\x01b")


BODY = rgw(ROWS)
UNKNOWN = {
    "no body": b"",
    "an error": b"<?xml version='1.0'?><Error><Code>SlowDown</Code></Error>",
    "a web page": b"<html><body>hello</body></html>",
    "cut in an entry": BODY[: len(BODY) // 2],
    "cut after an entry": BODY[: BODY.rindex(b"</Contents>") + len(b"</Contents>")],
    "cut in the end tag": BODY[:-1],
    "something after the end": BODY + b"<more/>",
    "a prefixed namespace": BODY.replace(b"ListBucketResult", b"s3:ListBucketResult"),
    "IsTruncated twice": BODY.replace(
        b"<EncodingType>", b"<IsTruncated>true</IsTruncated><EncodingType>"
    ),
    "IsTruncated odd": BODY.replace(b"<IsTruncated>false", b"<IsTruncated>perhaps"),
    "entries with attributes": BODY.replace(b"<Contents>", b"<Contents id='1'>"),
    "one entry with attributes": BODY.replace(b"<Contents>", b"<Contents id='1'>", 1),
    "a last entry with attributes": b"<Contents id='1'>".join(BODY.rsplit(b"<Contents>", 1)),
    "entries closed with space": BODY.replace(b"</Contents>", b"</Contents >"),
    "entries with a prefix": BODY.replace(b"Contents>", b"s3:Contents>"),
    "common prefixes": BODY.replace(
        b"</ListB", b"<CommonPrefixes><Prefix>a</Prefix></CommonPrefixes></ListB"
    ),
    "common prefixes between": BODY.replace(b"</Contents>", b"</Contents><CommonPrefixes/>", 1),
    "a comment": BODY.replace(b"<Name>", b"<!-- <Contents> --><Name>"),
    "a document type": BODY.replace(b"<ListB", b"<!DOCTYPE x><ListB", 1),
    "a last key in CDATA": rgw([Row("K")]).replace(b"K</Key>", b"<![CDATA[K]]></Key>"),
    "a last entry that begins with something else": rgw([Row("K")]).replace(
        b"<Contents>", b"<Contents><Owner><Key>z</Key></Owner>"
    ),
}


@pytest.mark.parametrize("body", UNKNOWN.values(), ids=UNKNOWN)
def test_a_body_of_another_shape_is_not_recognised(body):
    assert read_listing(body) is None


ODD_ENTRIES = {
    "another order": (b"<Contents><Key>", b"<Contents><Size>1</Size><Key>"),
    "no size": (b"<Size>3</Size>", b""),
    "two sizes": (b"<Size>3</Size>", b"<Size>3</Size><Size>4</Size>"),
    "no ETag": (b"<ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag>", b""),
    "a time zone": (b".789Z</LastModified>", b"+02:00</LastModified>"),
    "a size of 19 digits": (b"<Size>3<", b"<Size>1234567890123456789<"),
    "a line break in an ETag": (b"<ETag>&quot;d4", b"<ETag>d4\n"),
    "an impossible time": (b"2024-05-01", b"2024-13-01"),
    "an unknown entity": (b"<Key>a", b"<Key>&eacute;a"),
    "CDATA": (b"<Key>a%20b<", b"<Key><![CDATA[a]]><"),
}


@pytest.mark.parametrize(("old", "new"), ODD_ENTRIES.values(), ids=ODD_ENTRIES)
def test_an_entry_of_another_shape_is_left_to_a_real_parser(old, new):
    body = rgw([Row("a b"), Row("b")]).replace(old, new, 1)
    assert body != rgw([Row("a b"), Row("b")])
    assert read(body).columns() is None


@pytest.mark.parametrize(
    "element", [b"<ETag/>", b"<ETag />", b"<ETag></ETag>", b"<ETag>&quot;&quot;</ETag>"]
)
def test_an_empty_etag_is_an_etag(element):
    body = rgw([Row("a", etag="")]).replace(b"<ETag>&quot;&quot;</ETag>", element)
    assert read(body).columns().etags == [""]


@pytest.mark.parametrize("raw", [b"%FF", b"a%C3(", b"\xff", b"%ED%A0%80"])
def test_a_key_that_is_not_utf8_is_an_error_not_another_key(raw):
    body = rgw([Row("a"), Row("K"), Row("z")]).replace(b"K</Key>", raw + b"</Key>")
    with pytest.raises(UnreadableListing, match="not valid UTF-8"):
        read(body).columns()


UNREADABLE_KEYS = {
    "not UTF-8": b"caf%E9.txt",
    "an unknown entity": b"&eacute;",
    "a character beyond all": b"&#x99999999;",
    "a lone surrogate": b"&#xD800;",
    "an open entity": b"&amp",
    "a bare ampersand": b"a & b",
    "too long": b"k" * 1025,
}


@pytest.mark.parametrize("raw", UNREADABLE_KEYS.values(), ids=UNREADABLE_KEYS)
@pytest.mark.parametrize(("names", "last"), [("aKK", "a"), ("KK", ""), ("KKz", "z")])
def test_the_last_key_is_the_last_one_that_can_be_read(raw, names, last):
    body = rgw(map(Row, names)).replace(b"K</Key>", raw + b"</Key>")
    listing = read(body)
    assert (listing.last_key, listing.ends_oddly) == (last, names.endswith("K"))
    assert listing.rows == len(names)


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        ("1970-01-01T00:00:00", 0),
        ("1970-01-01T00:00:00.001", 1),
        ("2024-05-01T12:34:56.789", 1714566896789),
        ("2024-05-01T12:34:56.5", 1714566896500),
        ("2024-05-01T12:34:56.123456789", 1714566896123),
        ("1969-12-31T23:59:59.999", -1),
    ],
)
def test_timestamps_become_milliseconds(stamp, expected):
    assert milliseconds([stamp]) == [expected]


@given(listings, st.data())
def test_no_beginning_of_a_body_passes_for_a_listing(listed, data):
    body = rgw(listed)
    assert not is_whole(body[: data.draw(st.integers(0, len(body) - 1))])


def read_encoded_rows(entries: bytes) -> None:
    read_rows(entries, url_encoded=True)


READERS = (
    *(is_whole, read_listing, says_last, next_token, without_echoes, read_encoded_rows),
    *(check_for_parser, read_error),
)


def seconds(body: bytes) -> float:
    """How long this thread reads one body, in every way that there is."""
    began = time.thread_time()
    for read in READERS:
        with suppress(UnreadableListing):
            read(body)
    return time.thread_time() - began


@pytest.mark.parametrize("unit", REPEATED, ids=repr)
def test_reading_takes_time_in_proportion_to_the_bytes_whatever_they_are(unit):
    times = 8_000 // len(unit)
    for body, longer in zip(adversarial(unit, times), adversarial(unit, 4 * times), strict=True):
        took = min(seconds(longer) for _ in range(2))
        assert took < 0.1 or took < 10 * seconds(body), body[:80]
