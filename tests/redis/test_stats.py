"""The documented `/metrics` object, from what all processes counted."""

import os
import time

import pytest

from scanning import engine, wiring
from scanning.adapters.redis.stats import ClientCacheReport
from scanning.core import redis_keys
from scanning.core.errors import RedisUnavailable
from tests.support import engine_buckets

NO_CLIENTS = {
    "cache_hits": 0,
    "cache_misses": 0,
    "evictions": 0,
    "unrecognised_bodies": 0,
    "total_clients": 0,
}


def report(**numbers: int) -> None:
    ClientCacheReport(wiring.background().connection).send(NO_CLIENTS | numbers)


def test_an_empty_installation_has_every_documented_member(store):
    assert engine.metrics() == {
        "scan_stats": {
            "total_scans": 0,
            "failed_scans": 0,
            "total_objects_scanned": 0,
            "total_new_objects": 0,
            "total_updated_objects": 0,
            "total_detected_objects": 0,
            "total_deleted_objects": 0,
            "errors": 0,
            "list_calls": 0,
            "segments_unchanged": 0,
            "segments_compared": 0,
            "wakeups": 0,
            "last_scan_time": None,
            "success_rate": 1.0,
        },
        "client_cache": NO_CLIENTS | {"vault_snapshot_age_s": None},
        "redis": {
            "queue_length": 0,
            "queue_name": "linode:notifications:queue",
            "queue_high_water": 1_000_000,
            "queue_full": False,
        },
        "sentinel": {"status": "disabled", "master": None, "slaves": [], "slave_count": 0},
        "buckets": {"total": 0, "scanned": 0},
    }


def test_scans_are_counted_with_their_share_of_success(store):
    for name in ("a", "b", "c", "d"):
        engine_buckets.schedule(store, engine_buckets.put(name))
    leases = wiring.background().leases
    for claim in leases.claim_due(engine_buckets.REGION, limit=3, slots=15):
        error = "no answer" if claim.bucket == "a" else ""
        leases.finish(claim, engine_buckets.result(claim.bucket, error=error), next_due=None)
    store.rpush("linode:notifications:queue", "{}", "{}")

    metrics = engine.metrics()

    scans = metrics["scan_stats"]
    assert (scans["total_scans"], scans["failed_scans"], scans["errors"]) == (3, 1, 1)
    assert scans["success_rate"] == pytest.approx(2 / 3)
    assert scans["last_scan_time"] == 1000.0
    assert metrics["buckets"] == {"total": 4, "scanned": 2}
    assert metrics["redis"]["queue_length"] == 2
    assert (scans["segments_unchanged"], scans["segments_compared"]) == (12, 6)


def test_a_queue_at_its_high_water_mark_is_shown_as_full(store, settings):
    queue_conf = settings.SCANNING.queue.model_copy(update={"high_water": 2})
    settings.SCANNING = settings.SCANNING.model_copy(update={"queue": queue_conf})
    store.rpush("linode:notifications:queue", "{}", "{}")
    assert engine.metrics()["redis"]["queue_full"]
    store.lpop("linode:notifications:queue")
    assert not engine.metrics()["redis"]["queue_full"]


def test_a_process_adds_what_is_new_since_it_last_told(store):
    one = ClientCacheReport(wiring.background().connection)
    one.send(NO_CLIENTS | {"cache_hits": 5, "evictions": 2, "total_clients": 2})
    said = NO_CLIENTS | {"cache_hits": 7, "evictions": 2, "total_clients": 3}
    one.send(said | {"unrecognised_bodies": 1})
    counted = said | {"unrecognised_bodies": 1, "vault_snapshot_age_s": None}
    assert engine.metrics()["client_cache"] == counted


def test_the_age_of_the_oldest_keys_in_any_process_is_shown(store):
    ClientCacheReport(wiring.background().connection).send(NO_CLIENTS, vault_age_s=30.0)
    now = time.time()
    store.hset(redis_keys.CLIENTS, "other:1", f"0:{now:.0f}:{now - 500:.0f}")
    store.hset(redis_keys.CLIENTS, "an-older-version:2", f"0:{now:.0f}")
    store.hset(redis_keys.CLIENTS, "gone:3", f"0:{now - 200:.0f}:{now - 9000:.0f}")
    age_s = engine.metrics()["client_cache"]["vault_snapshot_age_s"]
    assert age_s == pytest.approx(500, abs=60)


def test_what_could_not_be_told_is_told_later(store, redis_server, settings):
    one = ClientCacheReport(wiring.interactive().connection)
    redis_server.stop()
    with pytest.raises(RedisUnavailable):
        one.send(NO_CLIENTS | {"cache_hits": 5, "total_clients": 2})
    redis_server.start()
    one.send(NO_CLIENTS | {"cache_hits": 6, "total_clients": 2})
    assert engine.metrics()["client_cache"]["cache_hits"] == 6


def test_clients_of_living_processes_add_up_and_dead_ones_are_forgotten(store):
    now = time.time()
    store.hset(
        redis_keys.CLIENTS, mapping={"other:1": f"4:{now:.0f}", "dead:2": f"8:{now - 200:.0f}"}
    )
    assert engine.metrics()["client_cache"]["total_clients"] == 4
    report(total_clients=3)
    assert engine.metrics()["client_cache"]["total_clients"] == 7
    fields = store.hkeys(redis_keys.CLIENTS)
    assert len(fields) == 2
    assert {field.rsplit(":")[-1] for field in fields} == {"1", str(os.getpid())}


def test_without_redis_there_are_no_metrics(redis_server):
    redis_server.stop()
    with pytest.raises(RedisUnavailable, match="Redis does not answer"):
        engine.metrics()
