"""The rights that `docs/redis.md` lists are enough for all of bucketwatch."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bucketwatch.local.servers import LOOPBACK, RedisServer
from tests.support.notifications import queued
from tests.support.processes import ROOT
from tests.support.product import Product
from tests.support.servers import TestS3Server
from tests.support.waiting import eventually

PASSWORD = "only-for-this-test"


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[RedisServer]:
    """A server with the documented user."""
    page = (ROOT / "docs/redis.md").read_text(encoding="utf-8")
    [line] = re.findall(r"^ACL SETUSER .*$", page, flags=re.MULTILINE)
    server = RedisServer(tmp_path / "redis", appendonly=True)
    server.start()
    with server.client() as client:
        client.execute_command(*line.replace(">PASSWORD", f">{PASSWORD}").split())
    yield server
    server.stop()


@pytest.mark.processes
def test_the_documented_rights_are_enough(guarded, tmp_path: Path, s3_server: TestS3Server):
    url = f"redis://bucketwatch:{PASSWORD}@{LOOPBACK}:{guarded.port}/0"
    product = Product(tmp_path, redis_url=url)
    name = s3_server.bucket()
    s3_server.put(name, "key")
    with guarded.client() as client:
        try:
            product.wait_until_ready()
            product.add(name, s3_server)
            eventually(lambda: [event["key"] for event in queued(client)] == ["key"])
            product.manage("reconcile")
            product.call(f"services.delete_bucket(bucket=selectors.bucket_named({name!r}))")
            eventually(lambda: not client.keys(f"*{name}:*"))
            product.stop_and_wait()
        finally:
            product.clear_away()
        denied = [entry for entry in client.acl_log() if entry["username"] == "bucketwatch"]
    assert denied == []
    assert PASSWORD not in product.output()
    assert "Traceback" not in product.output()
