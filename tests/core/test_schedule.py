"""The grid of scheduled starts: pure functions of times."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanning.core import schedule
from scanning.core.types import Claim, ScanCounts, ScanResult

EPOCH_S = st.floats(min_value=1e9, max_value=4e9)
INTERVALS_S = st.integers(min_value=1, max_value=604_800).map(float)
NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789.-", min_size=3, max_size=63)
METHODS = ["hash", "equal", "random"]


@pytest.mark.parametrize(
    ("scheduled_at", "interval_s", "now", "expected"),
    [
        pytest.param(100.0, 60.0, 100.0, 160.0, id="just in time"),
        pytest.param(100.0, 60.0, 130.0, 160.0, id="a scan of half an interval does not drift"),
        pytest.param(100.0, 60.0, 160.0, 220.0, id="at the next start: the one after it"),
        pytest.param(
            100.0, 60.0, 1000.0, 1060.0, id="fifteen starts missed: once, not fifteen times"
        ),
        pytest.param(100.0, 60.0, 70.0, 100.0, id="before the first start"),
        pytest.param(7.5, 60.0, 1_700_000_000.0, 1_700_000_047.5, id="counted from the epoch"),
    ],
)
def test_the_next_start(scheduled_at, interval_s, now, expected):
    assert schedule.next_due(scheduled_at, interval_s, now=now) == expected


@given(
    share=st.floats(min_value=0, max_value=1, exclude_max=True), interval_s=INTERVALS_S, now=EPOCH_S
)
def test_the_next_start_is_after_now_on_the_grid_and_at_most_one_interval_away(
    share, interval_s, now
):
    offset_s = share * interval_s
    due = schedule.next_due(offset_s, interval_s, now=now)
    assert now < due <= now + interval_s + 1e-5
    starts = (due - offset_s) / interval_s
    assert starts == pytest.approx(round(starts), abs=1e-5)


@given(
    share=st.floats(min_value=0, max_value=1, exclude_max=True), interval_s=INTERVALS_S, now=EPOCH_S
)
def test_starts_follow_each_other_one_interval_apart(share, interval_s, now):
    due = schedule.next_due(share * interval_s, interval_s, now=now)
    after = schedule.next_due(share * interval_s, interval_s, now=due)
    assert after - due == pytest.approx(interval_s, abs=1e-5)


@pytest.mark.parametrize(
    ("last_scan", "expected"),
    [
        pytest.param(None, 1000.0, id="never scanned: at once"),
        pytest.param(939.0, 1000.0, id="a start was missed: at once"),
        pytest.param(940.0, 1000.0, id="one interval ago: at once"),
        pytest.param(970.0, 1030.0, id="scanned: its place on the grid"),
        pytest.param(5000.0, 1030.0, id="scanned in the future by a wrong clock"),
    ],
)
def test_the_first_start(last_scan, expected):
    assert schedule.first_due(10.0, 60.0, now=1000.0, last_scan=last_scan) == expected


@pytest.mark.parametrize("method", METHODS)
@given(intervals=st.dictionaries(NAMES, INTERVALS_S, max_size=30))
def test_every_bucket_has_its_place_within_its_interval(method, intervals):
    offsets = schedule.stagger_offsets(intervals, method=method)
    assert offsets.keys() == intervals.keys()
    assert all(0 <= offset <= intervals[name] for name, offset in offsets.items())


@given(intervals=st.dictionaries(NAMES, INTERVALS_S, min_size=1, max_size=30))
def test_a_hash_place_depends_on_nothing_but_name_and_interval(intervals):
    offsets = schedule.stagger_offsets(intervals, method="hash")
    for name, interval in intervals.items():
        assert schedule.stagger_offsets({name: interval}, method="hash") == {name: offsets[name]}


def test_hash_places_are_the_same_in_every_release():
    """A new release must not move the buckets of a running installation."""
    intervals = {"media-in": 60.0, "backups": 3600.0}
    assert schedule.stagger_offsets(intervals, method="hash") == pytest.approx(
        {"media-in": 21.855040784, "backups": 2760.744115803}
    )


def test_equal_places_divide_each_interval():
    intervals = {"d": 60.0, "a": 60.0, "c": 60.0, "b": 10.0}
    assert schedule.stagger_offsets(intervals, method="equal") == {
        "a": 0.0,
        "c": 20.0,
        "d": 40.0,
        "b": 0.0,
    }


def test_random_places_are_drawn_anew():
    intervals = {f"bucket-{n}": 60.0 for n in range(20)}
    assert schedule.stagger_offsets(intervals, method="random") != schedule.stagger_offsets(
        intervals, method="random"
    )


def test_overdue_buckets_come_latest_first():
    due = {"soon": 101.0, "now": 100.0, "long ago": 1.0, "late": 50.0}
    assert schedule.overdue(due, now=100.0) == ["long ago", "late", "now"]


# --- intervals that grow while nothing changes

MINUTE_TO_QUARTER = schedule.PollingIntervals(60.0, 900.0)
QUIET_S = st.floats(min_value=-1e6, max_value=1e9)


@pytest.mark.parametrize(
    ("intervals", "quiet_s", "expected"),
    [
        pytest.param(MINUTE_TO_QUARTER, None, 60.0, id="nothing is known"),
        pytest.param(MINUTE_TO_QUARTER, -5.0, 60.0, id="a change was found just now"),
        pytest.param(MINUTE_TO_QUARTER, 900.0, 60.0, id="an eighth is hardly more"),
        pytest.param(MINUTE_TO_QUARTER, 960.0, 120.0, id="an eighth is twice the shortest"),
        pytest.param(MINUTE_TO_QUARTER, 3_000.0, 240.0, id="it doubles"),
        pytest.param(MINUTE_TO_QUARTER, 7_199.0, 480.0, id="not yet the longest"),
        pytest.param(MINUTE_TO_QUARTER, 7_200.0, 900.0, id="the longest, which is no power"),
        pytest.param(MINUTE_TO_QUARTER, 1e9, 900.0, id="never longer"),
        pytest.param(schedule.PollingIntervals(60.0), 1e9, 60.0, id="switched off"),
        pytest.param(schedule.PollingIntervals(60.0, 30.0), 1e9, 60.0, id="no longer than that"),
    ],
)
def test_the_interval_grows_with_the_quiet(intervals, quiet_s, expected):
    assert intervals.choose(quiet_s) == expected


@given(shortest_s=INTERVALS_S, longest_s=INTERVALS_S, quiet_s=QUIET_S, more_s=INTERVALS_S)
def test_a_change_waits_for_no_more_than_an_eighth_of_the_quiet(
    shortest_s, longest_s, quiet_s, more_s
):
    intervals = schedule.PollingIntervals(shortest_s, longest_s)
    chosen = intervals.choose(quiet_s)
    assert shortest_s <= chosen <= max(shortest_s, longest_s)
    assert chosen <= max(shortest_s, quiet_s * schedule.QUIET_SHARE)
    assert intervals.choose(quiet_s + more_s) >= chosen


@given(share=st.floats(min_value=0, max_value=1, exclude_max=True), quiet_s=QUIET_S, now=EPOCH_S)
def test_a_grown_interval_has_a_grid_of_its_own_with_the_same_place_in_it(share, quiet_s, now):
    interval_s = MINUTE_TO_QUARTER.choose(quiet_s)
    due = MINUTE_TO_QUARTER.next_due(share * 60.0, quiet_s=quiet_s, now=now)
    assert now < due <= now + interval_s + 1e-5
    starts = due / interval_s - share
    assert starts == pytest.approx(round(starts), abs=1e-4)


@pytest.mark.parametrize(
    ("last_scan", "expected"),
    [
        pytest.param(None, 10_000.0, id="never scanned: at once"),
        pytest.param(9_000.0, 10_000.0, id="its interval has passed: at once"),
        pytest.param(9_800.0, 10_050.0, id="its place in the grown interval"),
    ],
)
def test_the_first_start_of_a_quiet_bucket(last_scan, expected):
    due = MINUTE_TO_QUARTER.first_due(10.0, quiet_s=1e6, now=10_000.0, last_scan=last_scan)
    assert due == expected


CLAIM = Claim(
    bucket="bucket",
    region="region",
    fence=1,
    generation=1,
    scheduled_at=5_000.0,
    offset_s=0.0,
    expires_at=5_015.0,
    commit=3,
    changed_at=1_000.0,
)


@pytest.mark.parametrize(
    ("claim", "result", "expected"),
    [
        pytest.param(CLAIM, {}, 1_000.0, id="nothing differs"),
        pytest.param(CLAIM, {"counts": ScanCounts(created=1)}, 5_000.0, id="a change"),
        pytest.param(
            CLAIM, {"counts": ScanCounts(compared=1)}, 5_000.0, id="a key is missing, or moved"
        ),
        pytest.param(
            CLAIM,
            {"counts": ScanCounts(created=1), "error_class": "StorageUnavailable"},
            5_000.0,
            id="a change, before the scan broke off",
        ),
        pytest.param(
            replace(CLAIM, changed_at=None), {}, 4_000.0, id="a first pass that found nothing"
        ),
        pytest.param(
            replace(CLAIM, changed_at=None), {"complete": False}, None, id="not complete yet"
        ),
        pytest.param(
            replace(CLAIM, changed_at=None),
            {"error_class": "AccessDenied", "complete": False},
            None,
            id="never listed",
        ),
    ],
)
def test_what_a_scan_found_says_when_the_last_change_was(claim, result, expected):
    values = {"counts": ScanCounts(objects=9, unchanged=1), "began": 4_000.0} | result
    ended = ScanResult(bucket="bucket", started_at=5_000.0, duration_s=1.0, **values)
    assert schedule.last_change(claim, ended) == expected
    quiet_s = None if expected is None else 4_000.0 - expected
    assert schedule.quiet_s(claim, ended) == quiet_s
