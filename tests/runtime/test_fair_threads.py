"""`FairThreads`: a stalled endpoint holds up no other."""

import threading
from functools import partial

from scanning.runtime.fair_threads import FairThreads
from tests.support.waiting import eventually


def test_jobs_run_at_once_up_to_a_half_of_the_threads_and_the_rest_waits():
    threads, release, begun = FairThreads(8, name="t"), threading.Event(), []

    def stall() -> None:
        begun.append(1)
        release.wait(60)

    for _ in range(20):
        threads.submit("slow", stall)
    eventually(lambda: len(begun) == 4)
    ended = threading.Event()
    threads.submit("fast", ended.set)
    assert ended.wait(60)
    assert len(begun) == 4
    release.set()
    eventually(lambda: len(begun) == 20)


def test_every_endpoint_has_its_turn_although_several_stall():
    threads, release, asked = FairThreads(16, name="t"), threading.Event(), set[int]()

    def stall() -> None:
        release.wait(60)

    for number in range(4):
        for _ in range(20):
            threads.submit(f"slow-{number}", stall)
    for number in range(30):
        threads.submit(f"fast-{number}", partial(asked.add, number))
    eventually(lambda: len(asked) == 30)
    release.set()


def test_what_has_not_begun_can_be_dropped():
    threads, release, begun = FairThreads(2, name="t"), threading.Event(), []

    def stall() -> None:
        begun.append(1)
        release.wait(60)

    for _ in range(5):
        threads.submit("slow", stall)
    eventually(lambda: len(begun) == 1)
    threads.clear()
    ended = threading.Event()
    release.set()
    threads.submit("slow", ended.set)
    assert ended.wait(60)
    assert len(begun) == 1
