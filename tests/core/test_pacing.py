"""How fast endpoints are asked: pure functions of times, with laws."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanning.core import pacing
from scanning.core.endpoints import endpoint_name
from scanning.core.pacing import HEALTHY, EndpointHealth, EndpointLimits, Slots

JITTER = st.floats(min_value=0, max_value=1)
PER_S = st.floats(min_value=0.5, max_value=5000)
NOW = 1_700_000_000.0


# --- limits


@pytest.mark.parametrize(
    ("endpoint", "name"),
    [
        ("us-iad-1.linodeobjects.com", "us-iad-1.linodeobjects.com"),
        ("https://US-IAD-1.linodeobjects.com/", "us-iad-1.linodeobjects.com"),
        ("http://127.0.0.1:9000", "127.0.0.1:9000"),
        ("minio:9000", "minio:9000"),
        ("http://[::1]:9000/", "[::1]:9000"),
    ],
)
def test_an_endpoint_is_its_host_and_port_however_it_is_written(endpoint, name):
    assert endpoint_name(endpoint) == name


LINODE = "us-east-1.linodeobjects.com=750/750, *.linodeobjects.com=100/2000,127.0.0.1:9000=5/0"


@pytest.mark.parametrize(
    ("endpoint", "limits"),
    [
        ("us-east-1.linodeobjects.com", EndpointLimits(750, 750)),
        ("us-iad-1.linodeobjects.com", EndpointLimits(100, 2000)),
        ("us-iad-1.linodeobjects.com:443", EndpointLimits(100, 2000)),
        ("127.0.0.1:9000", EndpointLimits(5, 0)),
        ("127.0.0.1:9001", EndpointLimits()),
        ("linodeobjects.com.evil.example", EndpointLimits()),
    ],
)
def test_the_first_rule_that_names_an_endpoint_counts(endpoint, limits):
    assert pacing.find_limits(endpoint, pacing.parse_limits(LINODE)) == limits


def test_no_rules_are_no_limits():
    assert pacing.parse_limits(" ") == ()


@pytest.mark.parametrize("text", ["host", "host=1", "=1/2", "host=1/2/3", "host=-1/2", "host=a/b"])
def test_rules_that_make_no_sense_say_what_is_taken(text):
    with pytest.raises(ValueError, match="must be host=N/M with commas between"):
        pacing.parse_limits(text)


# --- keeping a rate together


@given(
    per_s=st.integers(min_value=1, max_value=1000),
    processes=st.integers(min_value=1, max_value=4),
    delays=st.lists(st.floats(min_value=0, max_value=0.3), min_size=1, max_size=200),
)
def test_all_processes_together_never_exceed_the_rate_in_any_second(per_s, processes, delays):
    """Each asks when it likes; slots are reserved from one counter, as the script does."""
    next_free = 0.0
    slots = [Slots() for _ in range(processes)]
    clocks = [0.0] * processes
    sent = []
    for turn, delay in enumerate(delays):
        one = turn % processes
        clocks[one] += delay
        now = clocks[one] = max(clocks[one], max(clocks) - 0.3)
        while (at := slots[one].take(now)) is None:
            first = max(next_free, now)
            count, spacing = pacing.batch_size(per_s), pacing.spacing_s(per_s)
            next_free = first + count * spacing
            slots[one] = Slots(first, spacing, count)
        clocks[one] = at
        sent.append(at)
    sent.sort()
    for first, at in enumerate(sent):
        within = sum(at <= other < at + 1 for other in sent[first:])
        assert within <= per_s


def test_a_rate_can_nearly_be_reached():
    per_s = 100.0
    assert 1 / pacing.spacing_s(per_s) > 0.9 * per_s


def test_a_slot_that_is_too_late_is_lost():
    slots = Slots(10.0, 0.05, 3)
    assert slots.take(10.12) == 10.12
    assert slots.take(10.12) == 10.12
    assert slots.take(20.0) is None


# --- throttled


def throttled(
    health: EndpointHealth, now: float, *, sent_per_s: float = 100.0, jitter: float = 0.5
) -> EndpointHealth:
    return pacing.record_throttling(health, now=now, sent_per_s=sent_per_s, jitter=jitter)


def test_a_throttled_endpoint_is_sent_half_and_recovers_by_and_by():
    health = throttled(HEALTHY, NOW)
    assert pacing.state_of(health, now=NOW) == "slowed"
    assert pacing.allowed_per_s(health, now=NOW) == 50
    assert pacing.allowed_per_s(health, now=NOW + 30) == 100
    assert pacing.allowed_per_s(health, now=NOW + 89) < 200
    assert pacing.allowed_per_s(health, now=NOW + 90) == math.inf
    assert pacing.state_of(health, now=NOW + 90) == "normal"
    assert pacing.drop_recovered_rate(health, now=NOW + 90) == HEALTHY
    assert pacing.drop_recovered_rate(health, now=NOW + 89) == health


def test_many_answers_of_one_jam_count_once():
    health = throttled(HEALTHY, NOW)
    assert throttled(health, NOW + 0.9) == health
    assert pacing.allowed_per_s(throttled(health, NOW + 1.1), now=NOW + 1.1) < 30


def test_an_endpoint_that_was_asked_little_is_asked_less():
    assert pacing.allowed_per_s(throttled(HEALTHY, NOW, sent_per_s=8), now=NOW) == 4


def test_a_clock_that_went_back_does_not_hold_back_for_ever():
    health = throttled(HEALTHY, NOW)
    again = throttled(health, NOW - 3600)
    assert again.since == NOW - 3600
    assert pacing.allowed_per_s(health, now=NOW - 3600) == math.inf


def test_a_dead_endpoint_is_asked_in_time_although_the_clock_went_back():
    dead = EndpointHealth(failures=9, dead_since=NOW, wait_until=NOW + pacing.LONGEST_PROBE_S)
    assert pacing.claim_probe(dead, "bucket", now=NOW, for_s=5.0) == dead
    assert pacing.claim_probe(dead, "bucket", now=NOW - 3600, for_s=5.0).probe == "bucket"


@given(sent_per_s=PER_S, jitters=st.lists(JITTER, min_size=1, max_size=30))
def test_the_rate_falls_with_each_throttling_but_never_to_nothing(sent_per_s, jitters):
    health, now = HEALTHY, NOW
    for jitter in jitters:
        now += pacing.HOLD_S
        before = min(pacing.allowed_per_s(health, now=now), sent_per_s)
        health = throttled(health, now, sent_per_s=sent_per_s, jitter=jitter)
        rate = pacing.allowed_per_s(health, now=now)
        assert pacing.SLOWEST_PER_S <= rate <= max(pacing.SLOWEST_PER_S, before * 0.56)


@given(sent_per_s=PER_S, jitter=JITTER, times=st.lists(st.floats(0, 200), min_size=2, max_size=20))
def test_recovery_is_monotone_and_complete_in_two_minutes(sent_per_s, jitter, times):
    health = throttled(HEALTHY, NOW, sent_per_s=sent_per_s, jitter=jitter)
    rates = [pacing.allowed_per_s(health, now=NOW + after) for after in sorted(times)]
    assert rates == sorted(rates)
    assert pacing.allowed_per_s(health, now=NOW + 120) == math.inf


# --- dead


def failed(health: EndpointHealth, bucket: str, now: float = NOW) -> EndpointHealth:
    return pacing.record_failure(health, bucket, now=now, why="no answer", jitter=1.0)


def dead(now: float = NOW) -> EndpointHealth:
    health = HEALTHY
    for ago, bucket in enumerate("baa"):
        health = failed(health, bucket, now - 2 + ago)
    assert health.is_dead
    return health


@pytest.mark.parametrize(
    ("failures", "is_dead"),
    [
        pytest.param("ab", False, id="too few"),
        pytest.param("aaaaaa", False, id="one bucket alone proves nothing"),
        pytest.param("aab", True, id="several buckets"),
        pytest.param("abc", True, id="three buckets"),
    ],
)
def test_failures_in_a_row_of_several_buckets_make_it_dead(failures, is_dead):
    health = HEALTHY
    for second, bucket in enumerate(failures):
        health = failed(health, bucket, NOW + second)
    assert health.is_dead is is_dead
    assert health.is_failing


@pytest.mark.parametrize(
    ("failures", "counted", "is_dead"),
    [
        pytest.param([(0.0, "a"), (0.0, "b"), (0.01, "b")], 1, False, id="connections dropped"),
        pytest.param([(n / 100, "ab"[n % 2]) for n in range(99)], 1, False, id="many dropped"),
        pytest.param([(0.0, "a"), (0.9, "b"), (1.8, "a"), (2.0, "b")], 2, False, id="two moments"),
        pytest.param([(0.0, "a"), (1.0, "b"), (2.0, "a")], 3, True, id="a moment apart"),
        pytest.param([(n / 4, "ab"[n % 2]) for n in range(9)], 3, True, id="for two moments"),
        pytest.param([(0.0, "a"), (0.1, "b"), (1.1, "a"), (2.2, "a")], 3, True, id="b at once"),
        pytest.param([(0.0, "a"), (-60.0, "b"), (-59.0, "a")], 3, True, id="the clock went back"),
    ],
)
def test_failures_of_one_moment_are_one(failures, counted, is_dead):
    health = HEALTHY
    for moments, bucket in failures:
        health = failed(health, bucket, NOW + moments * pacing.MOMENT_S)
    assert (health.failures, health.is_dead) == (counted, is_dead)


def test_an_answer_in_between_begins_the_row_anew():
    health = pacing.record_answer(failed(failed(HEALTHY, "a"), "b", NOW + 1))
    assert health == HEALTHY
    assert not failed(failed(health, "a", NOW + 2), "b", NOW + 3).is_dead


def test_one_bucket_at_a_time_tries_a_dead_endpoint():
    health = dead()
    assert pacing.claim_probe(health, "a", now=NOW, for_s=40).probe == ""
    due = health.wait_until
    assert NOW < due <= NOW + pacing.FIRST_PROBE_S
    health = pacing.claim_probe(health, "a", now=due, for_s=40)
    assert health.probe == "a"
    assert pacing.claim_probe(health, "b", now=due + 39, for_s=40).probe == "a"
    assert pacing.claim_probe(health, "b", now=due + 40, for_s=40).probe == "b"


def test_somebody_who_waits_for_it_may_try_at_once():
    assert pacing.claim_probe_now(dead(), "by-hand", now=NOW, for_s=40).probe == "by-hand"
    assert pacing.claim_probe_now(HEALTHY, "by-hand", now=NOW, for_s=40) == HEALTHY


def test_a_scan_that_is_asked_for_tries_a_dead_endpoint_unless_somebody_does():
    hurried = pacing.allow_probe_now(dead(), now=NOW)
    assert pacing.claim_probe(hurried, "a", now=NOW, for_s=40).probe == "a"
    probing = pacing.claim_probe_now(dead(), "b", now=NOW, for_s=40)
    assert pacing.allow_probe_now(probing, now=NOW) == probing
    assert pacing.allow_probe_now(HEALTHY, now=NOW) == HEALTHY


def test_probes_in_vain_come_ever_later_but_never_rarely():
    health, now, pauses = dead(), NOW, []
    for _ in range(6):
        now = health.wait_until
        health = failed(pacing.claim_probe(health, "a", now=now, for_s=40), "a", now)
        pauses.append(health.wait_until - now)
    assert pauses == pytest.approx([2, 4, 8, 10, 10, 10])


def test_who_asked_before_it_was_found_dead_does_not_put_the_next_probe_off():
    health = pacing.claim_probe(dead(), "a", now=NOW + 5, for_s=40)
    assert failed(health, "b", NOW + 6) == health


def test_an_answer_brings_it_back_at_full_speed():
    """Time-outs on the way to its death were no throttling."""
    health = throttled(HEALTHY, NOW)
    for second, bucket in enumerate("aab"):
        health = failed(health, bucket, NOW + second)
    assert health.is_dead
    assert pacing.record_answer(throttled(health, NOW + 5)) == HEALTHY


def test_an_answer_of_one_that_only_failed_leaves_its_rate_alone():
    slowed = throttled(HEALTHY, NOW)
    assert pacing.record_answer(failed(slowed, "a")) == slowed


EVENTS = st.sampled_from(["fail a", "fail b", "answer", "throttle", "probe a", "probe b", "wait"])


@given(events=st.lists(EVENTS, max_size=60), jitter=JITTER)
def test_whatever_happens_a_dead_endpoint_is_asked_by_at_most_one_bucket(events, jitter):
    health, now = HEALTHY, NOW
    for event in events:
        what, _, bucket = event.partition(" ")
        now += 3.0 if what == "wait" else 0.01
        before = health
        match what:
            case "fail":
                health = pacing.record_failure(health, bucket, now=now, why="x", jitter=jitter)
            case "answer":
                health = pacing.record_answer(health)
            case "throttle":
                health = throttled(health, now, jitter=jitter)
            case "probe":
                health = pacing.claim_probe(health, bucket, now=now, for_s=40)
        if health.probe != before.probe and health.probe and before.probe:
            assert now >= before.wait_until
        assert not health.probe or health.is_dead
        assert not health.is_dead or health.is_failing
        if health.is_dead and not health.probe:
            assert health.wait_until - now <= pacing.LONGEST_PROBE_S
        if what == "answer":
            assert replace(health, rate=0, since=0, full=0) == HEALTHY


# --- sharing slots


@pytest.mark.parametrize(
    ("slots", "idle", "endpoints", "most"),
    [
        pytest.param(15, 0, 1, 15, id="alone: all"),
        pytest.param(15, 0, 2, 12, id="a quarter stays for the others"),
        pytest.param(15, 1, 2, 12, id="the idle one fits into it"),
        pytest.param(15, 6, 7, 9, id="a slot for each idle one"),
        pytest.param(1, 1, 2, 1, id="one slot: whoever comes"),
        pytest.param(2, 1, 2, 1, id="two slots"),
    ],
)
def test_an_endpoint_leaves_slots_to_the_others(slots, idle, endpoints, most):
    assert pacing.max_scans(slots, idle_endpoints=idle, endpoints=endpoints) == most


@given(
    slots=st.integers(1, 1000),
    endpoints=st.integers(1, 50),
    idle=st.integers(0, 49),
)
def test_a_share_is_never_nothing_and_never_more_than_there_is(slots, endpoints, idle):
    most = pacing.max_scans(slots, idle_endpoints=min(idle, endpoints - 1), endpoints=endpoints)
    assert 1 <= most <= slots


# --- trying again


@given(
    failures=st.integers(min_value=1, max_value=10**6),
    jitter=JITTER,
    longest_s=st.floats(min_value=5, max_value=3600),
)
def test_a_back_off_is_bounded_and_does_not_shrink(failures, jitter, longest_s):
    pause = pacing.back_off_s(failures, longest_s=longest_s, jitter=jitter)
    assert 2.5 <= pause <= longest_s
    assert pacing.back_off_s(failures + 1, longest_s=longest_s, jitter=jitter) >= pause


@pytest.mark.parametrize(
    ("failures", "pause_s"), [(1, 5), (2, 10), (3, 20), (6, 160), (7, 300), (1000, 300)]
)
def test_a_back_off_doubles(failures, pause_s):
    assert pacing.back_off_s(failures, longest_s=300, jitter=1.0) == pause_s


@pytest.mark.parametrize(
    ("failures", "interval_s", "pause_s"),
    [(1, 10, 60), (2, 10, 120), (5, 10, 600), (50, 10, 600), (1, 3600, 3600), (4, 500, 500)],
)
def test_what_stays_wrong_is_looked_at_slowly(failures, interval_s, pause_s):
    slow = pacing.slow_poll_s(failures, interval_s=interval_s, longest_s=600, jitter=1.0)
    assert slow == pause_s
