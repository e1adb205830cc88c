"""`manage.py tail`: what is announced is shown, and stays in the queue."""

import json
import signal
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

import pytest

from scanning import wiring
from scanning.core import redis_keys
from tests.support import engine_buckets
from tests.support.commands import Ran, manage
from tests.support.notifications import QUEUE, queued
from tests.support.processes import Program
from tests.support.waiting import eventually


@pytest.fixture
def tail(capsys) -> Callable[..., Ran]:
    return partial(manage, capsys, "tail", "--no-follow")


@pytest.fixture
def announce(store, s3_server, capsys) -> Callable[..., str]:
    """Put objects into a bucket, new or known, and scan it."""
    made: dict[str, str] = {}
    versions = count(1)

    def put(*objects: str, bucket: str = "") -> str:
        name = made.setdefault(bucket, "") or s3_server.bucket()
        made[bucket] = name
        for key in objects:
            s3_server.put(name, key, bytes([next(versions)]))
        engine_buckets.put_real(s3_server, name)
        wiring.reset()  # the keys that it holds in memory are older
        assert manage(capsys, "runscan", name).status == 0
        return name

    return put


def test_the_last_events_are_shown_the_newest_last_and_stay_in_the_queue(tail, announce, store):
    name = announce("a", "b")
    announce("c")
    ran = tail()
    assert ran.status == 0
    assert [line[21:] for line in ran.out.splitlines()] == [
        f"created   {name}  a  1 bytes",
        f"created   {name}  b  1 bytes",
        f"created   {name}  c  1 bytes",
    ]
    assert [line[21:] for line in tail("-n", "2").out.splitlines()] == [
        f"created   {name}  b  1 bytes",
        f"created   {name}  c  1 bytes",
    ]
    assert tail("-n", "0").out == ""
    assert store.llen(QUEUE) == 3


def test_filters_choose_bucket_type_and_prefix(tail, announce):
    one, two = announce("in/a", "out/b", bucket="one"), announce("in/a", bucket="two")
    announce("in/a", bucket="one")

    def shown(*arguments: str) -> list[tuple[str, str, str]]:
        said = map(json.loads, tail("--json", *arguments).out.splitlines())
        return [(event["bucket"], event["event_type"], event["key"]) for event in said]

    assert shown("--bucket", two) == [(two, "created", "in/a")]
    assert shown("--type", "updated") == [(one, "updated", "in/a")]
    assert shown("--prefix", "out/") == [(one, "created", "out/b")]
    assert shown("--bucket", one, "--prefix", "in/", "-n", "1") == [(one, "updated", "in/a")]
    assert shown("--type", "deleted") == []


def test_json_has_the_members_that_are_documented(tail, announce, store):
    name = announce("key")
    [event] = queued(store)
    assert json.loads(tail("--json").out) == {
        "at": pytest.approx(event["detection_time"], abs=0.01),
        "bucket": name,
        "event_type": "created",
        "key": "key",
        "size": 1,
    }


def test_events_without_names_are_counted(tail, announce):
    name = announce(*(f"key-{number:03}" for number in range(103)))
    *_, last = tail("-n", "5").out.splitlines()
    assert last[21:] == f"… and 3 more of {name} that were announced together"
    assert json.loads(tail("-n", "1", "--json").out)["not_listed"] == 3


def test_what_is_no_commit_is_left_out(tail, announce, store):
    announce("a")
    store.xadd(redis_keys.EVENTS, {"commit": "no JSON"})
    announce("b")
    assert len(tail().out.splitlines()) == 2


def test_without_events_nothing_is_shown(tail, store):
    assert tail() == Ran(0, "", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bucket", "nobody"], "unknown bucket: nobody"),
        (["--type", "moved"], "invalid choice: 'moved'"),
        (["-n", "-1"], "must be a whole number from 0 on"),
    ],
)
def test_what_makes_no_sense_exits_with_2(tail, store, arguments, message):
    ran = tail(*arguments)
    assert (ran.status, ran.out) == (2, "")
    assert message in ran.err


def test_without_redis_at_the_start_it_ends(tail, redis_server):
    redis_server.stop()
    ran = tail()
    assert ran.status == 1
    assert ran.err.startswith("CommandError: Redis does not answer")


@pytest.fixture
def following(redis_server, tmp_path) -> Iterator[Callable[..., Program]]:
    started: list[Program] = []

    def start(*arguments: str) -> Program:
        environ = {
            "DJANGO_SETTINGS_MODULE": "bucketwatch.settings",
            "REDIS_URL": redis_server.url,
            "DATA_DIR": str(tmp_path),
        }
        command = ["manage.py", "tail", *arguments]
        started.append(Program(command, log=tmp_path / "tail.log", environ=environ))
        return started[-1]

    yield start
    for program in started:
        program.clear_away()


@pytest.mark.processes
def test_it_follows_through_an_outage_of_redis(following, announce, redis_server):
    name = announce("before")
    program = following("--bucket", name)
    eventually(lambda: "  before  " in program.output(), 60)
    announce("live")
    eventually(lambda: f"created   {name}  live  1 bytes\n" in program.output(), 60)

    redis_server.stop()
    eventually(lambda: "Redis does not answer" in program.output(), 60)
    redis_server.start()
    announce("after")
    eventually(lambda: f"created   {name}  after  1 bytes\n" in program.output(), 60)

    assert program.signal(signal.SIGINT) == 130
    said = program.output()
    assert said.count("; trying again\n") == said.count("Redis answers again\n") == 1
    # This server kept nothing: what came between may be lost, and that is said.
    assert "What was announced before this is no longer known here\n" in said
    assert "Traceback" not in said
