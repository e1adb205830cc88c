"""Hints from the request to the queue: the whole product, and S3 over HTTP."""

import json
import urllib.request

import pytest
import redis

from tests.support.notifications import queued
from tests.support.product import Product
from tests.support.servers import TestS3Server
from tests.support.waiting import eventually

pytestmark = pytest.mark.processes

_A_TOKEN = """
from buckets.api import auth
client, _ = services.create_api_client(name="uploader", scope="hint")
print(auth.token_for(client))
"""


class Uploader:
    """Puts objects, and hints at keys."""

    def __init__(self, product: Product, s3: TestS3Server, bucket: str) -> None:
        self._url, self.bucket, self._s3 = f"{product.url}/api/v1/hints/", bucket, s3
        self._token = product.call(_A_TOKEN).strip()

    def put(self, *keys: str) -> None:
        for key in keys:
            self._s3.put(self.bucket, key)

    def hint(self, *keys: str) -> int:
        """Give hints; returns how many were accepted."""
        request = urllib.request.Request(
            self._url,
            json.dumps({"bucket": self.bucket, "keys": keys}).encode(),
            {"Authorization": f"Bearer {self._token}"},
        )
        with urllib.request.urlopen(request) as answer:
            return int(json.load(answer)["accepted"])


@pytest.fixture
def uploader(product, s3_server, store) -> Uploader:
    name = s3_server.bucket()
    s3_server.put(name, "first")
    product.add(name, s3_server, fetch_metadata=False, polling_interval=604_800)
    eventually(lambda: announced(store) == ["first"])
    return Uploader(product, s3_server, name)


def announced(store: redis.Redis) -> list[str]:
    return sorted(event["key"] for event in queued(store))


def test_a_hint_has_a_change_announced_although_no_pass_is_due_for_days(uploader, store):
    uploader.put("a/b c.mp4")
    assert uploader.hint("a/b c.mp4") == 1
    eventually(lambda: announced(store) == ["a/b c.mp4", "first"])


def test_forged_and_repeated_hints_announce_nothing(uploader, store):
    uploader.put("new")
    assert uploader.hint("first", "never there", "new") == 3
    assert uploader.hint("first", "never there", "new") == 3
    eventually(lambda: announced(store) == ["first", "new"])
    uploader.put("last")  # what was announced before it is all there was
    assert uploader.hint("never there", "last") == 2
    eventually(lambda: "last" in announced(store))
    assert announced(store) == ["first", "last", "new"]
