"""The consumers of `docs/consuming.md`: real processes on a real Redis, killed in the middle."""

import json
import signal
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain

import pytest
import redis
from jsonschema import ValidationError

from tests.support.doc_blocks import ALL
from tests.support.notifications import QUEUE, example
from tests.support.processes import ROOT, Program
from tests.support.waiting import eventually

PAGE_NAME = "docs/consuming.md"
EXAMPLES = ROOT / "docs/examples"
IN_HAND = "my-service:first:in-hand"
Start = Callable[..., Program]


@pytest.fixture
def start(redis_server, tmp_path) -> Iterator[Start]:
    """Start a consumer; all that have the same name write to the same file."""
    started: list[Program] = []

    def run(program: str, name: str) -> Program:
        log = tmp_path / name
        with log.open("a", encoding="utf-8") as output:
            output.write("\n")  # the run before may have been killed within its line
        command = [EXAMPLES / program, redis_server.url, name]
        started.append(Program(command, log=log, environ={}))
        return started[-1]

    yield run
    for program in started:
        program.clear_away()


def push(client: redis.Redis, *names: str) -> None:
    """Queue a notification for each of these event ids."""
    client.rpush(QUEUE, *(example_text(name) for name in names))


def example_text(event_id: str) -> str:
    return json.dumps(example(event_id=event_id, key=f"{event_id} and\nblanks"))


def printed(consumer: Program) -> list[str]:
    """The ids that were worked on so far, by all runs of the consumer."""
    found = [line.split()[0] for line in consumer.output().splitlines() if line[:1] == "e"]
    assert "Traceback" not in consumer.output()
    return found


def test_a_consumer_can_check_what_it_reads_as_the_page_says(monkeypatch):
    [program] = [
        block.text for block in ALL if block.page == PAGE_NAME and "validator" in block.text
    ]
    monkeypatch.chdir(ROOT)
    exec(program, {"message": json.dumps(example())})  # noqa: S102 - our own page
    with pytest.raises(ValidationError, match="bucket"):
        exec(program, {"message": "{}"})  # noqa: S102


def has_printed(consumer: Program, at_least: int) -> bool:
    return len(printed(consumer)) >= at_least


@pytest.mark.parametrize("name", ["simple_consumer.py", "safe_consumer.py"])
def test_the_page_shows_the_programs_that_are_tested(name):
    shown = [block.text for block in ALL if block.page == PAGE_NAME]
    assert (EXAMPLES / name).read_text(encoding="utf-8") in shown


@pytest.mark.parametrize("name", ["simple_consumer.py", "safe_consumer.py"])
def test_a_consumer_gets_events_in_order_and_waits_for_more(start, store, name):
    push(store, "e1", "e2")
    consumer = start(name, "first")
    eventually(lambda: printed(consumer) == ["e1", "e2"])
    push(store, "e3")
    eventually(lambda: printed(consumer) == ["e1", "e2", "e3"])
    assert store.llen(QUEUE) == 0


def test_a_safe_consumer_drops_what_it_has_seen_within_seven_days(start, store):
    push(store, "e1", "e1", "e2")
    consumer = start("safe_consumer.py", "first")
    eventually(lambda: printed(consumer) == ["e1", "e2"])
    assert 0 < store.ttl("my-service:seen:e1") <= 7 * 24 * 3600


def test_killing_a_safe_consumer_again_and_again_loses_nothing(start, store):
    wanted = [f"e{number}" for number in range(3000)]
    push(store, *wanted)
    kills = 4
    for kill in range(1, kills + 1):
        consumer = start("safe_consumer.py", "first")
        eventually(partial(has_printed, consumer, kill * 300), interval=0.001)
        consumer.signal(signal.SIGKILL)
    assert len(printed(consumer)) < len(wanted), "killed in the middle"

    consumer = start("safe_consumer.py", "first")
    eventually(lambda: printed(consumer)[-1] == wanted[-1])
    eventually(lambda: not store.exists(IN_HAND))
    worked_on = printed(consumer)
    assert list(dict.fromkeys(worked_on)) == wanted
    assert len(worked_on) <= len(wanted) + kills, "a kill repeats one message at most"


def test_what_a_killed_consumer_had_in_hand_is_left_to_it_alone(start, store):
    store.rpush(IN_HAND, example_text("e1"), example_text("e2"))
    push(store, "e3")
    other = start("safe_consumer.py", "second")
    eventually(lambda: printed(other) == ["e3"])
    again = start("safe_consumer.py", "first")
    eventually(lambda: printed(again) == ["e1", "e2"])
    eventually(lambda: not store.exists(IN_HAND))


def test_several_safe_consumers_share_the_work(start, store):
    wanted = {f"e{number}" for number in range(500)}
    consumers = [start("safe_consumer.py", name) for name in ("first", "second", "third")]
    push(store, *wanted)
    eventually(lambda: set(chain(*map(printed, consumers))) == wanted)
    assert sum(len(printed(consumer)) for consumer in consumers) == len(wanted)
