"""Segments and manifest entries as bytes: what goes in comes out, and nothing else does."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import msgpack
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from scanning.adapters.redis.segment_codec import pack_entry, pack_rows, unpack_entry, unpack_rows
from scanning.core.listing.body import Columns
from scanning.core.segments.model import Entry

MOST, LEAST = 2**63 - 1, -(2**63)
MD5 = "d41d8cd98f00b204e9800998ecf8427e"

keys = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
md5s = st.from_regex(r"\A[0-9a-f]{32}\Z")
etags = md5s | st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
numbers = st.integers(LEAST, MOST)


def segments(of_etags: st.SearchStrategy[str]) -> st.SearchStrategy[Columns]:
    rows = st.lists(st.tuples(keys, of_etags, numbers, numbers), max_size=12)
    return rows.map(
        lambda listed: Columns(
            [row[0] for row in listed],
            [row[1] for row in listed],
            [row[2] for row in listed],
            [row[3] for row in listed],
        )
    )


entries = st.builds(
    Entry,
    id=st.from_regex(r"\A[0-9a-f]{1,16}-[0-9a-f]{1,8}\Z"),
    last_key=keys,
    count=st.integers(1, 1000),
    digest=st.binary(min_size=16, max_size=16) | st.just(b""),
    length=st.integers(0, 2**40),
    raw_key=st.binary(max_size=40),
    missing=st.lists(st.integers(0, 999), max_size=20).map(lambda rows: tuple(sorted(set(rows)))),
    strings_at=st.floats(0, 2e9),
)


@given(segments(etags) | segments(md5s))
def test_rows_come_back_as_they_were(columns):
    assert unpack_rows(pack_rows(columns)) == columns


@given(entries)
def test_entries_come_back_as_they_were(entry):
    assert unpack_entry(entry.id.encode(), pack_entry(entry)) == entry


@given(entries, st.floats(1, 2e9))
def test_rows_noted_as_absent_come_back_and_are_no_matter_to_the_version_before(entry, since):
    noted = replace(entry, absent=entry.missing, absent_since=since if entry.missing else 0.0)
    packed = pack_entry(noted)
    assert unpack_entry(entry.id.encode(), packed) == noted
    # What version 0.1 reads: seven members, and a digest that no listing has.
    last_key, count, digest, length, raw_key, missing, strings_at = msgpack.unpackb(packed)
    assert (last_key, count, length) == (entry.last_key, entry.count, entry.length)
    assert raw_key == entry.raw_key
    assert (tuple(missing), strings_at) == (entry.missing, entry.strings_at)
    assert (digest == entry.digest) == (not entry.missing)


@given(entries, st.integers(1, 2_000_000_000))
def test_when_rows_changed_comes_back_and_is_no_matter_to_the_version_before(entry, at):
    noted = replace(entry, changed_at=at)
    packed = pack_entry(noted)
    assert unpack_entry(entry.id.encode(), packed) == noted
    *members, _strings_at = msgpack.unpackb(packed)
    assert len(members) == 6
    assert members[2] != entry.digest  # version 0.1 compares the rows


@given(entries, st.lists(st.tuples(st.integers(0, 999), numbers), min_size=1, max_size=20))
def test_moved_times_come_back_and_are_no_matter_to_the_version_before(entry, moved):
    """With and without rows that are noted as absent."""
    rows, times = zip(*sorted(dict(moved).items()), strict=True)
    absent = entry.missing[::2]
    since = 5.5 if absent else 0.0
    noted = replace(entry, absent=absent, absent_since=since, moved=rows, moved_times=times)
    packed = pack_entry(noted)
    assert unpack_entry(entry.id.encode(), packed) == noted
    *members, digest, _, _, _, _ = msgpack.unpackb(packed)
    assert members == [entry.last_key, entry.count]
    assert len(digest) > 16  # no listing has it: version 0.1 compares the rows


def test_the_times_of_a_storm_take_few_bytes_each():
    rows = tuple(range(1000))
    times = tuple(1_714_566_896_000 + 1000 * (row // 40) for row in rows)
    entry = Entry("1-0", "key", 1000, b"d" * 16, 300_000, moved=rows, moved_times=times)
    assert len(pack_entry(entry)) < 1000


@pytest.mark.parametrize(
    "note", [b"", b"no zstd", zstandard.ZstdCompressor().compress(b"12345678")]
)
def test_a_broken_note_of_moved_times_is_a_value_error(note):
    digest = bytes(16) + msgpack.packb([b"d" * 16, [], 0.0, note])
    with pytest.raises(ValueError, match="not a manifest entry"):
        unpack_entry(b"1-0", msgpack.packb(["key", 1, digest, 5, b"", [], 0.0]))


ODD_ETAGS = {
    "none": [],
    "empty": [""],
    "MD5": [MD5],
    "multipart": [MD5 + "-12"],
    "MD5 and multipart": [MD5, MD5 + "-2"],
    "upper case": [MD5.upper()],
    "33 and 31 digits": [MD5 + "0", MD5[1:]],
    "32 characters that are no digits": ["é" * 32],
    "32 wide digits": ["\uff11" * 32],
    "a line break at the end": [MD5[:31] + "\n"],
}


@pytest.mark.parametrize("odd", ODD_ETAGS.values(), ids=ODD_ETAGS)
def test_etags_of_every_kind_come_back_as_they_were(odd):
    columns = Columns([str(n) for n in range(len(odd))], odd, [0] * len(odd), [0] * len(odd))
    assert unpack_rows(pack_rows(columns)) == columns


@pytest.mark.parametrize("number", [MOST, LEAST, 0, -1, 255, 256, 1_700_000_000_000])
def test_numbers_of_64_bits_come_back(number):
    columns = Columns(["k"], ["e"], [number], [number])
    assert unpack_rows(pack_rows(columns)) == columns


@pytest.mark.parametrize("number", [MOST + 1, LEAST - 1])
def test_larger_numbers_are_refused_instead_of_changed(number):
    with pytest.raises(OverflowError):
        pack_rows(Columns(["k"], ["e"], [number], [0]))


def packed(value: object) -> bytes:
    return zstandard.ZstdCompressor().compress(msgpack.packb(value))


BROKEN_ROWS = {
    "nothing": b"",
    "no zstd": b"\xff" * 40,
    "cut": pack_rows(Columns(["k"], ["e"], [1], [1]))[:-3],
    "no list": packed(7),
    "three columns": packed([["k"], ["e"], b"\0" * 8]),
    "another number of ETags": packed([["k"], ["e", "f"], b"\0" * 8, b"\0" * 8]),
    "another number of MD5 ETags": packed([["k"], b"\0" * 32, b"\0" * 8, b"\0" * 8]),
    "another number of times": packed([["k"], ["e"], b"\0" * 16, b"\0" * 8]),
    "half a number": packed([["k"], ["e"], b"\0" * 8, b"\0" * 7]),
    "numbers as text": packed([["k"], ["e"], "12345678", b"\0" * 8]),
    "keys that are no list": packed([5, ["e"], b"\0" * 8, b"\0" * 8]),
    "no UTF-8": zstandard.ZstdCompressor().compress(b"\x94\x91\xa1\xff\x90\xc4\x00\xc4\x00"),
    "more after the end": zstandard.ZstdCompressor().compress(
        msgpack.packb([[], [], b"", b""]) + b"\0"
    ),
}


@pytest.mark.parametrize("value", BROKEN_ROWS.values(), ids=BROKEN_ROWS)
def test_bytes_that_are_no_segment_are_a_value_error(value):
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
        unpack_rows(value)


@pytest.mark.parametrize(
    "value", [b"", b"\xff", msgpack.packb(3), msgpack.packb(["k", 1, 2]), b"\x97" + b"\x01" * 7]
)
def test_bytes_that_are_no_entry_are_a_value_error(value):
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
        unpack_entry(b"1-0", value)


@given(st.binary(max_size=200), st.data())
def test_no_damage_to_a_segment_is_anything_but_a_value_error(noise, data):
    whole = pack_rows(Columns(["a", "b"], [MD5, MD5], [1, 2], [3, 4]))
    at = data.draw(st.integers(0, len(whole)))
    damaged = whole[:at] + noise + whole[at + len(noise) :]
    try:
        columns = unpack_rows(damaged)
    except ValueError:
        return
    assert len({len(columns.keys), len(columns.etags), len(columns.last_modified)}) == 1


def test_a_million_like_objects_take_few_bytes_each():
    many = range(1000)
    columns = Columns(
        [f"logs/2024/05/01/host-{number:06}.gz" for number in many],
        [f"{number * 0x9E3779B97F4A7C15 % 2**128:032x}" for number in many],
        [1_714_566_896_000 + 1000 * number for number in many],
        [4096 + number for number in many],
    )
    assert len(pack_rows(columns)) < 45 * 1000


def test_threads_do_not_share_what_cannot_be_shared():
    """A zstd compressor that two threads use at once breaks."""
    start = threading.Barrier(4)
    many = Columns([f"{n:09}" for n in range(1000)], [MD5] * 1000, [1] * 1000, [1] * 1000)

    def pack(_: int) -> bool:
        start.wait()
        return all(unpack_rows(pack_rows(many)) == many for _ in range(20))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(pack, range(4)))
