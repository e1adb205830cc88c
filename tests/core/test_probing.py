"""Which buckets are probed, and how often."""

import pytest

from scanning.core.probing import (
    ProbedBucket,
    ProbePlan,
    has_moved,
    parse_probed,
    plan_probes,
)
from scanning.core.totals import Totals


@pytest.mark.parametrize(
    ("own", "configured", "polling_s", "plan"),
    [
        pytest.param(None, "auto", 60, ProbePlan(5.0), id="a-twelfth-of-a-minute"),
        pytest.param(None, "auto", 3600, ProbePlan(300.0), id="a-twelfth-of-an-hour"),
        pytest.param(None, "auto", 20, ProbePlan(5.0), id="not-more-often"),
        pytest.param(None, "auto", 5, ProbePlan(0.0), id="scanned-as-often"),
        pytest.param(None, 30, 60, ProbePlan(30.0, is_chosen=True), id="configured"),
        pytest.param(None, 0, 60, ProbePlan(0.0, is_chosen=True), id="configured-off"),
        pytest.param(2, "auto", 3600, ProbePlan(2.0, is_chosen=True), id="own"),
        pytest.param(0, 30, 60, ProbePlan(0.0, is_chosen=True), id="own-off"),
    ],
)
def test_a_bucket_is_probed_as_it_says_or_else_as_is_configured(own, configured, polling_s, plan):
    assert plan_probes(own, configured, polling_s=polling_s) == plan


AUTO, CHOSEN = ProbePlan(5.0), ProbePlan(5.0, is_chosen=True)


@pytest.mark.parametrize(
    ("state", "plan", "is_probed"),
    [
        pytest.param(ProbedBucket(objects=1001), AUTO, True, id="two-pages"),
        pytest.param(ProbedBucket(objects=1000), AUTO, False, id="one-page"),
        pytest.param(ProbedBucket(objects=0), AUTO, False, id="no-page"),
        pytest.param(ProbedBucket(objects=0), CHOSEN, True, id="no-page-but-chosen"),
        pytest.param(ProbedBucket(), CHOSEN, False, id="never-scanned"),
        pytest.param(ProbedBucket(objects=5000, waits=True), CHOSEN, False, id="waiting"),
        pytest.param(ProbedBucket(objects=5000), ProbePlan(0.0), False, id="off"),
    ],
)
def test_a_bucket_is_probed_where_that_saves_requests(state, plan, is_probed):
    assert state.is_probed(plan, page_size=1000) is is_probed


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        (["12", "3:70", None, None, None], ProbedBucket(12, Totals(3, 70))),
        ([None, None, "2", None, None], ProbedBucket(waits=True)),
        (["12", None, None, "1", None], ProbedBucket(12, waits=True)),
        (["12", "3:", "", "", "1"], ProbedBucket(12, waits=True)),
        (["", "3:x", "", "", ""], ProbedBucket()),
    ],
)
def test_what_redis_holds_of_a_bucket_is_read_as_it_is_written(fields, state):
    assert parse_probed(fields) == state


def test_totals_are_written_and_read():
    assert Totals.read(str(Totals(3, 70))) == Totals(3, 70)
    assert [Totals.read(text) for text in (None, "", "3", "none", "3:7:9")] == [None] * 5


@pytest.mark.parametrize(
    ("known", "seen", "moved"),
    [
        pytest.param(None, None, False, id="seen-for-the-first-time"),
        pytest.param(Totals(3, 70), None, False, id="as-the-last-look-saw-them"),
        pytest.param(Totals(3, 70), Totals(2, 60), False, id="a-look-was-faster"),
        pytest.param(Totals(2, 60), Totals(3, 70), True, id="no-look-has-seen-it-yet"),
        pytest.param(None, Totals(2, 60), True, id="other-than-the-last-probe"),
        pytest.param(None, Totals(3, 70), False, id="as-the-last-probe"),
    ],
)
def test_totals_are_compared_with_what_the_last_look_saw(known, seen, moved):
    assert has_moved(Totals(3, 70), known=known, seen=seen) is moved
