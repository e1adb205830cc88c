"""What watching costs: forecasts, prices and budgets, by tables."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanning.core.request_costs import (
    DAY_S,
    Budget,
    RequestKind,
    RequestPrices,
    WatchPlan,
    affordable_interval_s,
    day_left_s,
    forecast,
    left_today,
    parse_prices,
    pass_requests,
    pass_wait_s,
    probe_wait_s,
)

ANY = Budget(0, 500)


@pytest.mark.parametrize(
    ("objects", "page_size", "requests"),
    [(0, 1000, 1), (1, 1000, 1), (1000, 1000, 1), (1001, 1000, 2), (1_000_000, 500, 2000)],
)
def test_a_pass_lists_every_page_and_an_empty_bucket_has_one(objects, page_size, requests):
    assert pass_requests(objects, page_size=page_size) == requests


@pytest.mark.parametrize(
    ("plan", "listed", "metadata", "witness", "probes"),
    [
        pytest.param(WatchPlan(0, 60), 1440, 0, 0, 0, id="empty"),
        pytest.param(WatchPlan(1_000_000, 60, 5), 1_440_000, 0, 0, 17_280, id="with probes"),
        pytest.param(WatchPlan(1_000_000, 3600, 5), 24_000, 0, 0, 17_280, id="long interval"),
        pytest.param(WatchPlan(10, 60, 0, 300, 7), 1440, 300, 7, 0, id="with HEADs"),
        pytest.param(WatchPlan(10, 604_800), 0, 0, 0, 0, id="once a week"),
        pytest.param(WatchPlan(5_000_000, 604_800), 714, 0, 0, 0, id="large, once a week"),
    ],
)
def test_a_forecast_counts_passes_probes_and_heads(plan, listed, metadata, witness, probes):
    assert forecast(plan) == {
        RequestKind.LIST: listed,
        RequestKind.METADATA: metadata,
        RequestKind.WITNESS: witness,
        RequestKind.BUCKET: probes,
    }


@pytest.mark.parametrize(
    ("text", "prices"),
    [
        ("0", RequestPrices()),
        ("0.005", RequestPrices(0.005, 0.005, 0.005)),
        ("0.005/0.0004", RequestPrices(0.005, 0.0004, 0.0004)),
        (" 0.004 / 0.0004 / 0.004 ", RequestPrices(0.004, 0.0004, 0.004)),
    ],
)
def test_prices_are_one_number_or_one_for_each_kind(text, prices):
    assert parse_prices(text) == prices
    assert bool(prices) == (text != "0")


@pytest.mark.parametrize("text", ["", "free", "-1", "nan", "inf", "1/2/3/4", "1//2", "0,005"])
def test_other_prices_are_refused_with_what_would_be_right(text):
    with pytest.raises(ValueError, match=r"the price of 1,000 requests, such as 0\.005"):
        parse_prices(text)


def test_prices_turn_requests_into_money():
    prices = RequestPrices(0.005, 0.0004, 0.004)
    sent = {
        RequestKind.LIST: 1_440_000,
        RequestKind.METADATA: 1000,
        RequestKind.WITNESS: 1000,
        RequestKind.BUCKET: 1000,
    }
    assert prices.of(sent) == pytest.approx(7200 * 0.001 + 0.0008 + 0.004)


@pytest.mark.parametrize(
    ("bucket", "endpoint", "left"),
    [
        pytest.param(Budget(0, 500), Budget(0, 900), math.inf, id="no budget"),
        pytest.param(Budget(1000, 400), Budget(0, 900), 600, id="of the bucket"),
        pytest.param(Budget(1000, 1400), Budget(0, 1400), -400, id="overdrawn"),
        pytest.param(Budget(0, 300), Budget(1000, 600), 200, id="half of the endpoint's"),
        pytest.param(Budget(0, 600), Budget(1000, 600), 400, id="all of the endpoint's"),
        pytest.param(Budget(400, 300), Budget(1000, 600), 100, id="the smaller one"),
        pytest.param(Budget(0, 0), Budget(1000, 500), 10, id="as if passed over once"),
        pytest.param(Budget(0, 0), Budget(1000, 0), 1000, id="nothing was sent"),
    ],
)
def test_what_a_bucket_may_still_send_today(bucket, endpoint, left):
    assert left_today(bucket, endpoint, pass_requests=10) == left


@pytest.mark.parametrize(
    ("left", "wait_s"),
    [(math.inf, 0), (1000, 864), (500, 1728), (10, 86_400), (9, 86_400), (-50, 86_400)],
)
def test_passes_are_so_far_apart_that_the_budget_lasts_until_midnight(left, wait_s):
    assert pass_wait_s(left, pass_requests=10, day_left_s=DAY_S) == pytest.approx(wait_s)


@pytest.mark.parametrize(
    ("left", "wait_s"),
    [
        pytest.param(math.inf, 0, id="no budget"),
        pytest.param(240 + 864, 100, id="what passes leave over"),
        pytest.param(241, DAY_S, id="one"),
        pytest.param(240, math.inf, id="passes need all of it"),
        pytest.param(-1, math.inf, id="overdrawn"),
    ],
)
def test_probes_get_what_passes_leave_over(left, wait_s):
    wait = probe_wait_s(left, pass_requests=10, polling_s=3600, day_left_s=DAY_S)
    assert wait == pytest.approx(wait_s)


def test_a_day_ends_at_midnight_utc():
    assert day_left_s(86_400.0 * 20_000) == DAY_S
    assert day_left_s(86_400.0 * 20_000 + 86_399) == 1


def test_an_interval_that_a_budget_pays_for():
    assert affordable_interval_s(1440, pass_requests=1) == 60


@given(
    per_day=st.integers(1, 100_000),
    requests=st.integers(1, 1000),
    polling_s=st.floats(1, 7200),
)
def test_passes_that_wait_as_they_are_told_spend_no_more_than_a_budget_that_pays_one(
    per_day, requests, polling_s
):
    now, spent = 0.0, 0
    for _ in range(300):
        spent += requests
        left = Budget(per_day, spent).left
        now += max(polling_s, pass_wait_s(left, pass_requests=requests, day_left_s=day_left_s(now)))
        if now >= DAY_S:
            break
    assert spent <= max(per_day, requests)
