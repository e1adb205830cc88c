"""`scanning/adapters/s3/connections.py`: what goes over the wire, and when a connection is kept."""

import select
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest
from botocore.awsrequest import AWSRequest

from scanning.adapters.s3 import connections
from scanning.adapters.s3.connections import _is_dropped, _written
from scanning.adapters.s3.errors import AnswerTooSlow
from scanning.adapters.s3.storage import S3ClientCache, S3Storage
from scanning.core.errors import StorageUnavailable
from scanning.core.listing.body import UnreadableListing
from scanning.core.types import BucketConfig, KeyPair, ObjectMetadata
from scanning.pacing.limiter import UnlimitedEndpoint
from tests.support.canned_http import Answer, CannedServer
from tests.support.listing_bodies import Row, rgw
from tests.support.servers import LOCAL
from tests.support.waiting import eventually

BODY = rgw([Row("a")])


class RecordingLimiter(UnlimitedEndpoint):
    """Remembers what was recorded of its endpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.recorded: list[str] = []

    def record_answer(self) -> None:
        self.recorded.append("answered")

    def record_failure(self, bucket: str, why: str, *, timed_out: bool) -> None:
        self.recorded.append("timed out" if timed_out else "unanswered")


@pytest.fixture
def cache():
    cache = S3ClientCache(LOCAL)
    yield cache
    cache.clear_cache()


@contextmanager
def raw_server(*answers: bytes) -> Iterator[str]:
    """Sends each answer to a connection of its own, then closes it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for answer in answers:
                client, _ = listener.accept()
                with client:
                    client.recv(65536)
                    client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10)


def lines(url: str, **headers: str) -> list[bytes]:
    request = AWSRequest("GET", url, headers=headers).prepare()
    return _written(request).split(b"\r\n")


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://s3.example/b?x=1", b"s3.example"),
        ("http://s3.example:80/b?x=1", b"s3.example"),
        ("https://s3.example:443/b?x=1", b"s3.example"),
        ("https://s3.example:80/b?x=1", b"s3.example:80"),
        ("http://127.0.0.1:9000/b?x=1", b"127.0.0.1:9000"),
        ("http://[::1]:9000/b?x=1", b"[::1]:9000"),
    ],
)
def test_a_request_names_the_host_that_was_signed(url, host):
    assert lines(url, Accept="x") == [
        b"GET /b?x=1 HTTP/1.1",
        b"Host: " + host,
        b"Accept-Encoding: identity",
        b"Accept: x",
        b"",
        b"",
    ]


def test_a_header_cannot_bring_another_with_it():
    request = AWSRequest("GET", "http://s3.example/b").prepare()
    request.headers["x-one"] = "1\r\nx-two: 2"
    with pytest.raises(ValueError, match="line break"):
        _written(request)


def test_an_answer_in_chunks_is_read_whole(cache):
    half = len(BODY) // 2
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in (BODY[:half], BODY[half:]))
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    with raw_server(answer) as url:
        cache.get_client(url, "a", "s").list_objects_v2(Bucket="photos")
    assert cache.parser.unrecognised == 0


def test_an_answer_that_ends_with_the_connection_is_read_whole(cache):
    with raw_server(b"HTTP/1.0 200 OK\r\n\r\n" + BODY) as url:
        cache.get_client(url, "a", "s").list_objects_v2(Bucket="photos")
    assert cache.parser.unrecognised == 0


