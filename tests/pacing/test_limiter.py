"""Where requests wait their turn: two processes' limiters over one real Redis."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from scanning import engine, wiring
from scanning.adapters.redis.connection import RedisConnection
from scanning.adapters.redis.pacing import RedisEndpointHealth
from scanning.core import pacing, redis_keys
from scanning.core.errors import Interrupted, StorageUnavailable, Throttled
from scanning.core.metrics import counters
from scanning.core.pacing import HEALTHY, EndpointLimits
from scanning.core.request_costs import RequestKind
from scanning.pacing import registry as module
from scanning.pacing import usage as usage_module
from scanning.pacing.limiter import EndpointLimiter
from scanning.pacing.registry import EndpointRegistry
from scanning.ports import EndpointStatus, EndpointUsage
from tests.support.waiting import eventually

ENDPOINT = "s3.example.com"


UNLIMITED = EndpointLimits()


def process(
    name: str, limits: EndpointLimits = UNLIMITED, *, max_wait_s: float = 5.0
) -> EndpointRegistry:
    connection = RedisConnection(wiring.conf().redis, patience_s=0.0)
    store = RedisEndpointHealth(connection, process=name)
    return EndpointRegistry(store, [("*", limits)], max_wait_s=max_wait_s)


@pytest.fixture
def pair(store, request) -> Iterator[tuple[EndpointLimiter, EndpointLimiter]]:
    """The limiters of two processes to an endpoint without limits."""
    max_wait_s = getattr(request, "param", 5.0)
    both = [process(name, max_wait_s=max_wait_s) for name in ("here:1", "there:1")]
    yield both[0].limiter_for(ENDPOINT), both[1].limiter_for(ENDPOINT)
    for registry in both:
        registry.close()


@pytest.fixture
def _each_failure_counts(monkeypatch) -> None:
    """As if failures were far enough apart."""
    monkeypatch.setattr(pacing, "MOMENT_S", 0.0)


def ask(
    limiter: EndpointLimiter, bucket: str = "bucket", kind: RequestKind = RequestKind.LIST
) -> None:
    with limiter.acquire(bucket, kind):
        pass
    limiter.record_answer()


def fail(limiter: EndpointLimiter, *buckets: str, timed_out: bool = False) -> None:
    for bucket in buckets:
        limiter.record_failure(bucket, "cannot connect", timed_out=timed_out)


def test_an_endpoint_is_one_however_buckets_write_it(pair):
    registry = process("here:1")
    assert registry.limiter_for("s3.example.com") is registry.limiter_for("https://S3.example.com/")
    assert registry.limiter_for("s3.example.com") is not registry.limiter_for("s3.example.com:8443")


def test_without_limits_nobody_waits_and_redis_is_asked_once(pair, redis_server):
    here, _ = pair
    ask(here)
    redis_server.stop()
    for _ in range(1000):
        ask(here)


@pytest.mark.usefixtures("_each_failure_counts")
def test_without_redis_what_is_known_serves_on(pair, redis_server, caplog):
    redis_server.stop()
    here, _ = pair
    ask(here)
    fail(here, "a", "b", "c")
    with pytest.raises(StorageUnavailable):
        ask(here, "d")
    assert caplog.text.count("its pace is not shared just now: Redis does not answer") == 1


def test_a_thread_that_could_not_be_started_is_started_by_the_next_request(store, monkeypatch):
    """Else this process would never tell of its use, nor end answers that take too long."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    registry = process("here:1")
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="start new"):
            ask(registry.limiter_for(ENDPOINT))
    registry._ensure_reporting()
    assert registry._thread is not None
    assert registry._thread.is_alive()
    registry.close()


# --- LIST requests a second


def test_the_lanes_of_a_scan_keep_a_buckets_budget_together(store):
    registry = process("here:1", EndpointLimits(list_per_s=20))
    limiter = registry.limiter_for(ENDPOINT)
    sent: list[float] = []

    def list_pages(pages: int) -> None:
        for _ in range(pages):
            with limiter.acquire("bucket", RequestKind.LIST):
                sent.append(time.monotonic())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(list_pages, [20] * 4))
    registry.close()

    assert len(sent) == 80
    sent.sort()
    # A thread may be stopped between its turn and its note: four of them.
    assert most_within_a_second(sent) <= 20 + 4


def test_a_bucket_that_goes_from_process_to_process_keeps_its_budget(store):
    """Each keeps it by itself: at a hand-over one request comes without a pause."""
    both = [process(name, EndpointLimits(list_per_s=20)) for name in ("here:1", "there:1")]
    sent: list[float] = []
    for _ in range(3):
        for registry in both:
            for _ in range(10):
                with registry.limiter_for(ENDPOINT).acquire("bucket", RequestKind.LIST):
                    sent.append(time.monotonic())
    for registry in both:
        registry.close()
    assert most_within_a_second(sent) <= 20 + 3


