"""Clearing away what removed and re-pointed buckets left, however much, and nothing else."""

import pytest
import redis

from scanning import wiring
from scanning.adapters.redis import cleanup, connection
from scanning.core import redis_keys
from scanning.core.segments.model import Entry, Piece
from scanning.core.types import BucketConfig, ObjectState
from scanning.ports import Commit
from tests.support import engine_buckets
from tests.support.fakes import columns_of

STATE = "linode:objstore:state:"


def fill(bucket: BucketConfig, segments: int = 2) -> None:
    """Give a bucket segments, and a documented string each, as a scan does."""
    leases = wiring.background().leases
    claim = leases.claim(bucket, slots=15)
    assert claim is not None
    pieces, strings = [], {}
    for number in range(segments):
        columns = columns_of({f"key-{number:06}": ("etag", 1_700_000_000_000, 1)})
        pieces.append(Piece(Entry(f"1-{number:x}", columns.keys[-1], 1), columns))
        strings[columns.keys[0]] = ObjectState("etag", 1.7e9, 1)
    wiring.background().states.commit(
        claim, Commit(number=claim.commit + 1, pieces=pieces, strings=strings)
    )
    leases.release(claim)


def segments(store: redis.Redis, name: str, generation: int) -> set[str]:
    return {str(key) for key in store.scan_iter(f"{redis_keys.OURS}{name}:{generation}:*")}


def test_a_removed_bucket_leaves_nothing_behind(store):
    fill(engine_buckets.put("bucket"))
    engine_buckets.remove("bucket")
    assert segments(store, "bucket", 1)
    # two segments, their manifest, two strings
    assert wiring.background().cleanup.run() == 5
    assert [key for key in store.scan_iter() if "bucket" in key] == []
    assert not store.exists(redis_keys.CLEARING, redis_keys.GARBAGE)
    assert wiring.background().cleanup.run() == 0


def test_the_old_incarnation_goes_and_the_new_one_is_untouched(store):
    fill(engine_buckets.put("bucket", generation=1))
    fill(engine_buckets.put("bucket", generation=2))
    before = {key: store.type(key) for key in segments(store, "bucket", 2)}
    assert store.smembers(redis_keys.GARBAGE) == {"1 bucket"}

    assert wiring.background().cleanup.run() == 3

    assert segments(store, "bucket", 1) == set()
    assert {key: store.type(key) for key in segments(store, "bucket", 2)} == before
    assert len(before) == 3
    # The strings are the new one's too: they carry no generation.
    assert store.exists(f"{STATE}bucket:key-000001")


def test_a_bucket_removed_and_added_again_is_cleared_before_it_is_scanned(store):
    fill(engine_buckets.put("bucket", generation=1))
    engine_buckets.remove("bucket")
    again = engine_buckets.put("bucket", generation=2)
    assert wiring.background().leases.claim(again, slots=15) is None
    wiring.background().cleanup.run()
    fill(again)
    assert segments(store, "bucket", 1) == set()
    assert len(wiring.background().states.open(again).entries) == 2
    assert wiring.background().cleanup.run() == 0
    assert len(wiring.background().states.open(again).entries) == 2


def test_a_bucket_pointed_elsewhere_may_be_scanned_at_once(store):
    fill(engine_buckets.put("bucket", generation=1))
    moved = engine_buckets.put("bucket", generation=2, endpoint="elsewhere.example.com")
    assert list(wiring.background().states.open(moved).entries) == []
    assert wiring.background().leases.claim(moved, slots=15) is not None


@pytest.mark.parametrize("other", ["bucket-2", "bucket.2", "bucke", "other"])
def test_other_buckets_are_untouched(store, other):
    fill(engine_buckets.put("bucket"))
    fill(engine_buckets.put(other))
    before = {key for key in store.scan_iter() if f":{other}:" in str(key)}
    engine_buckets.remove("bucket")
    wiring.background().cleanup.run()
    assert {key for key in store.scan_iter() if f":{other}:" in str(key)} == before
    assert len(before) == 5


