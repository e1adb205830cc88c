"""Percentiles of what was only counted by place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanning.core.metrics import counters, histograms

BOUNDS = (1.0, 2.0, 4.0)

CASES = {
    "nothing": ([0, 0, 0, 0], 0.5, None),
    "all in the first place": ([10, 0, 0, 0], 0.5, 0.5),
    "in the middle of a place": ([0, 0, 4, 0], 0.5, 3.0),
    "at the end of a place": ([5, 5, 0, 0], 0.5, 1.0),
    "empty places between": ([1, 0, 0, 1], 0.5, 1.0),
    "above all bounds": ([0, 0, 0, 3], 0.99, 4.0),
    "nearly all": ([95, 0, 5, 0], 0.95, 1.0),
    "a little more": ([90, 0, 10, 0], 0.95, 3.0),
}


@pytest.mark.parametrize(("counts", "share", "expected"), CASES.values(), ids=CASES)
def test_a_percentile_lies_between_the_bounds_of_its_place(counts, share, expected):
    assert histograms.percentile(counts, BOUNDS, share) == expected


def test_a_value_at_a_bound_belongs_below_it():
    assert [histograms.place(value, BOUNDS) for value in (0, 1, 1.1, 4, 5)] == [0, 0, 1, 2, 3]


@given(values=st.lists(st.floats(0, 30_000), min_size=1), share=st.floats(0.01, 1))
def test_a_percentile_is_in_the_place_of_the_real_one(values, share):
    counted = counters.of_commit({}, {}, values)
    counts = [counted.get(field, 0) for field in counters.places("lag", histograms.LAG_S)]
    real = sorted(values)[min(len(values) - 1, max(0, round(share * len(values) + 0.499999) - 1))]
    found = histograms.percentile(counts, histograms.LAG_S, share)
    assert found is not None
    real_place = histograms.place(min(real, histograms.LAG_S[-1]), histograms.LAG_S)
    assert abs(histograms.place(found, histograms.LAG_S) - real_place) <= 1
    assert sum(counts) == len(values)
