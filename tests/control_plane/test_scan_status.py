"""How scans ended, brought from Redis into the database for the pages that show it."""

import time
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection

from buckets import selectors, services
from buckets.models import Bucket, Outbox
from buckets.sync import scan_status
from scanning import wiring
from scanning.core import redis_keys
from scanning.core.types import BucketStatus

pytestmark = pytest.mark.django_db(transaction=True)

SCANNED = {
    "scan_at": "1640995200.5",
    "duration_s": "1.250",
    "lag_s": "0.125",
    "objects": "4711",
    "changes": "3",
    "error": "",
    "error_class": "",
    "error_at": "",
}
FAILED = {
    "error": "media-in: Access denied",
    "error_class": "AccessDenied",
    "error_at": "1640995260.0",
    "next_scan_at": "1640995860.0",
}


@pytest.fixture
def bucket(store) -> Bucket:
    return services.add_bucket(name="media-in", region="us-iad-1", access_key="A", secret_key="S")


def scanned(store, name: str = "media-in", **fields: str) -> None:
    store.hset(redis_keys.bucket(name), mapping=fields)
    store.zadd(redis_keys.STATUS_CHANGES, {name: time.time()})


def test_a_complete_scan_fills_the_status_columns(store, bucket):
    assert selectors.state(bucket) is selectors.State.WAITING
    scanned(store, **SCANNED)

    assert scan_status.flush() == 1

    bucket.refresh_from_db()
    assert bucket.last_scan_at == datetime.fromtimestamp(1640995200.5, UTC)
    assert (bucket.last_scan_duration_s, bucket.last_lag_s) == (1.25, 0.125)
    assert (bucket.object_count, bucket.last_changes) == (4711, 3)
    assert (bucket.last_error, bucket.last_error_at) == ("", None)
    assert selectors.state(bucket) is selectors.State.WATCHED
    assert scan_status.flush() == 0


def test_a_failed_scan_keeps_what_the_last_complete_one_said(store, bucket):
    scanned(store, **SCANNED)
    scan_status.flush()
    scanned(store, **FAILED)
    scan_status.flush()

    bucket.refresh_from_db()
    assert bucket.last_error == "media-in: Access denied"
    assert bucket.last_error_class == "AccessDenied"
    assert bucket.last_error_at == datetime.fromtimestamp(1640995260, UTC)
    assert bucket.next_scan_at == datetime.fromtimestamp(1640995860, UTC)
    assert bucket.object_count == 4711
    assert selectors.state(bucket) is selectors.State.FAILING


def test_a_redis_that_was_emptied_does_not_take_the_last_scan_away(store, bucket):
    scanned(store, **SCANNED)
    scan_status.flush()
    store.flushall()
    scanned(store, **FAILED)

    scan_status.flush()

    bucket.refresh_from_db()
    assert bucket.object_count == 4711
    assert bucket.last_scan_at is not None


def test_nothing_else_is_written_and_nothing_is_mirrored(store, bucket, monkeypatch):
    """Somebody changes the bucket between the flush's read and its write."""
    version = wiring.background().bucket_configs.version()
    apply = scan_status._apply

    def change_meanwhile(row: Bucket, new: BucketStatus) -> None:
        Bucket.objects.update(polling_interval=9, updated_at=datetime(2030, 1, 1, tzinfo=UTC))
        apply(row, new)

    monkeypatch.setattr(scan_status, "_apply", change_meanwhile)
    scanned(store, **SCANNED)
    scan_status.flush()

    bucket.refresh_from_db()
    assert (bucket.object_count, bucket.polling_interval) == (4711, 9)
    assert bucket.updated_at.year == 2030
    assert wiring.background().bucket_configs.version() == version
    assert not Outbox.objects.exists()


def test_the_status_of_a_bucket_that_is_gone_is_dropped(store, bucket):
    scanned(store, **SCANNED)
    scanned(store, "gone", **SCANNED)

    assert scan_status.flush() == 2

    assert [b.name for b in Bucket.objects.all()] == ["media-in"]


def test_many_statuses_are_written_in_chunks(store, bucket, monkeypatch):
    monkeypatch.setattr(scan_status, "_CHUNK", 2)
    for number in range(5):
        services.add_bucket(name=f"bucket-{number}", region="r-1", credential=bucket.credential)
        scanned(store, f"bucket-{number}", **SCANNED)

    assert scan_status.flush() == 5

    assert Bucket.objects.filter(object_count=4711).count() == 5


def test_what_the_database_does_not_take_is_stored_later(store, bucket):
    scanned(store, **SCANNED)

    def fail(execute, sql: str, *arguments: Any) -> Any:
        if sql.startswith("UPDATE"):
            raise RuntimeError("the disk is full")
        return execute(sql, *arguments)

    with connection.execute_wrapper(fail), pytest.raises(RuntimeError):
        scan_status.flush()

    assert scan_status.flush() == 1
    bucket.refresh_from_db()
    assert bucket.object_count == 4711


def test_a_status_that_changes_while_it_is_stored_is_stored_again(store, bucket, monkeypatch):
    apply = scan_status._apply

    def scanned_meanwhile(row: Bucket, new: BucketStatus) -> None:
        monkeypatch.setattr(scan_status, "_apply", apply)
        scanned(store, **SCANNED | {"objects": "4712"})
        apply(row, new)

    monkeypatch.setattr(scan_status, "_apply", scanned_meanwhile)
    scanned(store, **SCANNED)
    assert scan_status.flush() == 1
    assert scan_status.flush() == 1
    bucket.refresh_from_db()
    assert bucket.object_count == 4712
