"""Adapters are built once in a process, whoever asks first, and anew after a fork."""

import os
import threading

import pytest

from scanning import wiring

# Python 3.12 warns of what these tests are about: other tests may have left threads running.
FORKS = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
BUILDERS = [wiring.background, wiring.interactive, wiring.client_cache, wiring.credentials]


@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_threads_that_ask_together_get_the_same_one(redis_server, build):
    together = threading.Barrier(8)
    got = []

    def ask() -> None:
        together.wait()
        got.append(build())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(one) for one in got}) == 1


@FORKS
def test_a_forked_child_builds_its_own_even_if_the_parent_was_building(redis_server):
    of_parent = wiring.background()
    with wiring._building:
        child = os.fork()
        if not child:
            threads_can_build = threading.Thread(target=wiring.interactive, daemon=True)
            threads_can_build.start()
            threads_can_build.join(10)
            ok = not threads_can_build.is_alive() and wiring.background() is not of_parent
            os._exit(0 if ok else 1)
        _, status = os.waitpid(child, 0)
    assert status == 0


def test_a_reset_forgets_what_was_built(redis_server):
    before = wiring.background()
    wiring.reset()
    assert wiring.background() is not before