def most_within_a_second(sent: list[float]) -> int:
    return max(sum(at <= other < at + 1 for other in sent) for at in sent)


def test_a_buckets_budget_needs_no_redis(store, redis_server):
    registry = process("here:1", EndpointLimits(list_per_s=100))
    limiter = registry.limiter_for(ENDPOINT)
    ask(limiter)
    redis_server.stop()
    for _ in range(20):
        ask(limiter)
    registry.close()


def test_a_budget_is_a_buckets_own_and_for_lists_only(store):
    registry = process("here:1", EndpointLimits(list_per_s=1))
    limiter = registry.limiter_for(ENDPOINT)
    for number in range(50):
        ask(limiter, f"bucket-{number}")
        ask(limiter, "bucket-0", RequestKind.METADATA)
    registry.close()


def test_who_waits_for_a_turn_is_told_when_the_process_stops(store):
    registry = process("here:1", EndpointLimits(list_per_s=0.05))
    limiter = registry.limiter_for(ENDPOINT)
    ask(limiter)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, limiter)
        registry.close()
        with pytest.raises(Interrupted):
            waiting.result(10)


# --- connections


class Overtaken(RedisEndpointHealth):
    """Redis's answers to ``share_usage``, of which one comes after what ``meanwhile`` asks."""

    meanwhile: Callable[[], object] | None = None

    def share_usage(self, usage: EndpointUsage) -> EndpointStatus:
        status = super().share_usage(usage)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile:
            meanwhile()
        return status


def test_connections_that_were_given_back_meanwhile_are_not_used(store, monkeypatch):
    monkeypatch.setattr(module, "REPORT_S", 3600.0)  # nobody but this test reports the usage
    limits = EndpointLimits(connections=3)
    health_store = Overtaken(RedisConnection(wiring.conf().redis), process="here:1")
    registry = EndpointRegistry(health_store, [("*", limits)], max_wait_s=0.2)
    here = registry.limiter_for(ENDPOINT)
    with (
        here.acquire("a", RequestKind.LIST),
        here.acquire("b", RequestKind.LIST),
        here.acquire("c", RequestKind.LIST),
    ):
        pass
    health_store.meanwhile = here.report_usage  # wants none, after the first wanted three
    here.report_usage()
    there = RedisEndpointHealth(RedisConnection(wiring.conf().redis), process="there:1")
    assert there.share_usage(EndpointUsage(ENDPOINT, connections=3, limit=3)).connections == 3
    with pytest.raises(Throttled), here.acquire("a", RequestKind.LIST):
        pass


def test_two_processes_keep_the_limit_of_connections_together(store):
    both = [process(name, EndpointLimits(connections=5)) for name in ("here:1", "there:1")]
    now: Counter[str] = Counter()
    most: list[int] = []
    lock = threading.Lock()
    together = threading.Barrier(5)

    def request(number: int) -> None:
        with both[number % 2].limiter_for(ENDPOINT).acquire(f"bucket-{number}", RequestKind.LIST):
            with lock:
                now["requests"] += 1
                most.append(now["requests"])
            if number < 10:
                together.wait(60)  # five of the first ten at once are possible, six never come
            with lock:
                now["requests"] -= 1

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(request, range(40)))
    for registry in both:
        registry.close()
    assert max(most) == 5


def test_a_process_that_is_idle_gives_its_connections_back(store, monkeypatch):
    monkeypatch.setattr(module, "REPORT_S", 0.02)
    monkeypatch.setattr(usage_module, "IDLE_S", 0.2)
    registry = process("here:1", EndpointLimits(connections=100))
    trimmed: list[tuple[str, int]] = []

    class Pool:
        def trim(self, endpoint: str, limit: int) -> None:
            trimmed.append((endpoint, limit))

        def end_overdue(self) -> None:
            looked.append(time.monotonic())

    looked: list[float] = []
    pool_ = Pool()
    registry.register_pool(pool_)
    ask(registry.limiter_for(ENDPOINT))
    assert store.hget(redis_keys.pace_use(ENDPOINT), "here:1").split(":")[1] == "2"
    eventually(lambda: not store.exists(redis_keys.pace_use(ENDPOINT)))
    eventually(lambda: registry._thread is None)
    assert trimmed == [(ENDPOINT, 0)]
    assert looked
    registry.close()


