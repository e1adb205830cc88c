"""`manage.py runscan`: what it prints, writes and exits with."""

import json
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import redis

from scanning import wiring
from scanning.core import redis_keys
from scanning.core.types import BucketConfig, Claim
from scanning.runtime.manual_scan import ManualScan, ManualScanRunner, scan_now
from tests.support import engine_buckets
from tests.support.commands import Ran, manage
from tests.support.engine_buckets import REGION
from tests.support.notifications import QUEUE, queued


@pytest.fixture
def runscan(capsys) -> Callable[..., Ran]:
    return partial(manage, capsys, "runscan")


@pytest.fixture
def bucket(store, s3_server) -> Callable[..., str]:
    """A managed bucket with these objects."""

    def make(*objects: str, **given: object) -> str:
        name: str = s3_server.bucket()
        for key in objects:
            s3_server.put(name, key)
        engine_buckets.put_real(s3_server, name, **given)
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
    engine_buckets.put_real(s3_server, "never-created")
    good = bucket("key")
    ran = runscan("never-created", good)
    assert ran.status == 1
    failed, scanned = sorted(ran.out.splitlines(), key=lambda line: "FAILED" not in line)
    assert failed.startswith("never-created: FAILED after ")
    assert "never-created" in failed.split("FAILED")[1]
    assert scanned.startswith(f"{good}: 1 objects")


def test_a_failed_scan_in_json(runscan, s3_server, store):
    engine_buckets.put_real(s3_server, "never-created")
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
        (["--all", "--repair"], "--repair goes with --full"),
        (["--all", "--full", "--dry-run"], "--full writes nothing: leave --dry-run away"),
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
    engine_buckets.trust()
    assert runscan("--all") == Ran(0, "", "")


# --- dry run


def test_a_dry_run_says_what_a_scan_would_find_and_writes_nothing(
    runscan, bucket, store, s3_server, caplog
):
    caplog.set_level("INFO")
    name = bucket("a", "b")
    runscan(name)
    s3_server.put(name, "a", b"changed")
    s3_server.put(name, "c")
    engine_buckets.schedule(store, wiring.background().bucket_configs.load().buckets[name])
    before = engine_buckets.dump(store)
    caplog.clear()

    ran = runscan(name, "--dry-run")

    assert ran.status == 0
    assert f"{name}: 3 objects, 1 created, 1 updated, 0 detected" in ran.out
    assert "created" not in caplog.text  # the log tells what came to be
    assert engine_buckets.dump(store) == before
    assert "1 created, 1 updated" in runscan("--all", "--dry-run").out
    assert engine_buckets.dump(store) == before


def test_a_dry_run_prints_the_events_that_a_scan_would_send(runscan, bucket, store, s3_server):
    name = bucket("a", "b")
    runscan(name)
    s3_server.put(name, "a", b"changed")
    s3_server.put(name, "\u202e")
    lines = runscan(name, "--dry-run").out.splitlines()
    assert lines[:2] == [f"updated   {name}  a  7 bytes", f"created   {name}  \\u202e  1 bytes"]
    assert lines[2].startswith(f"{name}: 3 objects")
    assert len(lines) == 3


def test_a_dry_run_in_json_prints_notifications_as_they_would_be_queued(runscan, bucket, store):
    name = bucket("a", "b")
    *told, summary = map(json.loads, runscan(name, "--dry-run", "--json").out.splitlines())
    assert summary["bucket"] == name
    assert runscan(name).status == 0
    announced = queued(store)
    for event in [*told, *announced]:
        assert {event.pop("sequencer"), event.pop("detection_time")}
    assert told == announced


def test_a_dry_run_tells_deletions_from_what_it_has_noted_itself(runscan, bucket, s3_server):
    ours = engine_buckets.document("", region=REGION)["bucketwatch"] | {"events": ["deleted"]}
    name = bucket("a", "b", "c", bucketwatch=ours | {"credential": "KEPT"})
    runscan(name)
    s3_server.client().delete_object(Bucket=name, Key="b")
    lines = runscan(name, "--dry-run").out.splitlines()
    assert lines[0].startswith(f"deleted   {name}  b  ")
    assert runscan(name, "--dry-run").out.splitlines()[0] == lines[0]


def test_a_dry_run_that_fails_writes_nothing_either(runscan, s3_server, store):
    engine_buckets.put_real(s3_server, "never-created")
    before = engine_buckets.dump(store)
    assert runscan("--all", "--dry-run").status == 1
    assert engine_buckets.dump(store) == before


def test_a_dry_run_needs_no_free_slot(runscan, bucket, store):
    name = bucket("key")
    store.zadd(redis_keys.running(REGION), {name: time.time() + 60})
    ran = runscan(name, "--dry-run")
    assert (ran.status, ran.err) == (0, "")


# --- everything compared


def segment_of(store: redis.Redis, name: str) -> str:
    [segment] = store.scan_iter(match=f"{redis_keys.OURS}{name}:*:seg:*")
    return str(segment)


def test_full_says_that_nothing_is_wrong_and_writes_nothing(runscan, bucket, store, s3_server):
    name = bucket("a", "b")
    runscan(name)
    s3_server.put(name, "c")
    before = engine_buckets.dump(store)
    ran = runscan(name, "--full")
    assert ran.status == 0
    assert ran.out.startswith(f"{name}: 1 segments compared with 3 objects, 1 created, 0 updated")
    assert ran.out.endswith(" s; nothing is wrong\n")
    after = engine_buckets.dump(store)
    fence = redis_keys.bucket(name)
    assert after.pop(fence).keys() == before.pop(fence).keys()
    assert after == before


