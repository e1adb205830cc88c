"""Every request that a server gets is counted once, whatever it was for and whatever came of it."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from itertools import count
from urllib.parse import parse_qs, urlsplit

import pytest
import redis

from scanning import engine, wiring
from scanning.adapters.s3.storage import S3ClientCache
from scanning.core.endpoints import endpoint_name
from scanning.core.metrics import counters
from scanning.core.request_costs import RequestKind
from scanning.core.types import BucketConfig, EventType, KeyPair, ScanResult
from scanning.runtime.bucket_scanner import BucketScanner
from tests.support import engine_buckets
from tests.support.canned_http import Answer, CannedServer, error
from tests.support.listing_bodies import XMLNS
from tests.support.servers import LOCAL
from tests.support.waiting import eventually

_names = count(1)


class SmallBucket(CannedServer):
    """Lists its keys, each under its ETag; the next ``failures`` requests are refused for now."""

    def __init__(self, *keys: str) -> None:
        super().__init__(Answer())
        self.keys = set(keys)
        self.failures = 0
        self.since = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.000Z}"

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        key = handler.path.partition("?")[0].rpartition("/")[2]
        if self.failures:
            self.failures -= 1
            self.answers = [error("SlowDown", status=503)]
        elif handler.command == "GET":
            self.answers = [Answer(body=self._listing(handler.path))]
        else:
            found = Answer(headers={"ETag": f'"{key}"', "Content-Type": "text/plain"})
            self.answers = [found if key in self.keys else Answer(404)]
        super()._answer(handler)

    def _listing(self, path: str) -> bytes:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}
        after = asked.get("continuation-token", asked.get("start-after", ""))
        keys = sorted(key for key in self.keys if key > after)
        page = keys[: int(asked["max-keys"])]
        rows = "".join(
            f"<Contents><Key>{key}</Key><LastModified>{self.since}</LastModified>"
            f"<ETag>&quot;{key}&quot;</ETag><Size>3</Size></Contents>"
            for key in page
        )
        more = "true" if len(page) < len(keys) else "false"
        token = f"<NextContinuationToken>{page[-1]}</NextContinuationToken>" if page else ""
        return (
            f'<ListBucketResult xmlns="{XMLNS}"><IsTruncated>{more}</IsTruncated>{token}'
            f"<EncodingType>url</EncodingType>{rows}</ListBucketResult>"
        ).encode()

    def received(self) -> Counter[str]:
        """Count the requests that came, by method."""
        return Counter(line.partition(" ")[0] for line in self.lines)


@pytest.fixture
def server() -> Iterator[SmallBucket]:
    with SmallBucket("a", "b", "c") as server:
        yield server


@pytest.fixture
def clients() -> Iterator[S3ClientCache]:
    cache = S3ClientCache(LOCAL)
    yield cache
    cache.clear_cache()


@pytest.fixture
def bucket(store: redis.Redis, server: SmallBucket) -> BucketConfig:
    name = f"counted-{next(_names)}"
    plain = engine_buckets.put(name, endpoint=server.url, probe_interval=0)
    events = frozenset(EventType)
    bucket = replace(plain, fetch_metadata=True, events=events, filter_fingerprint="")
    wiring.vault().write(bucket.credential, KeyPair("AKID", "secret"))
    return bucket


def scan(bucket: BucketConfig, clients: S3ClientCache) -> ScanResult:
    client, conf = wiring.background().connection.client, wiring.conf()
    scanner = BucketScanner(bucket, client, conf, None, clients)
    scanner.run()
    assert scanner.result is not None
    return scanner.result


def counted(bucket: BucketConfig) -> dict[RequestKind, int]:
    wiring.report_requests()
    telemetry, name = wiring.background().telemetry, endpoint_name(bucket.endpoint)
    sent = dict(telemetry.requests([bucket.name])[bucket.name].today)
    assert telemetry.endpoint_requests([name])[name].today == sent
    assert telemetry.all_requests_today()[name] == sent
    return sent


def test_a_scan_counts_its_listings_those_that_learn_the_endpoint_and_heads_for_metadata(
    bucket, server, clients
):
    assert scan(bucket, clients).counts.changes == 3
    received = server.received()
    assert received["GET"] > 1  # the endpoint was asked for its facts, too
    assert counted(bucket) == {RequestKind.LIST: received["GET"], RequestKind.METADATA: 3}
    assert received["HEAD"] == 3


def test_heads_that_ask_whether_missing_keys_are_gone_count_apart(bucket, server, clients, store):
    scan(bucket, clients)
    server.keys.remove("b")
    assert scan(bucket, clients).counts.deleted == 1
    sent = counted(bucket)
    assert sent[RequestKind.METADATA] == 3
    assert sent[RequestKind.WITNESS] == server.received()["HEAD"] - 3 == 2
    since_ever = store.hgetall("linode:objstore:bw:stats")
    assert {since_ever[field] for field in counters.REQUESTS.values() if field in since_ever} == {
        str(number) for number in sent.values()
    }


def test_retries_and_scans_that_fail_count_what_they_sent(bucket, server, clients):
    scan(bucket, clients)
    before = server.received()["GET"]
    server.failures = 1
    assert scan(bucket, clients).ok
    assert server.received()["GET"] == before + 2
    server.failures = 1_000_000
    assert not scan(bucket, clients).ok
    assert counted(bucket)[RequestKind.LIST] == server.received()["GET"] > before + 3


def test_a_request_for_somebody_in_front_of_a_page_counts(bucket, server):
    document = engine_buckets.document(bucket.name, endpoint=server.url)
    engine.first_keys(bucket.name, document, KeyPair("AKID", "secret"), limit=2)
    eventually(lambda: counted(bucket) == {RequestKind.LIST: server.received()["GET"]})


def test_what_was_sent_while_redis_is_away_is_counted_when_it_is_back(store, redis_server):
    limiter = wiring.interactive().endpoints.limiter_for("s3.example.com")
    with limiter.acquire("media-in", RequestKind.BUCKET):
        pass
    redis_server.stop()
    for _ in range(3):
        limiter.count_request("media-in", RequestKind.BUCKET)
        limiter.report_requests()
    redis_server.start()

    def is_counted() -> bool:
        wiring.report_requests()
        sent = wiring.background().telemetry.requests(["media-in"])
        return sent["media-in"].today == {RequestKind.BUCKET: 4}

    eventually(is_counted)
