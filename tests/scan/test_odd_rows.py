"""One odd row costs one row: the others are compared as usual, and the odd one is shown."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanning.core.listing.body import Columns, render_entries
from scanning.core.scan_warnings import WarningKind
from scanning.core.segments.model import part
from scanning.scan.bucket_pass import PassEnd
from tests.scan.test_scan_laws import NEVER_HELD, OLD, everything, said, short_lanes
from tests.support.fakes import Bucket, Crash, FakeStorage, crash_if

STATE = ("e", OLD, 1)


class OddStorage(FakeStorage):
    """Lists ``placeholders`` without a size, and ``unreadable`` with a key that is not UTF-8."""

    def __init__(
        self,
        objects: Bucket,
        *,
        placeholders: Sequence[str] = (),
        unreadable: Sequence[str] = (),
        short: Sequence[int] = (),
    ) -> None:
        self.placeholders, self.unreadable = set(placeholders), set(unreadable)
        odd = dict.fromkeys([*placeholders, *unreadable], STATE)
        super().__init__(objects | odd, short, render=self._render)

    def _render(self, columns: Columns) -> bytes:
        return b"".join(self._entry(part(columns, n, n + 1)) for n in range(len(columns)))

    def _entry(self, row: Columns) -> bytes:
        [key] = row.keys
        entry = render_entries(row)
        if key in self.placeholders:
            return entry.replace(b"<Size>1</Size>", b"")
        return entry.replace(b"</Key>", b"%E9</Key>") if key in self.unreadable else entry


def warned(end: PassEnd) -> dict[str, int]:
    return {str(warning.kind): warning.count for warning in end.warnings}


NAMES = st.sampled_from([f"{number:02}" for number in range(40)])
STEP = st.tuples(
    st.dictionaries(NAMES, st.sampled_from([("e1", OLD, 1), ("e2", OLD, 1)])),
    st.lists(NAMES, unique=True, max_size=8),
    st.lists(NAMES.map(lambda name: f"{name}~"), unique=True, max_size=8),
)


@given(
    st.lists(STEP, min_size=1, max_size=5),
    st.integers(1, 6),
    st.integers(1, 3),
    st.lists(st.integers(0, 3), max_size=10),
    st.lists(st.booleans(), max_size=12),
)
def test_odd_rows_change_nothing_for_the_others_and_are_no_deletions(
    history, page_size, lanes, short, crashes
):
    site = everything(page_size, lanes, mass_minimum=NEVER_HELD)
    crashing = iter(crashes)
    site.states.after_commit = lambda: crash_if(next(crashing, False))
    known: Bucket = {}
    for objects, placeholders, unreadable in history:
        for name in placeholders:
            objects.pop(name, None)
        end = site.scan_to_the_end(
            OddStorage(objects, placeholders=placeholders, unreadable=unreadable, short=short)
        )
        kept = {key: known[key] for key in placeholders if key in known}
        now = objects | kept
        expected = {("detected", key) for key in now.keys() - known.keys()}
        expected |= {("deleted", key) for key in known.keys() - now.keys()}
        expected |= {("updated", key) for key in now.keys() & known if now[key] != known[key]}
        assert sorted((kind, key) for kind, key, *_ in said(site.states.queue)) == sorted(expected)
        site.states.queue.clear()
        assert site.states.objects() == now
        known = now
        if not crashes:  # a row at the border where a pass is taken up may count twice, or not
            odd = len(placeholders) + len(unreadable)
            assert warned(end) == ({"odd_row": odd} if odd else {})


def test_odd_rows_are_warned_of_in_each_pass_by_name():
    site = everything(4)
    storage = OddStorage(
        dict.fromkeys("abdfhz", STATE), placeholders=["c"], unreadable=["caf", "zz"]
    )
    for _ in range(3):
        [warning] = site.scan(storage).warnings
        assert (warning.kind, warning.count) == (WarningKind.ODD_ROW, 3)
        assert warning.examples == ("c", "caf%E9", "zz%E9")
    written = len(site.states.commits)
    site.scan(storage)
    assert len(site.states.commits) == written
    assert site.scan(FakeStorage(dict.fromkeys("abdfhz", STATE))).warnings == ()


@pytest.mark.parametrize("lanes", [1, 3])
def test_the_odd_rows_of_a_pass_that_crashes_and_pauses_are_counted_once(lanes):
    odd = [f"{number:03}~" for number in range(0, 100, 5)]
    bucket = {f"{number:03}": STATE for number in range(100)}
    site = everything(6, lanes)
    site.scan(FakeStorage(bucket))
    changed = bucket | {f"{number:03}": ("new", OLD, 1) for number in range(0, 100, 9)}
    ticks, crashes = count(), iter([False, True, False, True, False, False, True])
    site.states.before_commit = lambda: crash_if(next(crashes, False))
    site.settings = replace(site.settings, slice_s=3.0)
    end = None
    with short_lanes():
        while end is None or not end.complete:
            site.now = next(ticks) * 1.0
            with suppress(Crash):
                end = site.scan(OddStorage(changed, unreadable=odd))
    assert warned(end) == {"odd_row": len(odd)}


def test_of_a_key_with_two_rows_the_last_counts_and_is_named_in_each_pass():
    def twice(columns: Columns) -> bytes:
        entries = render_entries(columns)
        first = render_entries(Columns(["b"], ["other"], [OLD], [7]))
        return entries.replace(b"<Contents><Key>b<", first + b"<Contents><Key>b<")

    site = everything(10)
    for _ in range(3):
        end = site.scan(FakeStorage(dict.fromkeys("abc", STATE), render=twice))
        assert warned(end) == {"conflicting_rows": 1}
        assert end.warnings[0].examples == ("b",)
        assert site.states.objects() == dict.fromkeys("abc", STATE)
    assert len(site.states.queue) == 3
