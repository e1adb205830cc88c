"""The fast way to read entries says what the slow one says."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanning.core.listing.body import _ROW
from scanning.core.listing.uniform_rows import rows_like

WAYS = {
    "usual": b"<Contents><Key>%b</Key><LastModified>2024-05-01T12:34:56.789Z</LastModified>"
    b"<ETag>&quot;e&quot;</ETag><Size>3</Size><Type>Normal</Type></Contents>",
    "no milliseconds": b"<Contents><Key>%b</Key><LastModified>2024-05-01T12:34:56Z</LastModified>"
    b"<ETag>&quot;e&quot;</ETag><Size>3</Size><Type>Normal</Type></Contents>",
    "no quotes": b"<Contents><Key>%b</Key><LastModified>2024-05-01T12:34:56.789Z</LastModified>"
    b"<ETag>e</ETag><Size>3</Size><Type>Normal</Type></Contents>",
    "no ETag": b"<Contents><Key>%b</Key><LastModified>2024-05-01T12:34:56.789Z</LastModified>"
    b"<ETag/><Size>3</Size><Type>Normal</Type></Contents>",
    "another class": b"<Contents><Key>%b</Key><LastModified>2024-05-01T12:34:56.789Z"
    b"</LastModified><ETag>&quot;e&quot;</ETag><Size>3</Size><Type>Odd</Type></Contents>",
    "two sizes": b"<Contents><Key>%b</Key><LastModified>2024-05-01T12:34:56.789Z</LastModified>"
    b"<ETag>&quot;e&quot;</ETag><Size>3</Size><Size>4</Size></Contents>",
}


def first_of(entries: bytes) -> re.Match[bytes]:
    first = _ROW.search(entries)
    assert first is not None
    return first


@given(st.lists(st.sampled_from(sorted(WAYS)), min_size=1, max_size=5))
def test_rows_are_those_of_the_slow_way_if_all_entries_are_alike(ways):
    entries = b"".join(WAYS[way] % str(number).encode() for number, way in enumerate(ways))
    if _ROW.search(entries) is None:
        return
    rows = rows_like(first_of(entries), entries, entries.count(b"</Contents>"))
    assert rows is None or rows == _ROW.findall(entries)


@pytest.mark.parametrize(("way", "fast"), [("usual", True), ("no milliseconds", False)])
def test_entries_that_are_alike_are_read_the_fast_way(way, fast):
    entries = b"".join(WAYS[way] % key for key in (b"a", b"b", b"c"))
    assert (
        rows_like(first_of(entries), entries, entries.count(b"</Contents>")) is not None
    ) is fast


def test_no_pattern_is_made_of_more_than_s3_writes():
    long = WAYS["usual"].replace(b"Normal", b"N" * 3000) % b"a"
    assert rows_like(first_of(long), long, 1) is None
