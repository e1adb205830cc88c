"""The whole product on a Ceph gateway whose buckets change all the time, judged by a journal."""

import hashlib
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from scanning import engine
from scanning.core import redis_keys
from scanning.core.endpoints import endpoint_name
from tests.ceph.nasty_keys import KEYS
from tests.chaos.model import Place, State, Version
from tests.chaos.oracle import judge
from tests.support.ceph import CephAccount, CephGateway
from tests.support.notifications import queued
from tests.support.product import Product
from tests.support.waiting import eventually

pytestmark = [pytest.mark.ceph, pytest.mark.processes]

WRITERS = 4
KEYS_A_WRITER = 60


class Journal:
    """What some writers did to some buckets; each key has one writer, so its states are in order.

    Times are S3's own business: all are 0 here.
    """

    def __init__(self) -> None:
        self.histories: defaultdict[Place, list[State]] = defaultdict(list)
        self.changed_at = 0.0

    def violations(self, announced: list[dict[str, Any]]) -> list[str]:
        timeless = [said | {"last_modified": 0} for said in announced]
        for said in timeless:
            if "previous" in said:
                said["previous"] = said["previous"] | {"last_modified": 0}
        return [str(found) for found in judge(timeless, self.histories, set()).violations]


class Writer(threading.Thread):
    """Creates, overwrites and deletes the keys that are its own, in one request or in parts."""

    def __init__(
        self,
        account: CephAccount,
        buckets: list[str],
        journal: Journal,
        *,
        number: int,
        seconds: float,
    ) -> None:
        super().__init__(name=f"writer-{number}", daemon=True)
        self._s3, self._buckets, self._journal = account.client(), buckets, journal
        self._dice = random.Random(number)  # noqa: S311 - the same changes in every run
        self._keys = [f"{key[:200]} {number}.{n}" for n, key in enumerate(KEYS[:KEYS_A_WRITER])]
        self._until = time.monotonic() + seconds
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            while time.monotonic() < self._until:
                self._change(self._dice.choice(self._buckets), self._dice.choice(self._keys))
                time.sleep(0.05)  # what is to be tested needs some of the machine, too
        except Exception as exc:  # noqa: BLE001 - raised by the test
            self.failure = exc

    def _change(self, bucket: str, key: str) -> None:
        history = self._journal.histories[bucket, key]
        if history and history[-1] and self._dice.random() < 0.3:
            self._s3.delete_object(Bucket=bucket, Key=key)
            history.append(None)
        else:
            body = self._dice.randbytes(self._dice.randrange(1, 2000))
            # Of keys that XML cannot hold, this gateway takes no uploads in parts.
            in_parts = key.isprintable() and self._dice.random() < 0.1
            write = self._put_in_parts if in_parts else self._put
            history.append(Version(write(bucket, key, body), 0, len(body)))
        self._journal.changed_at = time.time()

    def _put(self, bucket: str, key: str, body: bytes) -> str:
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
        self._s3.put_object(Bucket=bucket, Key=key, Body=body, Metadata={"etag": etag})
        return etag

    def _put_in_parts(self, bucket: str, key: str, body: bytes) -> str:
        digest = hashlib.md5(body, usedforsecurity=False).digest()
        etag = f"{hashlib.md5(digest, usedforsecurity=False).hexdigest()}-1"
        where: dict[str, Any] = {"Bucket": bucket, "Key": key}
        upload = self._s3.create_multipart_upload(**where, Metadata={"etag": etag})["UploadId"]
        where["UploadId"] = upload
        part = self._s3.upload_part(**where, PartNumber=1, Body=body)["ETag"]
        parts: Any = {"Parts": [{"PartNumber": 1, "ETag": part}]}
        self._s3.complete_multipart_upload(**where, MultipartUpload=parts)
        return etag


def write(account: CephAccount, buckets: list[str], *, seconds: float) -> Journal:
    journal = Journal()
    writers = [
        Writer(account, buckets, journal, number=number, seconds=seconds)
        for number in range(WRITERS)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        if writer.failure:
            raise writer.failure
    return journal


@pytest.fixture
def watch(product: Product) -> Callable[..., None]:
    def watch(account: CephAccount, buckets: list[str], **chosen: object) -> None:
        options = {
            "endpoint": account.url,
            "region": endpoint_name(account.url),
            "access_key": account.access_key,
            "secret_key": account.secret_key,
            "announce_deleted": True,
            **chosen,
        }
        product.call(f"[services.add_bucket(name=name, **{options!r}) for name in {buckets!r}]")

    return watch


def wait_until_scanned(store: redis.Redis, buckets: list[str], after: float) -> None:
    """Wait until each bucket had a complete scan that began after that."""

    def scanned() -> bool:
        ends = [float(store.get(redis_keys.last_scan(name)) or 0) for name in buckets]
        return min(ends) > after

    eventually(scanned, 120)


def test_what_a_consumer_reads_is_what_the_writers_did(owner, watch, store):
    buckets = [owner.bucket() for _ in range(4)]
    watch(owner, buckets)
    journal = write(owner, buckets, seconds=45)
    wait_until_scanned(store, buckets, journal.changed_at)
    announced = queued(store)
    assert journal.violations(announced) == []
    assert len(announced) > 100
    assert any(said["metadata"] for said in announced)


def test_what_changes_in_a_bucket_that_is_passed_over_once_an_hour_is_found_by_its_totals(
    owner, watch, store
):
    """At the latest by the pass that a look asks for which does not find all that changed."""
    name = owner.bucket()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: owner.put(name, f"{n:03}"), range(300)))
    watch(owner, [name], polling_interval=3600, probe_interval=1)
    wait_until_scanned(store, [name], after=0)
    owner.put(name, "new", b"12345")
    owner.put(name, "100", b"12345")
    owner.client().delete_object(Bucket=name, Key="200")

    def found() -> bool:
        said = [(event["event_type"], event["key"]) for event in queued(store)[300:]]
        assert sorted(said) == [("created", "new"), ("deleted", "200"), ("updated", "100")]
        return True

    eventually(found, 150)


def test_a_gateway_that_throttles_is_asked_slower_then_faster_and_nothing_is_lost(
    gateway: CephGateway, owner, watch, store
):
    def rate() -> float:
        """Tell how many LISTs a second the gateway may be sent; 0 while it is not held back."""
        loads = {load.endpoint: load for load in engine.endpoint_loads()}
        load = loads.get(endpoint_name(throttling.url))
        return load.list_per_s if load else 0.0

    buckets = [owner.bucket() for _ in range(4)]
    with gateway.throttling(owner, most_at_once=2) as throttling:
        watch(throttling, buckets)
        journal = write(owner, buckets, seconds=15)
        eventually(rate)  # it throttled
        wait_until_scanned(store, buckets, journal.changed_at)
        announced = queued(store)
        assert journal.violations(announced) == []
        assert len(announced) > 100

        slowed = rate()
        eventually(lambda: rate() > slowed or rate() == 0, 120)
