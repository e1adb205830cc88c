"""The commit script in real Redis: all of it, or nothing at all."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
import redis

from scanning import wiring
from scanning.adapters.redis.state import RECENT_COMMITS, RedisStateStore
from scanning.core import redis_keys
from scanning.core.errors import (
    BucketwatchError,
    CommitOutOfStep,
    ConfigurationChanged,
    LeaseLost,
    QueueFull,
    RedisUnavailable,
    StateDamaged,
)
from scanning.core.segments.model import Entry, Piece
from scanning.core.types import BucketConfig, Claim, EventType, Held, HeldTimes, ObjectState
from scanning.ports import Commit, Progress
from tests.support import engine_buckets
from tests.support.fakes import columns_of
from tests.support.waiting import eventually

QUEUE = "linode:notifications:queue"
STATE = "linode:objstore:state:bucket:"


@pytest.fixture
def bucket(store) -> BucketConfig:
    return engine_buckets.put("bucket")


@pytest.fixture
def states(bucket) -> RedisStateStore:
    return wiring.background().states


@pytest.fixture
def claim(bucket) -> Claim:
    claim = wiring.background().leases.claim(bucket, slots=15)
    assert claim is not None
    return claim


def manifest(generation: int = 1) -> str:
    return redis_keys.manifest("bucket", generation)


def piece(id_: str, *names: str) -> Piece:
    columns = columns_of(dict.fromkeys(names, ("etag", 1700000000000, 5)))
    return Piece(Entry(id_, columns.keys[-1], len(columns), b"\xff" * 16, 40), columns)


def everything(number: int = 1) -> Commit:
    """A commit that writes every kind of thing."""
    return Commit(
        number=number,
        pieces=[piece("1-0", "a", "b"), piece("1-1", "c")],
        notifications=['{"key":"a"}', '{"key":"é"}'],
        recent='{"count":2}',
        strings={name: ObjectState("etag", 1.7e9, 5, 1.8e9) for name in "abc"},
        no_strings=["old"],
        counted={EventType.CREATED: 2, EventType.DELETED: 1},
        progress=Progress(began=7.5, after="c", listed=3, appeared=3),
    )


def test_a_commit_writes_all_that_it_holds(states, claim, bucket, store):
    store.set(f"{STATE}old", "{}")
    states.commit(claim, everything())

    assert store.lrange(QUEUE, 0, -1) == ['{"key":"a"}', '{"key":"é"}']
    assert [fields for _, fields in store.xrange(redis_keys.EVENTS)] == [{"commit": '{"count":2}'}]
    assert store.hgetall(redis_keys.STATS) == {
        "total_new_objects": "2",
        "total_deleted_objects": "1",
    }
    assert json.loads(store.get(f"{STATE}b")) == {
        "etag": "etag",
        "last_modified": 1.7e9,
        "size": 5,
        "last_processed": 1.8e9,
    }
    assert 2_591_990 < store.ttl(f"{STATE}b") <= 2_592_000
    assert not store.exists(f"{STATE}old")
    assert store.ttl(manifest()) == -1
    known = states.open(bucket)
    assert list(known.entries) == [piece("1-0", "a", "b").entry, piece("1-1", "c").entry]
    assert known.progress == everything().progress
    assert states.load(bucket, ["1-1", "1-0"]) == [
        piece("1-1", "c").columns,
        piece("1-0", "a", "b").columns,
    ]


def test_a_later_commit_changes_and_removes_segments(states, claim, bucket, store):
    states.commit(claim, everything())
    changed = piece("1-0", "a", "b", "bb")
    states.commit(claim, Commit(number=2, pieces=[changed], removed=["1-1"], no_strings=["c"]))
    assert list(states.open(bucket).entries) == [changed.entry]
    assert states.load(bucket, ["1-0"]) == [changed.columns]
    assert not store.exists(redis_keys.segment("bucket", 1, "1-1"), f"{STATE}c")
    assert store.llen(QUEUE) == 2


def test_an_entry_can_change_without_its_rows(states, claim, bucket):
    states.commit(claim, everything())
    entry = replace(piece("1-1", "c").entry, missing=(0,), digest=b"")
    states.commit(claim, Commit(number=2, pieces=[Piece(entry, None)]))
    assert states.open(bucket).entries[1] == entry
    assert states.load(bucket, ["1-1"]) == [piece("1-1", "c").columns]


def test_a_thousand_objects_with_all_that_belongs_to_them_are_one_commit(
    states, claim, bucket, store
):
    names = [f"key-{number:04}" for number in range(1000)]
    gone = [f"old-{number:04}" for number in range(9000)]
    store.mset({f"{STATE}{name}": "{}" for name in gone})
    states.commit(
        claim,
        Commit(
            number=1,
            pieces=[piece("1-0", *names)],
            notifications=[json.dumps({"key": name}) for name in names] * 9,
            strings={name: ObjectState("e", 1.0, 1) for name in names},
            no_strings=gone,
            counted=dict.fromkeys(EventType, 1),
        ),
    )
    queued = [json.loads(text)["key"] for text in store.lrange(QUEUE, 0, -1)]
    assert queued == names * 9
    assert sorted(store.scan_iter(f"{STATE}*")) == [f"{STATE}{name}" for name in names]
    assert states.load(bucket, ["1-0"]) == [piece("1-0", *names).columns]


# --- nothing at all


def of_another_type(key: str) -> Callable[[redis.Redis], object]:
    def write(store: redis.Redis) -> None:
        store.delete(key)
        store.set(key, "somebody else's")

    return write


def removed_and_added(store: redis.Redis) -> None:
    engine_buckets.remove("bucket")
    engine_buckets.put("bucket", generation=2)


def moved_and_claimed(_store: redis.Redis) -> None:
    moved = engine_buckets.put("bucket", region="elsewhere")
    assert wiring.background().leases.claim(moved, slots=1)


def counter(value: str) -> Callable[[redis.Redis], object]:
    return lambda store: store.hset(redis_keys.STATS, "total_deleted_objects", value)


OBSTACLES: dict[str, tuple[Callable[[redis.Redis], object], type[BucketwatchError], str]] = {
    **{
        f"{name} of another type": (of_another_type(key), RedisUnavailable, f"{key} has another")
        for name, key in {
            "queue": QUEUE,
            "counters": redis_keys.STATS,
            "stream": redis_keys.EVENTS,
            "manifest": manifest(),
        }.items()
    },
    **{
        f"the counter {value[:4]}": (counter(value), RedisUnavailable, redis_keys.STATS)
        for value in ("many", "1.5", "007", "-0", " 1", "", str(2**63 - 1), "9" * 40)
    },
    "bucket hash of another type": (
        of_another_type(redis_keys.bucket("bucket")),
        RedisUnavailable,
        "WRONGTYPE",
    ),
    "running set of another type": (
        of_another_type(redis_keys.running(engine_buckets.REGION)),
        RedisUnavailable,
        "WRONGTYPE",
    ),
    "another claim's fence": (
        lambda store: store.hincrby(redis_keys.bucket("bucket"), "fence", 1),
        LeaseLost,
        "bucket: the lease expired or went to another worker",
    ),
    "a lease that somebody took away": (
        lambda store: store.zrem(redis_keys.running(engine_buckets.REGION), "bucket"),
        LeaseLost,
        "the lease expired",
    ),
    "a lease that expired": (
        lambda store: store.zadd(
            redis_keys.running(engine_buckets.REGION), {"bucket": store.time()[0] - 1}
        ),
        LeaseLost,
        "the lease expired",
    ),
    "another generation": (
        lambda store: engine_buckets.put("bucket", generation=2),
        ConfigurationChanged,
        "bucket: removed or changed while it was being scanned",
    ),
    "a removed bucket": (
        lambda store: engine_buckets.remove("bucket"),
        LeaseLost,
        "the lease expired",
    ),
    "a removed bucket that was added again": (
        removed_and_added,
        LeaseLost,
        "the lease expired",
    ),
    "a claim in another region": (moved_and_claimed, LeaseLost, "the lease expired"),
    "a commit that Redis lost": (
        lambda store: store.hset(redis_keys.bucket("bucket"), "commit", 5),
        CommitOutOfStep,
        "bucket: Redis lost an earlier commit; scanning again",
    ),
    "a commit that we do not know of": (
        lambda store: store.hset(redis_keys.bucket("bucket"), "commit", 8),
        CommitOutOfStep,
        "scanning again",
    ),
}


@pytest.mark.parametrize(("obstruct", "kind", "says"), OBSTACLES.values(), ids=OBSTACLES)
def test_a_commit_that_cannot_be_whole_writes_nothing(states, claim, store, obstruct, kind, says):
    store.hset(redis_keys.bucket("bucket"), "commit", 6)
    store.set(f"{STATE}old", "{}")
    obstruct(store)
    before = engine_buckets.dump(store)
    with pytest.raises(kind) as caught:
        states.commit(claim, everything(number=7))
    assert type(caught.value) is kind
    assert says in str(caught.value)
    assert engine_buckets.dump(store) == before


WRITING = ["rpush", "persist", "xadd", "hincrby", "hset", "hdel", "set", "unlink"]


@pytest.mark.parametrize("command", WRITING)
def test_a_commit_without_all_the_rights_writes_nothing(states, claim, store, command):
    """Its notifications would be queued again with each scan."""
    store.set(f"{STATE}old", "{}")
    before = engine_buckets.dump(store)
    store.execute_command("ACL SETUSER", "default", f"-{command}")
    try:
        with pytest.raises(RedisUnavailable, match=f"not let this user run {command.upper()}"):
            states.commit(claim, everything())
    finally:
        store.execute_command("ACL SETUSER", "default", "+@all")
    assert engine_buckets.dump(store) == before


def test_a_commit_into_a_full_memory_writes_nothing(states, claim, store):
    store.set(f"{STATE}old", "{}")
    before = engine_buckets.dump(store)
    store.config_set("maxmemory-policy", "noeviction")
    store.config_set("maxmemory", 1)
    try:
        with pytest.raises(RedisUnavailable, match="out of memory"):
            states.commit(claim, everything())
        assert engine_buckets.dump(store) == before
    finally:
        store.config_set("maxmemory", 0)
    states.commit(claim, everything())
    assert store.llen(QUEUE) == 2


def test_a_commit_of_states_alone_into_a_full_memory_is_whole_or_nothing(states, claim, store):
    """Without notifications the first write is another one."""
    silent = replace(everything(), notifications=[], recent="")
    before = engine_buckets.dump(store)
    store.config_set("maxmemory", 1)
    try:
        states.commit(claim, silent)
    except RedisUnavailable:
        assert engine_buckets.dump(store) == before
    else:
        assert store.hget(redis_keys.bucket("bucket"), "commit") == "1"
        assert store.hlen(manifest()) == 2
        assert store.exists(*(f"{STATE}{name}" for name in "abc")) == 3
    finally:
        store.config_set("maxmemory", 0)


@pytest.fixture
def low_mark(settings) -> None:
    queue_conf = settings.SCANNING.queue.model_copy(update={"high_water": 3})
    settings.SCANNING = settings.SCANNING.model_copy(update={"queue": queue_conf})


def test_a_queue_above_its_mark_takes_no_notification_and_no_state(low_mark, states, claim, store):
    store.rpush(QUEUE, *"123")
    before = engine_buckets.dump(store)
    with pytest.raises(QueueFull, match="bucket: the notification queue is above its high-water"):
        states.commit(claim, everything())
    assert engine_buckets.dump(store) == before
    store.lpop(QUEUE)
    states.commit(claim, everything())
    assert store.llen(QUEUE) == 4


@pytest.fixture
def mark_of_six(settings) -> None:
    queue_conf = settings.SCANNING.queue.model_copy(update={"high_water": 6})
    settings.SCANNING = settings.SCANNING.model_copy(update={"queue": queue_conf})


def test_a_bucket_that_filled_its_share_of_the_queue_waits_while_others_go_on(
    mark_of_six, states, claim, store
):
    numbered = [f'{{"n":{number}}}' for number in range(3)]
    states.commit(claim, Commit(1, notifications=numbered))
    with pytest.raises(QueueFull, match="bucket: this bucket's share of the notification queue"):
        states.commit(claim, Commit(2, notifications=numbered))
    assert store.llen(QUEUE) == 3
    states.commit(claim, Commit(2))  # what is not announced needs no room
    store.lpop(QUEUE)
    states.commit(claim, Commit(3, notifications=numbered))
    assert store.llen(QUEUE) == 5


def test_a_share_is_of_what_the_bucket_announced_itself(low_mark, states, claim, store):
    store.rpush(QUEUE, *"12")
    states.commit(claim, everything())
    assert store.llen(QUEUE) == 4


def test_a_queue_above_its_mark_does_not_stop_what_nobody_is_told(low_mark, states, claim, store):
    store.rpush(QUEUE, *"123")
    states.commit(claim, replace(everything(), notifications=[]))
    assert store.hlen(manifest()) == 2


# --- again


def test_the_same_commit_sent_twice_is_one(states, claim, store):
    states.commit(claim, everything())
    before = engine_buckets.dump(store)
    states.commit(claim, everything())
    assert engine_buckets.dump(store) == before


def test_a_commit_sent_again_answers_as_the_first_whatever_stands_in_the_way_now(
    low_mark, states, claim, store
):
    states.commit(claim, everything())
    store.rpush(QUEUE, "a", "b")
    states.commit(claim, everything())
    assert store.llen(QUEUE) == 4


def test_a_commit_whose_answer_was_lost_is_sent_again_and_is_one(states, claim, store, monkeypatch):
    read, sent = redis.Connection.read_response, []

    def without_answer(connection: redis.Connection, **options: object) -> object:
        answer = read(connection, **options)
        if answer == "ok":
            sent.append(answer)
            if len(sent) == 1:
                raise redis.exceptions.TimeoutError("no answer")
        return answer

    states.commit(claim, everything())
    monkeypatch.setattr(redis.Connection, "read_response", without_answer)
    states.commit(claim, everything(number=2))
    assert sent == ["ok", "ok"]
    assert store.llen(QUEUE) == 4
    assert store.xlen(redis_keys.EVENTS) == 2
    assert store.hget(redis_keys.STATS, "total_new_objects") == "4"


def test_a_commit_goes_on_while_the_next_is_made_ready(states, claim, store):
    answer = states.begin(claim, everything())
    eventually(lambda: store.llen(QUEUE) == 2)
    answer()


@pytest.mark.parametrize("lost", ["script", "connection"])
def test_a_commit_on_its_way_arrives_whatever_is_lost(states, claim, store, lost):
    states.commit(claim, everything())
    if lost == "script":  # as after a failover
        store.script_flush()
        answer = states.begin(claim, everything(number=2))
    else:
        answer = states.begin(claim, everything(number=2))
        store.client_kill_filter(_type="normal", skipme=True)
    answer()
    assert store.llen(QUEUE) == 4
    states.commit(claim, everything(number=3))
    assert store.llen(QUEUE) == 6


def test_a_refused_commit_says_so_when_it_is_waited_for(states, claim):
    answer = states.begin(claim, everything(number=7))
    with pytest.raises(CommitOutOfStep):
        answer()


# --- around it


def test_the_expiry_that_the_older_monitor_left_on_the_queue_goes(states, claim, store):
    store.rpush(QUEUE, "{}")
    store.expire(QUEUE, 604_800)
    states.commit(claim, Commit(number=1))
    assert store.ttl(QUEUE) == -1


def test_the_stream_of_recent_events_has_one_entry_a_commit_and_is_capped(states, claim, store):
    commits = RECENT_COMMITS + 300
    for number in range(1, commits + 1):
        recent = f'{{"number":{number}}}' if number % 2 else ""
        states.commit(claim, Commit(number=number, recent=recent))
        if number == 20:
            assert store.xlen(redis_keys.EVENTS) == 10
    for number in range(commits + 1, 2 * commits + 1):
        states.commit(claim, Commit(number=number, recent="{}"))
    # The cap is approximate: Redis drops whole nodes of the stream.
    assert RECENT_COMMITS <= store.xlen(redis_keys.EVENTS) <= RECENT_COMMITS + 200


def test_nothing_is_known_of_a_bucket_that_was_never_scanned(states, bucket):
    known = states.open(bucket)
    assert (list(known.entries), known.progress, known.is_first) == ([], None, True)
    assert (known.held_since, known.released) == (None, 0)


def test_that_a_deletion_is_held_is_known_to_the_next_scan(states, claim, bucket):
    ended = engine_buckets.result("bucket")
    held = replace(ended, held=Held(missing=6, known=10, since=5.5), commit=None)
    wiring.background().leases.finish(claim, held, next_due=None)
    assert states.open(bucket).held_since == 5.5


def test_that_moved_times_are_held_is_known_to_the_next_scan(states, claim, bucket):
    storm = HeldTimes(moved=6, known=10, since=5.5)
    held = replace(engine_buckets.result("bucket"), held_times=storm, commit=None)
    wiring.background().leases.finish(claim, held, next_due=None)
    known = states.open(bucket)
    assert (known.held_moved_since, known.held_since) == (5.5, None)
    assert (known.released_moved, known.takes_times) == (0, False)


@pytest.mark.parametrize(("stored", "known"), [("7", (7, False)), ("silently", (0, True))])
def test_what_somebody_chose_for_moved_times_is_known_until_a_commit_took_them(
    states, claim, bucket, store, stored, known
):
    fields = {"held_moved_since": "5.5", "held_moved": "7", "released_moved": stored}
    store.hset(redis_keys.bucket("bucket"), mapping=fields | {"held_since": "4.5"})
    states.commit(claim, Commit(number=1))
    found = states.open(bucket)
    assert (found.released_moved, found.takes_times) == known
    states.commit(claim, Commit(number=2, took_times=True))
    found = states.open(bucket)
    assert (found.held_moved_since, found.released_moved, found.takes_times) == (None, 0, False)
    assert found.held_since == 4.5
    assert store.hget(redis_keys.bucket("bucket"), "held_moved") is None


def test_a_bucket_is_not_new_once_a_pass_of_this_generation_was_complete(states, bucket, store):
    store.hset(redis_keys.bucket("bucket"), "complete", "1")
    assert not states.open(bucket).is_first
    assert states.open(replace(bucket, generation=2)).is_first


@pytest.mark.parametrize(("written", "known"), [("1.5", 1.5), ("yesterday", None), (None, None)])
def test_when_the_older_monitor_scanned_is_known_until_the_first_pass_is_complete(
    states, bucket, store, written, known
):
    if written:
        store.set(redis_keys.last_scan("bucket"), written)
    taken_over = replace(bucket, taken_over=True)
    assert states.open(taken_over).older_scan_at == known
    assert states.open(bucket).older_scan_at is None
    store.hset(redis_keys.bucket("bucket"), "complete", "1")
    assert states.open(taken_over).older_scan_at is None


def test_a_scan_does_not_begin_with_what_was_known_before_its_claim(states, claim, bucket, store):
    assert states.open(bucket, claim).commit == 0
    store.hset(redis_keys.bucket("bucket"), "fence", claim.fence - 1)
    with pytest.raises(CommitOutOfStep):
        states.open(bucket, claim)
    store.hset(redis_keys.bucket("bucket"), "fence", claim.fence + 1)
    with pytest.raises(LeaseLost):
        states.open(bucket, claim)


@pytest.mark.parametrize("value", [None, b"", b"\x28\xb5\x2f\xfd broken"])
def test_a_segment_that_is_not_what_it_was_is_damage_not_an_empty_range(
    states, claim, bucket, store, value
):
    states.commit(claim, everything())
    key = redis_keys.segment("bucket", 1, "1-1")
    if value is None:
        store.delete(key)
    else:
        store.set(key, value)
    with pytest.raises(StateDamaged, match="bucket: a part of its state in Redis is missing or"):
        states.load(bucket, ["1-0", "1-1"])


def test_a_manifest_that_cannot_be_read_is_damage(states, claim, bucket, store):
    states.commit(claim, everything())
    store.hset(manifest(), "1-0", b"\xff")
    with pytest.raises(StateDamaged, match="runscan --full --repair"):
        states.open(bucket)


OLDER_STATES = {
    "whole": ('{"etag":"e","last_modified":1.5,"size":3,"last_processed":9}', 9.0),
    "no last_processed": ('{"etag":"e","last_modified":1.5,"size":3}', 0.0),
    "empty last_processed": (
        '{"etag":"e","last_modified":1.5,"size":3,"last_processed":null}',
        0.0,
    ),
    "text for numbers": ('{"etag":"e","last_modified":"1.5","size":"3"}', 0.0),
    "other numbers": ('{"etag":"e","last_modified":15E-1,"size":3.0,"last_processed":0}', 0.0),
    "other members": ('{"etag":"e","last_modified":1.5,"size":3,"last_seen":[{}]}', 0.0),
}


@pytest.mark.parametrize(("text", "processed"), OLDER_STATES.values(), ids=OLDER_STATES)
def test_states_of_the_older_monitor_are_read(states, bucket, store, text, processed):
    store.set(f"{STATE}key", text)
    expected = ObjectState("e", 1.5, 3, processed)
    assert states.older_states(bucket, ["none", "key"]) == [None, expected]


def test_an_older_state_without_its_size_is_known_all_the_same(states, bucket, store):
    store.set(f"{STATE}key", '{"etag":"e","last_modified":1.5}')
    assert states.older_states(bucket, ["key"]) == [ObjectState("e", 1.5, 0)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        "\xff",
        '{"etag":"e"}',
        '{"size":[]}',
        '{"etag":null,"last_modified":1.5,"size":3}',
        '{"etag":"\\ud800","last_modified":1.5,"size":3}',
        '{"etag":"e","last_modified":NaN,"size":3}',
        '{"etag":"e","last_modified":1e999,"size":3}',
        '{"etag":"e","last_modified":1.5,"size":Infinity}',
        '{"etag":"e","last_modified":1.5,"size":-1}',
        '{"etag":"e","last_modified":1.5,"size":9223372036854775808}',
    ],
)
def test_an_older_state_that_makes_no_sense_counts_as_none(states, bucket, store, text):
    store.set(f"{STATE}key", text.encode("latin-1"))
    assert states.older_states(bucket, ["key"]) == [None]
    assert states.older_states(bucket, []) == []