@pytest.mark.parametrize("prefix", ["state*:", "st?te:", "[s]tate:", "st\\ate:"])
def test_a_prefix_with_signs_of_patterns_is_taken_literally(store, settings, prefix):
    redis_conf = settings.SCANNING.redis.model_copy(update={"state_prefix": prefix})
    settings.SCANNING = settings.SCANNING.model_copy(update={"redis": redis_conf})
    engine_buckets.put("bucket")
    store.mset({f"{prefix}bucket:key": "{}", "state-of:bucket:key": "{}", "state:bucket:key": ""})
    engine_buckets.remove("bucket")
    assert wiring.background().cleanup.run() == 1
    assert store.exists("state-of:bucket:key", "state:bucket:key") == 2


def test_very_many_keys_go_in_batches_and_redis_is_never_asked_for_all_at_once(store, monkeypatch):
    monkeypatch.setattr(cleanup, "AT_ONCE", 50)
    monkeypatch.setattr(connection, "KEYS_AT_ONCE", 50)
    fill(engine_buckets.put("bucket"), segments=330)
    store.mset({f"{STATE}bucket:more-{number}": "{}" for number in range(1000)})
    engine_buckets.remove("bucket")
    store.config_resetstat()

    assert wiring.background().cleanup.run() == 330 + 1 + 330 + 1000

    asked = {name.removeprefix("cmdstat_"): said for name, said in commands(store).items()}
    assert "keys" not in asked
    assert asked["scan"]["calls"] > 20
    assert asked["unlink"]["calls"] >= 1660 / 100  # SCAN may give some more than asked for
    assert store.keys("*bucket*") == []


def test_buckets_removed_together_are_cleared_together_and_no_others(store):
    for name in ("bucket-1", "bucket-10", "bucket-2"):
        fill(engine_buckets.put(name))
    engine_buckets.remove("bucket-1")
    engine_buckets.remove("bucket-2")

    assert wiring.background().cleanup.run() == 10

    assert {key.split(":")[3] for key in store.scan_iter(f"{STATE}*")} == {"bucket-10"}
    assert not store.exists(redis_keys.CLEARING, redis_keys.GARBAGE)


def test_clearing_that_was_interrupted_goes_on(store, monkeypatch):
    monkeypatch.setattr(cleanup, "AT_ONCE", 10)
    monkeypatch.setattr(connection, "KEYS_AT_ONCE", 10)
    fill(engine_buckets.put("bucket"), segments=35)
    engine_buckets.remove("bucket")
    job = wiring.background().cleanup
    unlink, calls = job._unlink, []

    def killed(names: list[str]) -> int:
        calls.append(names)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return unlink(names)

    with monkeypatch.context() as patch:
        patch.setattr(job, "_unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            job.run()
    assert store.smembers(redis_keys.GARBAGE) == {"1 bucket"}
    assert len(segments(store, "bucket", 1)) == 16
    job.run()
    assert [key for key in store.scan_iter() if "bucket" in key] == []


def test_a_scan_of_the_old_incarnation_can_write_nothing_into_what_is_cleared(store):
    bucket = engine_buckets.put("bucket", generation=1)
    claim = wiring.background().leases.claim(bucket, slots=15)
    assert claim is not None
    engine_buckets.put("bucket", generation=2)
    wiring.background().cleanup.run()
    before = engine_buckets.dump(store)
    columns = columns_of({"key": ("etag", 1, 1)})
    with pytest.raises(Exception, match="removed or changed while it was being scanned"):
        wiring.background().states.commit(
            claim, Commit(number=1, pieces=[Piece(Entry("1-0", "key", 1), columns)])
        )
    assert engine_buckets.dump(store) == before


def commands(store: redis.Redis) -> dict[str, dict[str, int]]:
    return dict(store.info("commandstats"))
