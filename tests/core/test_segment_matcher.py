"""Following a listing through a manifest, and what must then be written: tables of cases.

The segments of `BUCKET` are a-d, e-h, i-l: four rows each, as many as a segment may have.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanning.core.listing.body import Columns, UnreadableListing, render_entries
from scanning.core.scan_warnings import WarningKind
from scanning.core.segments.matcher import (
    Listed,
    Matcher,
    Page,
    Unchanged,
    digest,
    end_of_rows,
    raw_last_key,
)
from scanning.core.segments.model import NOTHING, Entry
from scanning.core.segments.writer import Rewriting, SegmentWriter, drop_missing_rows
from scanning.scan.lane import LaneComparer
from scanning.scan.lane_splitter import Lane
from tests.support.fakes import Bucket, FakePage, FakeStorage, columns_of

LIMIT = 4
STATE = ("e", 1_600_000_000_000, 1)
BUCKET: Bucket = dict.fromkeys("abcdefghijkl", STATE)


@dataclass
class Known:
    """A manifest and its segments; `compare` lists a bucket against them and applies the result."""

    entries: list[Entry]
    segments: dict[str, Columns]
    ids: "count[int]"
    loads: int = 0
    parsed: int = 0
    unchanged: int = 0

    def compare(
        self,
        listed: Bucket,
        *,
        page_size: int = LIMIT,
        limit: int = LIMIT,
        short: Sequence[int] = (),
        render: Callable[[Columns], bytes] = render_entries,
    ) -> list[Rewriting]:
        storage = FakeStorage(listed, short, render=render)
        lane = LaneComparer(
            Lane("", None),
            self.entries,
            parse=storage.rows,
            writer=SegmentWriter(load=self._load, new_id=lambda: str(next(self.ids)), limit=limit),
        )
        self.loads = self.unchanged = 0
        rewritings = []
        after, more = "", True
        while more:
            page = storage.page(after, page_size)
            for found in lane.compare(page):
                if isinstance(found, Unchanged):
                    self.unchanged += 1
                    continue
                rewritings.append(found)
                for id_ in found.removed:
                    del self.segments[id_]
                for piece in found.pieces:
                    if piece.columns is not None:
                        self.segments[piece.entry.id] = piece.columns
            after, more = page.last_key, page.is_truncated
        assert lane.done
        self.entries = lane.entries
        self.parsed = storage.parsed
        return [found for found in rewritings if found.pieces]

    def _load(self, id_: str) -> Columns:
        self.loads += 1
        return self.segments[id_]

    @property
    def shape(self) -> list[str]:
        """The keys of each segment; a missing one in brackets."""
        return [
            "".join(
                f"[{key}]" if row in entry.missing else key
                for row, key in enumerate(self.segments[entry.id].keys)
            )
            for entry in self.entries
        ]


@pytest.fixture
def known() -> Known:
    fresh = Known([], {}, count())
    fresh.compare(BUCKET)
    assert fresh.shape == ["abcd", "efgh", "ijkl"]
    return fresh


def appeared(rewritings: Sequence[Rewriting]) -> list[str]:
    return [found.merged.columns.keys[row] for found in rewritings for row in found.merged.appeared]


def without(*keys: str) -> Bucket:
    return {key: state for key, state in BUCKET.items() if key not in keys}


def plus(*keys: str) -> Bucket:
    return BUCKET | dict.fromkeys(keys, STATE)


CASES: dict[str, tuple[Bucket, list[str], int]] = {
    # listed, shape afterwards, segments that were recognised by their digest
    "nothing": (BUCKET, ["abcd", "efgh", "ijkl"], 3),
    "insert before all": (plus("A"), ["Aa", "bcd", "efgh", "ijkl"], 2),
    "insert within": (plus("bb"), ["ab", "bbcd", "efgh", "ijkl"], 2),
    "insert between segments": (plus("dd"), ["abcd", "dde", "fgh", "ijkl"], 2),
    "insert after all": (plus("m"), ["abcd", "efgh", "ijkl", "m"], 3),
    "insert at every border": (
        plus("A", "dd", "hh", "m"),
        ["Aa", "bcd", "dde", "fgh", "hhi", "jklm"],
        0,
    ),
    "first key gone": (without("a"), ["[a]bcd", "efgh", "ijkl"], 2),
    "last key of a segment gone": (without("d"), ["abc[d]", "efgh", "ijkl"], 2),
    "first key of a segment gone": (without("e"), ["abcd", "[e]fgh", "ijkl"], 2),
    "last key of all gone": (without("l"), ["abcd", "efgh", "ijk[l]"], 2),
    "keys on both sides of a border gone": (without("d", "e"), ["abc[d]", "[e]fgh", "ijkl"], 1),
    "a whole segment gone": (without(*"efgh"), ["abcd", "[e][f][g][h]", "ijkl"], 2),
    "all but the first segment gone": (
        dict.fromkeys("abcd", STATE),
        ["abcd", "[e][f][g][h]", "[i][j][k][l]"],
        1,
    ),
    "everything gone": ({}, ["[a][b][c][d]", "[e][f][g][h]", "[i][j][k][l]"], 0),
    "last key gone and another after it": (
        without("d") | {"dd": STATE},
        ["abc[d]", "dde", "fgh", "ijkl"],
        1,
    ),
    "a key for another": (without("f") | {"ff": STATE}, ["abcd", "e[f]", "ffgh", "ijkl"], 2),
}


@pytest.mark.parametrize("page_size", [1, 3, 4, 5, 100])
@pytest.mark.parametrize(("listed", "shape", "unchanged"), CASES.values(), ids=CASES)
def test_what_changed_is_found_at_and_around_the_borders(
    known, listed, shape, unchanged, page_size
):
    known.compare(listed, page_size=page_size)
    assert "".join(known.shape) == "".join(shape)
    assert known.unchanged >= unchanged
    # Whatever is marked now is not marked when it is back, and nothing is new then.
    rewritings = known.compare(BUCKET | listed, page_size=page_size)
    assert appeared(rewritings) == []
    assert not any(entry.missing for entry in known.entries)
    assert known.compare(BUCKET | listed, page_size=page_size) == []


@pytest.mark.parametrize(("listed", "shape", "unchanged"), CASES.values(), ids=CASES)
def test_segments_are_cut_again_where_they_grew(known, listed, shape, unchanged):
    known.compare(listed)
    assert known.shape == shape
    assert known.unchanged == unchanged


def test_ten_segments_worth_within_one_is_written_in_parts(known):
    between = [f"f{number:02d}" for number in range(10 * LIMIT)]
    rewritings = known.compare(plus(*between))
    assert known.unchanged == 2
    assert known.loads == 1
    assert sum(len(found.merged.appeared) for found in rewritings) == 10 * LIMIT
    for found in rewritings:
        assert len(found.merged.appeared) + len(found.merged.updated) <= LIMIT
        # The manifest is whole after each part: what is to be listed still stands at the end.
        assert all(piece.entry.last_key < "h" for piece in found.pieces[:-1])
    assert rewritings[0].pieces[-1].entry.last_key == "h"
    assert "".join(known.shape) == "".join(sorted(plus(*between)))
    assert len(known.entries) <= 3 + 2 * 11


def test_a_part_leaves_the_rest_of_its_segment_with_what_is_missing_there(known):
    known.compare(without("a", "d"))
    assert known.shape[0] == "[a]bc[d]"
    between = [f"b{number}" for number in range(9)]
    listed = without("a", "d") | dict.fromkeys(between, STATE)
    rest = known.compare(listed)[0].pieces[-1]
    assert rest.columns is not None
    assert [rest.columns.keys[row] for row in rest.entry.missing] == ["d"]
    assert rest.entry.digest == b""
    assert "".join(known.shape) == "[a]b" + "".join(between) + "c[d]efghijkl"


def test_rows_that_were_missing_and_are_back_are_not_new(known):
    known.compare(without("b", "f", "g", "l"))
    assert known.shape == ["a[b]cd", "e[f][g]h", "ijk[l]"]
    rewritings = known.compare(BUCKET)
    assert [found.merged.appeared for found in rewritings] == [(), (), ()]
    assert [found.merged.updated for found in rewritings] == [(), (), ()]
    assert all(piece.columns is None for found in rewritings for piece in found.pieces)
    assert known.shape == ["abcd", "efgh", "ijkl"]


def test_rows_that_were_missing_and_are_back_otherwise_are_updates(known):
    known.compare(without("b"))
    [found] = known.compare(BUCKET | {"b": ("new", 1, 1)})
    assert found.merged.appeared == ()
    assert [found.merged.columns.keys[row] for row in found.merged.updated] == ["b"]
    assert [found.known.etags[row] for row in found.merged.before] == ["e"]


def test_a_missing_row_in_the_middle_keeps_the_digest_of_the_others(known):
    known.compare(without("b"))
    assert known.compare(without("b")) == []
    assert (known.unchanged, known.parsed, known.loads) == (3, 0, 0)


def test_a_missing_last_row_never_lets_the_digest_of_the_others_end_the_segment(known):
    """Behind the others something may have come before the key that is missing."""
    known.compare(without("d"))
    assert known.shape[0] == "abc[d]"
    assert appeared(known.compare(without("d") | {"cc": STATE})) == ["cc"]
    assert "".join(known.shape) == "abccc[d]efghijkl"
    assert appeared(known.compare(BUCKET)) == []
    assert "".join(known.shape) == "abc[cc]defghijkl"


def test_a_segment_of_which_all_is_missing_is_like_no_bytes_at_all(known):
    """Its digest would be that of nothing, which stands everywhere."""
    known.compare(without(*"efgh"))
    assert known.entries[1].digest == b""
    [found] = known.compare(without(*"efgh") | {"f": STATE})
    assert found.merged.appeared == ()
    assert known.shape == ["abcd", "[e]f[g][h]", "ijkl"]


def test_what_is_left_when_missing_rows_are_deleted_keeps_its_digest(known):
    known.compare(without("a", "d", "k"))
    for place, entry in enumerate(known.entries):
        if entry.missing:
            left = drop_missing_rows(entry, known.segments[entry.id], entry.missing)
            assert left is not None
            assert left.columns is not None
            known.entries[place], known.segments[entry.id] = left.entry, left.columns
    assert known.shape == ["bc", "efgh", "ijl"]
    assert known.compare(without("a", "d", "k")) == []
    assert (known.unchanged, known.parsed) == (3, 0)


def test_nothing_is_left_of_a_segment_of_which_all_is_missing(known):
    known.compare({})
    [entry] = known.entries[:1]
    assert drop_missing_rows(entry, known.segments[entry.id], entry.missing) is None


# --- how keys are written


@pytest.mark.parametrize("written", ["plus", "percent", "lower", "all"])
def test_a_last_key_that_the_server_writes_otherwise_is_found_and_decoded(written):
    """`raw_key` finds the end of a segment; where it does not help, parsing does."""
    ways = {
        "plus": lambda key: quote(key, safe="/").replace("%20", "+"),
        "percent": lambda key: quote(key, safe=""),
        "lower": lambda key: quote(key, safe="/").replace("%2B", "%2b").replace("%C3", "%c3"),
        "all": lambda key: "".join(f"%{byte:02X}" for byte in key.encode()),
    }
    keys = sorted(["a b", "a+b", "a/b", "a&b", "aéb", "a%20b", "a~b", "a'b"])
    listed = columns_of(dict.fromkeys(keys, STATE))

    def render(columns: Columns, way: str) -> bytes:
        return b"".join(
            render_entries(columns_of({"KEY": STATE})).replace(b"KEY", ways[way](key).encode())
            for key in columns.keys
        )

    def find(way: str, entries: list[Entry], columns: Columns) -> list[object]:
        matcher = Matcher(entries, FakeStorage({}).rows, limit=4)
        raw = render(columns, way)
        page: Page = FakePage(raw, columns.keys[-1], is_truncated=False)
        return list(matcher.feed(page))

    ids = count()
    writer = SegmentWriter(load=lambda _: NOTHING, new_id=lambda: str(next(ids)), limit=4)
    for start in (0, 4):
        columns = columns_of(dict.fromkeys(keys[start : start + 4], STATE))
        writer.write(Listed(None, columns, render(columns, "plus")))
    entries = writer.entries
    assert entries[0].raw_key != entries[0].last_key.encode()

    found = find(written, entries, listed)
    if written == "plus":
        assert all(isinstance(part, Unchanged) for part in found[:2])
    else:
        assert [part.columns.keys for part in found[:2]] == [keys[:4], keys[4:]]  # type: ignore[attr-defined]
    # The same when a row before the border has gone, so that its place must be searched.
    found = find(written, entries, columns_of(dict.fromkeys(keys[1:], STATE)))
    assert found[0].columns.keys == keys[1:4]  # type: ignore[attr-defined]


def test_keys_that_go_back_are_an_error_wherever_they_do():
    entries = [Entry("0", "d", 4), Entry("1", "h", 4)]
    for keys in (["b", "a"], ["e", "d"]):
        matcher = Matcher(entries, FakeStorage({}).rows, limit=4, after="")
        raw = b"".join(render_entries(columns_of({key: STATE})) for key in keys)
        with pytest.raises(UnreadableListing, match="not in order"):
            list(matcher.feed(FakePage(raw, keys[-1], is_truncated=False)))


@given(
    st.sets(st.sampled_from("abcdefghijklmnopq")),
    st.lists(st.integers(1, 3), min_size=17, max_size=17),
    st.integers(1, 9),
)
def test_rows_that_come_twice_are_one_wherever_pages_and_segments_end(keys, times, page_size):
    def repeating(columns: Columns) -> bytes:
        return b"".join(
            render_entries(columns_of({key: STATE})) * times[ord(key) - ord("a")]
            for key in columns.keys
        )

    known = Known([], {}, count())
    known.compare(BUCKET)
    known.compare(dict.fromkeys(keys, STATE), page_size=page_size, render=repeating)
    rows = {
        key: row in entry.missing
        for entry in known.entries
        for row, key in enumerate(known.segments[entry.id].keys)
    }
    assert {key for key, is_missing in rows.items() if not is_missing} == keys
    assert {key for key, is_missing in rows.items() if is_missing} == BUCKET.keys() - keys
    again = known.compare(dict.fromkeys(keys, STATE), page_size=page_size, render=repeating)
    assert not appeared(again)


def test_of_two_different_rows_of_a_key_the_last_counts_and_the_key_is_named():
    raw = b"".join(render_entries(columns_of({"a\x1b": ("e", 0, size)})) for size in (1, 2))
    matcher = Matcher([], FakeStorage({}).rows, limit=4, after="")
    [found] = matcher.feed(FakePage(raw, "a\x1b", is_truncated=False))
    assert isinstance(found, Listed)
    assert (found.columns.keys, found.columns.sizes) == (["a\x1b"], [2])
    [warning] = matcher.warnings
    assert (warning.kind, warning.examples) == (WarningKind.CONFLICTING_ROWS, ("a\\x1b",))


@pytest.mark.parametrize("page_size", [1, 3, 4, 12])
@pytest.mark.parametrize("key", ["a", "d", "f"])
def test_a_row_that_comes_so_often_that_it_fills_segments_leaves_each_segment_once(
    known, key, page_size
):
    def repeating(columns: Columns) -> bytes:
        return b"".join(
            render_entries(columns_of({listed: STATE})) * (20 if listed == key else 1)
            for listed in columns.keys
        )

    known.compare(BUCKET, page_size=page_size, render=repeating)
    assert "".join(known.shape) == "abcdefghijkl"
    assert len({entry.id for entry in known.entries}) == len(known.entries)


def test_a_row_that_comes_twice_in_other_words_is_one():
    raw = render_entries(columns_of({"a": STATE}))
    again = raw.replace(b"Z</LastModified>", b"000Z</LastModified>")
    matcher = Matcher([], FakeStorage({}).rows, limit=4, after="")
    [found] = matcher.feed(FakePage(raw + again, "a", is_truncated=False))
    assert isinstance(found, Listed)
    assert (found.columns.keys, found.raw, list(matcher.warnings)) == (["a"], again, [])


def test_a_page_that_begins_before_what_was_asked_for_is_an_error():
    matcher = Matcher([], FakeStorage({}).rows, limit=4, after="k")
    raw = render_entries(columns_of(dict.fromkeys("az", STATE)))
    with pytest.raises(UnreadableListing, match="its keys are not in order"):
        list(matcher.feed(FakePage(raw, "z", is_truncated=False)))


# --- the small parts


@given(st.lists(st.text("abé &<", min_size=1, max_size=3), unique=True, max_size=6), st.data())
def test_rows_can_be_counted_off_without_parsing_them(keys, data):
    columns = columns_of(dict.fromkeys(keys, STATE))
    raw = render_entries(columns)
    rows = data.draw(st.integers(0, len(keys)))
    end = end_of_rows(raw, 0, rows)
    assert FakeStorage({}).rows(raw[:end]).columns.keys == columns.keys[:rows]
    last_key = quote(columns.keys[rows - 1], safe="") if rows else ""
    assert raw_last_key(raw[:end]) == last_key.encode()


def test_a_digest_has_128_bits_and_differs():
    assert len(digest(b"")) == len(digest(b"x")) == 16
    assert digest(b"") != digest(b"x")


@pytest.mark.parametrize(
    ("now", "before", "after", "expected"),
    [
        (900.0, 900.0, 100.0, 100.0),  # the oldest must be written again in time
        (900.0, 100.0, 900.0, 100.0),
        (900.0, 900.0, 0.0, 0.0),  # some were never written
        (0.0, 100.0, 0.0, 100.0),  # no longer wanted: some are left to remove
        (0.0, 0.0, 100.0, 100.0),
        (0.0, 0.0, 0.0, 0.0),
    ],
)
def test_joined_segments_say_when_their_strings_must_be_looked_at(now, before, after, expected):
    first, second = columns_of({"a": STATE}), columns_of({"b": STATE})
    stored = {"0": first, "1": second}
    writer = SegmentWriter(load=stored.__getitem__, new_id=lambda: "new", limit=8, strings_at=now)
    writer.keep(Unchanged(Entry("0", "a", 1, strings_at=before), render_entries(first)))
    changed = columns_of({"b": ("new", 1, 1)})
    known = Entry("1", "b", 1, strings_at=after)
    [piece] = writer.write(Listed(known, changed, render_entries(changed))).pieces
    assert piece.entry.strings_at == expected
    assert (piece.entry.id, piece.entry.count, piece.entry.last_key) == ("0", 2, "b")


@pytest.fixture
def shrunk() -> tuple[Known, Bucket]:
    """Segments of 4, 2 and 8 rows, of which each may have 16; and their bucket."""
    many = dict.fromkeys([f"{number:02d}" for number in range(40)], STATE)
    known = Known([], {}, count())
    known.compare(many, page_size=16, limit=16)
    left = {key: state for key, state in many.items() if not "04" <= key <= "29"}
    known.compare(left, page_size=16, limit=16)
    for place, entry in enumerate(known.entries):
        piece = (
            drop_missing_rows(entry, known.segments[entry.id], entry.missing)
            if entry.missing
            else None
        )
        if piece is not None and piece.columns is not None:
            known.entries[place], known.segments[entry.id] = piece.entry, piece.columns
    assert known.shape == ["00010203", "3031", "3233343536373839"]
    return known, left


def test_a_segment_that_shrank_joins_the_one_before_it_if_there_is_room(shrunk):
    known, bucket = shrunk
    changed = bucket | {"30": ("new", 1, 1)}
    [found] = known.compare(changed, page_size=16, limit=16)
    assert found.removed
    assert [entry.count for entry in known.entries] == [6, 8]
    assert known.compare(changed, page_size=16, limit=16) == []
    assert known.unchanged == 2


@pytest.mark.parametrize(
    ("gone", "shape"),
    [("03", ["000102[03]", "3031"]), ("31", ["00010203", "30[31]"])],
)
def test_segments_with_missing_rows_do_not_join_until_those_are_settled(shrunk, gone, shape):
    known, bucket = shrunk
    changed = {key: state for key, state in bucket.items() if key != gone}
    changed["30"] = ("new", 1, 1)
    assert not any(found.removed for found in known.compare(changed, page_size=16, limit=16))
    assert known.shape[:2] == shape
