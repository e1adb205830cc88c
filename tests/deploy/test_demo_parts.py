"""The parts of the demo, each on its own."""

import json
import os
import shlex
from collections import Counter
from pathlib import Path

import pytest

from bucketwatch.demo.changes import MOST_OBJECTS, Changer
from bucketwatch.demo.follow import KEEP_PRINTED, TRIM_ABOVE, Follower, line
from bucketwatch.demo.home import Home, write_private
from bucketwatch.demo.world import BUCKETS, seed
from bucketwatch.local.environment import without_product_variables
from bucketwatch.local.s3_memory import Memory
from bucketwatch.local.servers import (
    RedisServer,
    ServerError,
    other_redis_server,
    redis_server_binary,
)

QUEUE = "queue"


@pytest.fixture
def follow(store, tmp_path):
    """A follower as a new start of the demo would make it."""
    return lambda: Follower(store, QUEUE, tmp_path / "printed.json")


def test_each_entry_is_news_once(store, follow):
    follower = follow()
    assert follower.news() == []
    store.rpush(QUEUE, "a", "b")
    assert follower.news() == ["a", "b"]
    assert follower.news() == []
    store.rpush(QUEUE, "c")
    assert follower.news() == ["c"]


def test_a_restart_repeats_nothing_and_misses_nothing(store, follow):
    store.rpush(QUEUE, "a", "b")
    assert follow().news() == ["a", "b"]
    store.rpush(QUEUE, "c")
    assert follow().news() == ["c"]
    assert follow().news() == []


@pytest.mark.parametrize("consumed", [1, 2, 3, 4, 5])
def test_entries_that_somebody_consumes_are_no_news(store, follow, consumed):
    store.rpush(QUEUE, "a", "b", "c")
    follower = follow()
    follower.news()
    store.rpush(QUEUE, "d", "e")
    store.ltrim(QUEUE, consumed, -1)
    assert follower.news() == ["d", "e"][max(0, consumed - 3) :]
    store.rpush(QUEUE, "f")
    assert follower.news() == ["f"]


def test_an_emptied_redis_is_followed_from_its_start(store, follow):
    store.rpush(QUEUE, "a", "b")
    follower = follow()
    follower.news()
    store.flushall()
    store.rpush(QUEUE, "c", "d")
    assert follower.news() == ["c", "d"]