def test_full_finds_a_lost_segment_and_repair_builds_it_again(runscan, bucket, store, s3_server):
    name = bucket("a", "b")
    runscan(name)
    store.delete(segment_of(store, name), f"linode:objstore:state:{name}:b", QUEUE)
    s3_server.put(name, "a", b"changed")  # or the digest still hits, and nobody reads the rows
    assert f"runscan --full --repair {name}" in runscan(name).out

    ran = runscan(name, "--full")
    assert ran.status == 1
    assert ran.out.endswith("; found: 1 segments lost or broken (b)\n")
    assert store.llen(QUEUE) == 0

    repaired = runscan(name, "--full", "--repair")
    assert repaired.status == 0
    assert f"{name}: 2 objects, 1 created, 1 updated" in repaired.out
    assert repaired.out.endswith("; repaired: 1 segments lost or broken (b)\n")
    assert [event["key"] for event in queued(store)] == ["a", "b"]
    assert runscan(name, "--full").out.endswith("; nothing is wrong\n")
    assert store.zcard(redis_keys.running(REGION)) == 0


def test_full_in_json_counts_each_kind_of_fault(runscan, bucket, store):
    name = bucket("a", "b")
    runscan(name)
    store.delete(f"linode:objstore:state:{name}:b")
    store.hset(redis_keys.bucket(name), "objects", 7)
    ran = runscan(name, "--full", "--json")
    said = json.loads(ran.out)
    assert (ran.status, said["ok"], said["segments"], said["repaired"]) == (1, False, 1, False)
    assert {kind: n for kind, n in said["wrong"].items() if n} == {
        "wrong_states": 1,
        "wrong_counts": 1,
    }
    assert said["examples"] == {"wrong_states": ["b"], "wrong_counts": []}
    assert (said["objects"], said["created"], said["error"]) == (2, 0, None)
    assert json.loads(runscan(name, "--full", "--repair", "--json").out)["repaired"]
    assert runscan(name, "--full").status == 0


def test_full_fails_where_the_bucket_cannot_be_listed(runscan, s3_server, store):
    engine_buckets.put_real(s3_server, "never-created")
    ran = runscan("never-created", "--full", "--repair")
    assert ran.status == 1
    assert ran.out.startswith("never-created: FAILED after ")
    assert store.zcard(redis_keys.running(REGION)) == 0


def test_full_waits_for_nobody_longer_than_it_is_told(runscan, bucket, store):
    name = bucket("key")
    store.zadd(redis_keys.running(REGION), {name: time.time() + 60})
    ran = runscan(name, "--full", "--wait", "0")
    assert ran.status == 1
    assert "is being scanned" in ran.out


# --- a bucket that a worker is scanning


def test_it_waits_for_a_worker_and_says_so(runscan, bucket, store):
    name = bucket("key")
    store.zadd(redis_keys.running(REGION), {name: time.time() + 2})
    ran = runscan(name)
    assert ran.status == 0
    assert ran.err == (
        f"{name}: a worker is scanning it, or its region has no free slot; waiting up to 30 s\n"
    )
    assert ran.out.startswith(f"{name}: 1 objects")


def test_it_gives_up_when_the_wait_is_over(runscan, bucket, store):
    name = bucket("key")
    store.zadd(redis_keys.running(REGION), {name: time.time() + 60})
    ran = runscan(name, "--wait", "0")
    assert ran.status == 1
    assert f"{name} is being scanned, or its region has no free slot" in ran.out
    assert store.llen(QUEUE) == 0


# --- the schedule


def test_a_scan_by_hand_counts_as_the_buckets_scan(runscan, bucket, store):
    name = bucket("key", interval=3600)
    engine_buckets.schedule(store, wiring.background().bucket_configs.load().buckets[name])
    runscan(name)
    assert time.time() < store.zscore(redis_keys.due(REGION), name) <= time.time() + 3600
    assert store.zcard(redis_keys.running(REGION)) == 0
    assert store.exists(redis_keys.last_scan(name))


def test_without_redis_there_is_one_clear_line(runscan, redis_server, monkeypatch):
    monkeypatch.setattr(wiring, "background", wiring.interactive)
    redis_server.stop()
    ran = runscan("--all")
    assert ran.status == 1
    [line] = ran.err.splitlines()
    assert line.startswith("CommandError: Redis does not answer: ")


class Ending(ManualScan):
    """A scan whose own thread ends it, and with it the claim, once somebody has seen the claim."""

    def __init__(self, bucket: BucketConfig, claim: Claim) -> None:
        super().__init__(bucket, threading.Event(), print)
        self._left = [claim]

    def __getattribute__(self, name: str) -> Any:
        if name == "claim":
            return self._left.pop() if self._left else None
        return super().__getattribute__(name)


def test_a_scan_that_ends_while_it_is_stopped_breaks_nothing(bucket, store):
    config = wiring.background().bucket_configs.get(bucket())
    assert config is not None
    claim = wiring.background().leases.claim(config, slots=1)
    assert claim is not None
    runner = ManualScanRunner([], partial(scan_now, wait_s=0), at_once=1)
    runner.scans = [Ending(config, claim)]
    assert runner.stop() == []
    assert store.zcard(redis_keys.running(REGION)) == 0