def test_a_request_that_gets_no_connection_ends_as_throttled(store, monkeypatch):
    there = process("there:1", EndpointLimits(connections=1))
    here = process("here:1", EndpointLimits(connections=1), max_wait_s=0.3)
    with (
        there.limiter_for(ENDPOINT).acquire("a", RequestKind.LIST),
        pytest.raises(Throttled, match=r"the 1 requests at once that limits\.endpoints"),
        here.limiter_for(ENDPOINT).acquire("b", RequestKind.LIST),
    ):
        pass
    for registry in (here, there):
        registry.close()


# --- throttled


def test_what_one_process_is_told_slows_the_others_down(pair, store, monkeypatch):
    monkeypatch.setattr(module, "REPORT_S", 0.02)
    here, there = pair
    ask(here)
    ask(there)
    here.record_throttling()
    [shown] = engine.endpoint_loads()
    assert shown.state == "slowed"
    assert 1 <= shown.list_per_s < 10
    eventually(lambda: there.health() is not HEALTHY)
    eventually(lambda: store.hget(redis_keys.STATS, counters.THROTTLED) == "1")


@pytest.mark.parametrize("pair", [2.0], indirect=True)
def test_a_slowed_endpoint_gets_no_more_than_it_is_allowed(pair, monkeypatch):
    here, there = pair
    here.health()
    for _ in range(3):  # down to one a second
        monkeypatch.setattr(pacing, "HOLD_S", 0.0)
        here.record_throttling()
    [shown] = engine.endpoint_loads()
    assert shown.list_per_s < 2
    there.health()

    def turn(limiter: EndpointLimiter) -> bool:
        try:
            ask(limiter, kind=RequestKind.METADATA)
        except Throttled:
            return False
        return True

    with ThreadPoolExecutor(20) as pool:
        began = time.monotonic()
        went = sum(pool.map(turn, [here, there] * 10))
        seconds = time.monotonic() - began
    assert 1 <= went <= 4 * (seconds + 1)
    assert went < 20


@pytest.mark.parametrize("pair", [0.0], indirect=True)
def test_too_many_that_wait_for_a_slowed_endpoint_are_sent_away(pair, monkeypatch):
    here, _ = pair
    ask(here)
    here.record_throttling()
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask, here) for _ in range(8)]
    problems = [str(answer.exception()) for answer in answers if answer.exception()]
    assert problems
    assert "has asked for fewer requests: held back to" in problems[0]


# --- dead


@pytest.mark.usefixtures("_each_failure_counts")
def test_a_dead_endpoint_is_asked_by_one_bucket_of_one_process(pair, caplog):
    here, there = pair
    fail(here, "a", "a", "b")
    assert "s3.example.com does not answer (cannot connect)" in caplog.text
    assert not here.claim_probe("a")  # not yet
    here.claim_probe_now("a")
    ask_there = [there.claim_probe(name) for name in ("a", "b")]
    assert ask_there == [True, False]
    for limiter in (here, there):
        with pytest.raises(StorageUnavailable, match=r"does not answer \(cannot connect\); its b"):
            ask(limiter, "b")
    assert here.blocks("b")


@pytest.mark.usefixtures("_each_failure_counts")
def test_its_answer_opens_the_endpoint_to_all(pair, caplog):
    caplog.set_level("INFO")
    here, there = pair
    fail(here, "a", "a", "b")
    there.claim_probe_now("a")
    ask(there, "a")
    assert there.health() is HEALTHY
    assert here.claim_probe("b")
    ask(here, "b")
    assert engine.endpoint_loads()[0].state == "normal"
    assert "s3.example.com answers again" in caplog.text


@pytest.mark.usefixtures("_each_failure_counts")
def test_a_probe_in_vain_ends_its_turn(pair):
    here, _ = pair
    fail(here, "a", "a", "b")
    here.claim_probe_now("a")
    ask_again = here.blocks("a")
    fail(here, "a")
    assert (ask_again, here.blocks("a")) == (False, True)
    assert not here.claim_probe("a")


def test_requests_that_end_in_one_moment_leave_it_alive(pair):
    here, there = pair
    fail(here, "a", "b", "c")
    fail(there, "d", "e", "f")
    ask(here, "g")
    assert here.health() is HEALTHY


def test_time_outs_slow_an_endpoint_down_too(pair):
    here, _ = pair
    ask(here)
    fail(here, "a", timed_out=True)
    assert engine.endpoint_loads()[0].state == "slowed"


@pytest.mark.usefixtures("_each_failure_counts")
def test_an_answer_between_failures_keeps_it_alive(pair):
    here, _ = pair
    for bucket in "abcdef":
        fail(here, bucket)
        ask(here, bucket)
    assert here.health() is HEALTHY