def test_the_queue_does_not_grow_for_ever(store, follow):
    follower = follow()
    seen = []
    for batch in range(4):
        store.rpush(QUEUE, *(f"{batch}-{n}" for n in range(TRIM_ABOVE // 2)))
        seen += follower.news()
        seen += follow().news()
    assert len(seen) == len(set(seen)) == TRIM_ABOVE // 2 * 4
    assert KEEP_PRINTED <= store.llen(QUEUE) <= TRIM_ABOVE
    assert store.lindex(QUEUE, -1) == seen[-1]


def test_a_line_says_what_happened_to_which_object():
    event = {
        "bucket": "media-in",
        "key": "a/Größe\n.mp4",
        "event_type": "created",
        "size": 1234,
        "detection_time": 0.0,
    }
    said = line(json.dumps(event))
    assert "\n" not in said
    assert said.endswith("created   media-in       a/Größe\\n.mp4  (1,234 B)")


def test_a_second_seed_leaves_what_is_there(tmp_path):
    memory = Memory(tmp_path / "memory.sqlite3")
    seed(memory, now=1e9)
    memory.forget_object("media-in", "readme.txt")
    before = {bucket.name: list(memory.objects(bucket.name)) for bucket in BUCKETS}
    seed(memory, now=2e9)
    assert {bucket.name: list(memory.objects(bucket.name)) for bucket in BUCKETS} == before
    memory.close()


def test_the_changer_uploads_overwrites_and_deletes_and_stays_small(s3_server):
    bucket = BUCKETS[0]
    s3_server.bucket(bucket.name)
    changer = Changer(s3_server)
    seen: Counter[str] = Counter()
    before: dict[str, str] = {}
    for _ in range(MOST_OBJECTS * 4):
        changer.change(bucket)
        listed = s3_server.client().list_objects_v2(Bucket=bucket.name).get("Contents", [])
        after = {row["Key"]: row["ETag"] for row in listed}
        assert len(after) <= MOST_OBJECTS + 1
        seen["uploaded"] += len(after.keys() - before.keys())
        seen["deleted"] += len(before.keys() - after.keys())
        seen["overwritten"] += sum(before[k] != after[k] for k in after.keys() & before.keys())
        before = after
    assert min(seen["uploaded"], seen["deleted"], seen["overwritten"]) > 0
    changer.start()
    changer.stop()
    assert not changer.is_alive()


def test_the_changer_leaves_alone_what_others_put_there(s3_server):
    bucket = BUCKETS[0]
    s3_server.bucket(bucket.name)
    client = s3_server.client()
    for key in ("2025/mine.mp4", "2025/04/clip mine.mp4"):
        client.put_object(Bucket=bucket.name, Key=key, Body=b"mine")
    changer = Changer(s3_server)
    for _ in range(MOST_OBJECTS * 3):
        changer.change(bucket)
    for key in ("2025/mine.mp4", "2025/04/clip mine.mp4"):
        assert client.get_object(Bucket=bucket.name, Key=key)["Body"].read() == b"mine"


@pytest.mark.parametrize("bucket", BUCKETS, ids=lambda bucket: bucket.name)
def test_a_demo_bucket_knows_the_keys_that_the_demo_makes(bucket):
    made = [*bucket.keys, bucket.pattern.format(month=4, number=815)]
    assert all(bucket.is_its_own(key) for key in made)
    assert not bucket.is_its_own("2025/mine.pdf")


def test_secrets_are_made_once_and_are_readable_by_their_owner_only(tmp_path):
    made = Home(tmp_path).secrets()
    assert Home(tmp_path).secrets() == made
    assert (tmp_path / "demo/secrets.json").stat().st_mode & 0o777 == 0o600


def test_its_directories_are_closed_to_others(tmp_path):
    """`make run` goes on in the same `var`, with password hashes and sessions of real people."""
    home = Home(tmp_path / "var")
    assert [path.stat().st_mode & 0o777 for path in (home.var, home.directory)] == [0o700, 0o700]


def test_a_private_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "file"
    write_private(path, "long text")
    write_private(path, "short")
    assert path.read_text() == "short"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_the_callers_redis_and_database_are_left_alone():
    environ = dict.fromkeys(
        ["REDIS_URL", "DATABASE_URL", "INFISICAL_TOKEN", "REDIS_SENTINEL_HOST", "CONFIG_PATH"], "x"
    )
    assert without_product_variables({**environ, "PATH": os.defpath}) == {"PATH": os.defpath}


@pytest.mark.parametrize("name", ["redis-server", "valkey-server"])
def test_a_redis_server_of_the_machine_changes_nothing(tmp_path, monkeypatch, name):
    bundled = redis_server_binary()
    program_saying(tmp_path / name, "Redis server v=7.0.15 sha=00000000:0 bits=64 build=1")
    monkeypatch.setenv("PATH", f"{tmp_path}")
    assert redis_server_binary() == bundled
    assert other_redis_server() == ""


@pytest.mark.parametrize("named", ["redis-server", "{}/redis-server"], ids=["name", "path"])
def test_another_redis_server_is_used_when_asked_for_and_that_is_said(tmp_path, monkeypatch, named):
    program = program_saying(tmp_path / "redis-server", "I am no server")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.defpath}")
    monkeypatch.setenv("REDIS_SERVER_PROGRAM", named.format(tmp_path))
    assert redis_server_binary() == program
    assert other_redis_server().startswith(f"Redis server: {named.format(tmp_path)}, as REDIS_")
    with pytest.raises(ServerError, match="I am no server"):
        RedisServer(tmp_path / "data").start()


def test_a_redis_server_that_is_asked_for_and_not_there_is_named(monkeypatch):
    monkeypatch.setenv("REDIS_SERVER_PROGRAM", "no-such-server")
    with pytest.raises(ServerError, match="REDIS_SERVER_PROGRAM names no-such-server, which is no"):
        redis_server_binary()


def program_saying(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\necho {shlex.quote(text)}\n")
    path.chmod(0o755)
    return path
