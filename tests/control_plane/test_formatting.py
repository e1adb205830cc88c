"""Numbers and times in the words of the pages."""

from datetime import timedelta

import pytest
from django.utils import timezone

from buckets.formatting import (
    format_ago,
    format_compact,
    format_duration,
    format_number,
    format_size,
    pluralize,
)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "—"),
        (0, "0 s"),
        (0.0312, "31 ms"),
        (0.9996, "1 s"),
        (1.2, "1 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (185, "3 min 5 s"),
        (601, "10 min"),
        (3600, "1 h"),
        (5400, "1 h 30 min"),
        (86400 * 1.5, "1 d 12 h"),
        (86400 * 40, "40 d"),
        (-3, "0 s"),
    ],
)
def test_a_duration_is_told_in_at_most_two_units(seconds, said):
    assert format_duration(seconds) == said


def test_a_moment_is_told_in_whole_seconds():
    assert format_ago(None) == "never"
    assert format_ago(timezone.now()) == "0 s ago"
    assert format_ago(timezone.now() - timedelta(minutes=42)) == "42 min ago"


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "—"), (0, "0"), (4711, "4,711"), (0.25, "0.2"), (3.0, "3"), (1234.5, "1,234")],
)
def test_a_number_has_separators(value, said):
    assert format_number(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0"),
        (999, "999"),
        (1200, "1,200"),
        (12_345, "12.3 k"),
        (150_000, "150 k"),
        (2_500_000, "2.5 M"),
        (3e12, "3000 G"),
    ],
)
def test_a_number_is_short_on_axes(value, said):
    assert format_compact(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1023 bytes"),
        (1536, "1.5 KiB"),
        (2**41, "2.0 TiB"),
    ],
)
def test_a_size_is_told_in_binary_units(value, said):
    assert format_size(value) == said


def test_a_noun_follows_its_number():
    assert pluralize(1, "bucket") == "1 bucket"
    assert pluralize(5000, "bucket") == "5,000 buckets"