@contextmanager
def trickling_server(begin: bytes) -> Iterator[str]:
    """Sends what it begins with, then a byte now and then for as long as anybody reads."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client, suppress(OSError):
                client.recv(65536)
                client.sendall(begin)
                while not select.select([client], [], [], 0.01)[0]:
                    client.sendall(b"x")

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    "begin",
    [
        b"HTTP/1.1 200 OK\r\nx-slow: ",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
    ],
    ids=["headers", "body of known length", "body until the end"],
)
def test_an_answer_that_comes_byte_by_byte_is_not_waited_for_for_ever(cache, monkeypatch, begin):
    """Each byte comes in time, so the read time-out never ends it."""
    monkeypatch.setattr(connections, "LONGEST_ANSWER_S", -LOCAL.storage.read_timeout)
    with trickling_server(begin) as url, ThreadPoolExecutor() as pool:
        client = cache.get_client(url, "a", "s")
        asking = pool.submit(client.list_objects_v2, Bucket="photos")
        eventually(lambda: cache.end_overdue() or asking.done())
        with pytest.raises(AnswerTooSlow):
            asking.result()


def test_an_answer_that_is_broken_off_for_its_slowness_is_silence(cache, monkeypatch):
    """So that the endpoint's buckets are parked, and do not take its region's slots again."""
    monkeypatch.setattr(connections, "LONGEST_ANSWER_S", -LOCAL.storage.read_timeout)
    cache.attempts = 1
    limiter = RecordingLimiter()
    begin = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"
    with trickling_server(begin) as url, ThreadPoolExecutor() as pool:
        bucket = BucketConfig("photos", url, "r", "C")
        slow = S3Storage(cache, bucket, KeyPair("a", "s"), limiter=limiter)
        asking = pool.submit(slow.page, "", 1)
        eventually(lambda: cache.end_overdue() or asking.done())
        with pytest.raises(StorageUnavailable, match="the answer came too slowly"):
            asking.result()
    assert limiter.recorded == ["timed out"]


def test_an_answer_that_is_larger_than_any_listing_is_cut_off(cache, monkeypatch):
    """An endpoint may be anything: a film, or a stream that never ends."""
    monkeypatch.setattr(connections, "MOST_BYTES", len(BODY) - 1)
    with CannedServer(Answer(200, BODY)) as server, pytest.raises(UnreadableListing):
        cache.get_client(server.url, "a", "s").list_objects_v2(Bucket="photos")
    [endpoint] = cache._connections._hosts.values()
    assert not endpoint._idle


def test_a_server_that_closes_is_connected_to_again(cache):
    closing = Answer(200, BODY, {"Connection": "close"})
    with CannedServer(closing) as server:
        client = cache.get_client(server.url, "a", "s")
        client.list_objects_v2(Bucket="photos")
        client.list_objects_v2(Bucket="photos")
        assert len(server.peers) == 2


def test_a_connection_that_the_server_dropped_is_not_used_again(cache):
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
    with raw_server(answer, answer) as url:  # it closes although it did not say so
        client = cache.get_client(url, "a", "s")
        client.list_objects_v2(Bucket="photos")
        [endpoint] = cache._connections._hosts.values()
        eventually(lambda: _is_dropped(endpoint._idle[-1]))
        client.list_objects_v2(Bucket="photos")


def head_of(cache: S3ClientCache, *headers: bytes, limiter: RecordingLimiter | None = None):
    """What HEAD says of an object that a server describes with these headers."""
    lines = [b"HTTP/1.1 200 OK", b"Connection: close", b'ETag: "e"', *headers, b"", b""]
    with raw_server(b"\r\n".join(lines)) as url:
        bucket = BucketConfig("photos", url, "r", "C")
        cache.attempts = 1
        return S3Storage(
            cache, bucket, KeyPair("a", "s"), limiter=limiter or RecordingLimiter()
        ).head("k")


HEADERS = {
    "UTF-8": ("Grüße  an alle".encode(), "Grüße  an alle"),
    "Latin-1": ("Grüße".encode("latin-1"), "Grüße"),
    "base64": (b"=?UTF-8?B?R3LDvMOfZQ==?=", "Grüße"),
    "quoted": (b"=?UTF-8?Q?Gr=C3=BC=C3=9Fe?= =?UTF-8?Q?_an_alle?=", "Grüße an alle"),
    "no character set": (b"=?no-charset?Q?a?=", "=?no-charset?Q?a?="),
    "no base64": (b"=?UTF-8?B?A?=", "=?UTF-8?B?A?="),
    "no encoded word": (b"1 =? 2", "1 =? 2"),
    "long": (b"=?" * 30_000, "=?" * 30_000),
    "folded": (b"one\r\n  two", "one two"),
    "empty": (b"", ""),
}


@pytest.mark.parametrize(("raw", "text"), HEADERS.values(), ids=HEADERS)
def test_user_metadata_arrives_as_it_was_written(cache, raw, text):
    found = head_of(cache, b"X-Amz-Meta-Note: " + raw, b"Content-Type: text/plain")
    assert found == ObjectMetadata("e", "text/plain", {"Note": text})


def test_more_user_metadata_than_http_clients_take_headers_is_read(cache):
    headers = [b"x-amz-meta-n%d: %d" % (n, n) for n in range(150)]
    found = head_of(cache, *headers, b"Content-Type: text/plain")
    assert found.metadata == {f"n{n}": f"{n}" for n in range(150)}
    assert found.content_type == "text/plain"


@pytest.mark.parametrize(
    "headers",
    [
        [b"x-n%d: 1" % n for n in range(150)],
        [b"x-amz-meta-n%d: %b" % (n, b"x" * 60_000) for n in range(2)],
        [b"x-long: " + b"x" * 70_000],
    ],
    ids=["many headers", "much metadata", "a long header"],
)
def test_a_head_that_cannot_be_read_is_an_answer_all_the_same(cache, headers):
    limiter = RecordingLimiter()
    with pytest.raises(StorageUnavailable, match="the answer cannot be read"):
        head_of(cache, *headers, limiter=limiter)
    assert limiter.recorded == ["answered"]


def test_a_header_that_comes_twice_is_one_with_a_comma(cache):
    answer = (
        b"HTTP/1.1 200 OK\r\nx-amz-meta-a: 1\r\nx-amz-meta-a: 2\r\nContent-Length: 0\r\n"
        b"Connection: close\r\n\r\n"
    )
    with raw_server(answer) as url:
        client = cache.get_client(url, "a", "s")
        assert client.head_object(Bucket="photos", Key="k")["Metadata"] == {"a": "1, 2"}
