"""`manage.py runscan`: what it prints, writes and exits with."""

import json
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
import redis
from django.core.management import execute_from_command_line

from scanning import wiring
from scanning.core import keys
from tests import engine
from tests.engine import REGION

QUEUE = "linode:notifications:queue"


class Ran(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def store(redis_server) -> Iterator[redis.Redis]:
    with redis_server.client() as client:
        yield client


@pytest.fixture
def runscan(capsys) -> Callable[..., Ran]:
    def run(*arguments: str) -> Ran:
        capsys.readouterr()
        status = 0
        try:
            execute_from_command_line(["manage.py", "runscan", "--no-color", *arguments])
        except SystemExit as exc:
            status = exc.code if isinstance(exc.code, int) else 1
        return Ran(status, *capsys.readouterr())

    return run


@pytest.fixture
def bucket(store, s3_server) -> Callable[..., str]:
    """A managed bucket with these objects."""

    def make(*objects: str, **given: object) -> str:
        name: str = s3_server.bucket()
        for key in objects:
            s3_server.put(name, key)
        engine.put_real(s3_server, name, **given)
        return name

    return make


def test_a_line_a_bucket(runscan, bucket, store, s3_server):
    name = bucket("a", "b")
    first = runscan(name)
    assert first.status == 0
    assert first.out.startswith(f"{name}: 2 objects, 2 created, 0 updated, 0 detected, ")
    assert first.out.endswith(" s\n")
    assert first.err == ""
    s3_server.put(name, "a", b"changed")
    assert "2 objects, 0 created, 1 updated, 0 detected" in runscan(name).out
    assert store.llen(QUEUE) == 3


def test_several_names_each_once(runscan, bucket):
    one, two = bucket("key"), bucket()
    ran = runscan(one, two, one)
    assert sorted(line.split(":")[0] for line in ran.out.splitlines()) == sorted([one, two])


def test_all_and_a_region_take_the_active_buckets(runscan, bucket):
    here, there = bucket(), bucket(region="elsewhere")
    paused = bucket(status="paused")

    def scanned(*arguments: str) -> set[str]:
        return {line.split(":")[0] for line in runscan(*arguments).out.splitlines()}

    assert scanned("--all") == {here, there}
    assert scanned("--region", "elsewhere") == {there}
    assert scanned(paused) == {paused}


def test_json_is_one_object_a_bucket(runscan, bucket):
    names = [bucket("key"), bucket()]
    ran = runscan("--all", "--json")
    results = {result["bucket"]: result for result in map(json.loads, ran.out.splitlines())}
    assert results.keys() == set(names)
    first = results[names[0]]
    assert (first["ok"], first["objects"], first["created"], first["error"]) == (True, 1, 1, None)


def test_a_failed_scan_is_said_and_exits_with_1(runscan, bucket, s3_server, store):
    engine.put_real(s3_server, "never-created")
    good = bucket("key")
    ran = runscan("never-created", good)
    assert ran.status == 1
    failed, scanned = sorted(ran.out.splitlines(), key=lambda line: "FAILED" not in line)
    assert failed.startswith("never-created: FAILED after ")
    assert "never-created" in failed.split("FAILED")[1]
    assert scanned.startswith(f"{good}: 1 objects")


def test_a_failed_scan_in_json(runscan, s3_server, store):
    engine.put_real(s3_server, "never-created")
    ran = runscan("never-created", "--json")
    result = json.loads(ran.out)
    assert (ran.status, result["ok"]) == (1, False)
    assert result["error"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nobody"], "unknown bucket: nobody"),
        (["nobody", "none"], "unknown buckets: nobody, none"),
        (["--region", "nowhere"], "no active bucket in region nowhere"),
        ([], "say what to scan: bucket names, or --all, or --region R"),
        (["name", "--all"], "say what to scan"),
        (["name", "--region", "r"], "say what to scan"),
        (["--all", "--region", "r"], "say what to scan"),
        (["--all", "--wait", "long"], "invalid float value"),
    ],
)
def test_what_cannot_be_scanned_exits_with_2_and_scans_nothing(
    runscan, bucket, store, arguments, message
):
    bucket("key")
    ran = runscan(*arguments)
    assert ran.status == 2
    assert message in ran.err
    assert (ran.out, store.llen(QUEUE)) == ("", 0)


def test_one_unknown_name_scans_none_of_the_others(runscan, bucket, store):
    assert runscan(bucket("key"), "nobody").status == 2
    assert store.llen(QUEUE) == 0


def test_all_without_any_bucket_is_no_error(runscan, store):
    assert runscan("--all") == Ran(0, "", "")


# --- dry run


def test_a_dry_run_says_what_a_scan_would_find_and_writes_nothing(
    runscan, bucket, store, s3_server
):
    name = bucket("a", "b")
    runscan(name)
    s3_server.put(name, "a", b"changed")
    s3_server.put(name, "c")
    engine.schedule(store, wiring.configuration().load().buckets[name])
    before = engine.dump(store)

    ran = runscan(name, "--dry-run")

    assert ran.status == 0
    assert f"{name}: 3 objects, 1 created, 1 updated, 0 detected" in ran.out
    assert engine.dump(store) == before
    assert "1 created, 1 updated" in runscan("--all", "--dry-run").out
    assert engine.dump(store) == before


def test_a_dry_run_that_fails_writes_nothing_either(runscan, s3_server, store):
    engine.put_real(s3_server, "never-created")
    before = engine.dump(store)
    assert runscan("--all", "--dry-run").status == 1
    assert engine.dump(store) == before


def test_a_dry_run_needs_no_free_slot(runscan, bucket, store):
    name = bucket("key")
    store.zadd(keys.running(REGION), {name: time.time() + 60})
    ran = runscan(name, "--dry-run")
    assert (ran.status, ran.err) == (0, "")


# --- a bucket that a worker is scanning


def test_it_waits_for_a_worker_and_says_so(runscan, bucket, store):
    name = bucket("key")
    store.zadd(keys.running(REGION), {name: time.time() + 0.5})
    ran = runscan(name)
    assert ran.status == 0
    assert ran.err == (
        f"{name}: a worker is scanning it, or its region has no free slot; waiting up to 30 s\n"
    )
    assert ran.out.startswith(f"{name}: 1 objects")


def test_it_gives_up_when_the_wait_is_over(runscan, bucket, store):
    name = bucket("key")
    store.zadd(keys.running(REGION), {name: time.time() + 60})
    ran = runscan(name, "--wait", "0")
    assert ran.status == 1
    assert f"{name} is being scanned, or its region has no free slot" in ran.out
    assert store.llen(QUEUE) == 0


# --- the schedule


def test_a_scan_by_hand_counts_as_the_buckets_scan(runscan, bucket, store):
    name = bucket("key", interval=3600)
    engine.schedule(store, wiring.configuration().load().buckets[name])
    runscan(name)
    assert time.time() < store.zscore(keys.due(REGION), name) <= time.time() + 3600
    assert store.zcard(keys.running(REGION)) == 0
    assert store.exists(keys.last_scan(name))


def test_without_redis_there_is_one_clear_line(runscan, redis_server, monkeypatch):
    monkeypatch.setattr(wiring, "connection", wiring.impatient_connection)
    redis_server.stop()
    ran = runscan("--all")
    assert ran.status == 1
    [line] = ran.err.splitlines()
    assert line.startswith("CommandError: Redis does not answer: ")
