"""The geometry of charts: values only."""

import pytest

from buckets.pages import charts


def test_a_bar_stands_on_what_is_below_it_and_nothing_is_drawn_for_nothing():
    assert charts.bars([5, 0], 10) == "M0.11 100h0.78V50h-0.78z"
    assert charts.bars([5], 10, on=[5]) == "M0.11 50h0.78V0h-0.78z"


def test_series_are_stacked_in_order():
    made = charts.stacked([("a", [1, 2]), ("b", [3, 0])], 10)
    assert [name for name, *_ in made] == ["a", "b"]
    assert made[1][1] == "M0.11 90h0.78V60h-0.78z"


def test_a_line_has_a_gap_where_nothing_is_known():
    assert charts.line([0, 10, None, 5], 10) == "M0.5 100L1.5 0M3.5 50"


@pytest.mark.parametrize(
    ("value", "top"),
    [(0, 1), (0.3, 1), (1, 1), (1.2, 1.5), (7, 8), (10, 10), (11, 15), (87, 100), (301, 400)],
)
def test_the_top_of_a_scale_reads_well(value, top):
    assert charts.round_up(value) == pytest.approx(top)
