"""Servers whose listings leave out what is there, scanned over real HTTP: nothing is deleted."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from scanning.adapters.s3.storage import S3ClientCache, S3Storage
from scanning.core.changes import Version
from scanning.core.deletions import Confirm, HeadAnswer
from scanning.core.errors import BucketwatchError, StorageUnavailable
from scanning.core.scan_warnings import WarningKind
from scanning.core.types import BucketConfig, KeyPair
from tests.support.fakes import Site
from tests.support.listing_bodies import Row, rgw
from tests.support.servers import LOCAL
from tests.support.sites import announced, site

SECONDS = 1_714_566_896  # when each object was written; rows say it with milliseconds


class Server:
    """An S3 server that tells the truth; ``keys`` in the order in which it lists them."""

    knows: ClassVar[list[str]] = [f"k{number:03d}" for number in range(100)]
    pages_of: ClassVar[int] = 10

    def __init__(self) -> None:
        self.keys = list(self.knows)
        self.refuses_head = False
        self.heads: list[str] = []
        self.lies = False

    def list_after(self, after: str) -> bytes:
        return self.page([key for key in self.keys if key > after])

    def page(self, keys: list[str], *, more: bool | None = None, extra: str = "") -> bytes:
        is_truncated = len(keys) > self.pages_of if more is None else more
        body = rgw([row(key) for key in keys[: self.pages_of]], is_truncated=is_truncated)
        return body.replace(b"</ListBucketResult>", f"{extra}</ListBucketResult>".encode())

    def head(self, key: str) -> int:
        self.heads.append(key)
        if self.refuses_head:
            return 403
        return 200 if key in self.keys else 404


def row(key: str) -> Row:
    return Row(key, last_modified="2024-05-01T12:34:56.789Z")


class SendsCommonPrefixes(Server):
    """Shows a folder in the place of its objects, although no delimiter was asked for."""

    knows: ClassVar[list[str]] = ["a", "b", *(f"d/{number}" for number in range(10))]
    pages_of = 1000

    def list_after(self, after: str) -> bytes:
        if not self.lies:
            return super().list_after(after)
        prefixes = "<CommonPrefixes><Prefix>d/</Prefix></CommonPrefixes>"
        return self.page(["a", "b"], extra=prefixes)


class EndsEarly(Server):
    """Says on the second of three pages that it is the last."""

    pages_of = 34

    def list_after(self, after: str) -> bytes:
        keys = [key for key in self.keys if key > after]
        return self.page(keys, more=False if self.lies and after else None)


class CannotGoOnAfterWhatIsGone(Server):
    """Answers an empty last page after a key that was deleted meanwhile."""

    def list_after(self, after: str) -> bytes:
        if self.lies and "k009" in self.keys and after == "k009":
            self.keys.remove("k009")
        if after and after not in self.keys:
            return self.page([])
        return super().list_after(after)


class OrdersOtherwise(Server):
    """Shows keys in an order of its own, and goes on by bytes: a key is on no page."""

    knows: ClassVar[list[str]] = ["a", "obj+", "obj/", "obj1"]
    pages_of = 2

    def list_after(self, after: str) -> bytes:
        if not self.lies:
            return super().list_after(after)
        return self.page(["a", "obj/"], more=True) if not after else self.page(["obj1"])


class LeavesOutEverySecondPage(Server):
    def list_after(self, after: str) -> bytes:
        keys = [key for key in self.keys if key > after]
        return self.page(keys[10 if self.lies and after else 0 :])


class ShowsNothing(Server):
    def list_after(self, after: str) -> bytes:
        return self.page([]) if self.lies else super().list_after(after)


LIARS = [
    SendsCommonPrefixes,
    EndsEarly,
    CannotGoOnAfterWhatIsGone,
    OrdersOtherwise,
    LeavesOutEverySecondPage,
    ShowsNothing,
]


@contextmanager
def serving(server: Server) -> Iterator[S3Storage]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
            body = server.list_after(query.get("start-after", [""])[0])
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_HEAD(self) -> None:
            key = unquote(urlsplit(self.path).path).partition("/photos/")[2]
            self.send_response(server.head(key))
            self.send_header("ETag", f'"{row(key).etag}"')
            self.send_header("Last-Modified", formatdate(SECONDS, usegmt=True))
            self.send_header("Content-Length", str(row(key).size))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.daemon_threads = True
        thread = threading.Thread(target=partial(httpd.serve_forever, 0.02), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{httpd.server_address[1]}"
        cache = S3ClientCache(LOCAL, attempts=1)
        bucket = BucketConfig("photos", url, "r", "C")
        yield S3Storage(cache, bucket, KeyPair("AKID", "secret"))
        cache.clear_cache()
        httpd.shutdown()
        thread.join()


def scan(here: Site, storage: S3Storage) -> list[tuple[str, str]]:
    """Scan as often as it takes to complete a pass, or until the listing is refused."""
    try:
        while not here.scan(storage).complete:
            pass
    except StorageUnavailable:
        pass
    return announced(here)


@pytest.mark.parametrize("refuses_head", [False, True], ids=["HEAD answers", "HEAD is refused"])
@pytest.mark.parametrize("liar", LIARS)
def test_what_a_server_leaves_out_of_a_listing_is_not_deleted(liar, refuses_head):
    server, here = liar(), site(page_size=liar.pages_of)
    server.refuses_head = refuses_head
    with serving(server) as storage:
        scan(here, storage)
        server.lies = True
        assert scan(here, storage) == []
        here.now += here.settings.interval_s
        server.lies = False
        truth = scan(here, storage)
    gone = set(server.knows) - set(server.keys)
    assert truth == ([] if refuses_head else [("deleted", key) for key in sorted(gone)])


def test_without_a_witness_the_same_servers_would_delete():
    """Or the table above would show nothing."""
    server, here = EndsEarly(), site(page_size=34, confirm=Confirm.NONE)
    with serving(server) as storage:
        scan(here, storage)
        server.lies = True
        assert len(scan(here, storage)) == 100 - 68


def test_a_bucket_says_what_its_server_left_out():
    server, here = EndsEarly(), site(page_size=34)
    with serving(server) as storage:
        scan(here, storage)
        server.lies = True
        [warning] = here.scan(storage).warnings
    assert (warning.kind, warning.count) == (WarningKind.CONTRADICTED_ABSENCE, 100 - 68)
    assert warning.examples[0] == "k068"
    assert len(server.heads) == 1 + 100 - 68


ANSWERS: list[tuple[int, Version | HeadAnswer | type[BucketwatchError]]] = [
    (200, (row("k").etag, float(SECONDS), 3)),
    (404, HeadAnswer.GONE),
    (403, HeadAnswer.REFUSED),
    (401, HeadAnswer.REFUSED),
    (405, HeadAnswer.REFUSED),
    (501, HeadAnswer.REFUSED),
    (429, BucketwatchError),
    (500, BucketwatchError),
    (503, BucketwatchError),
    (400, BucketwatchError),
]


@pytest.mark.parametrize(
    ("status", "expected"), ANSWERS, ids=[str(status) for status, _ in ANSWERS]
)
def test_what_head_says_of_a_key(status, expected):
    server = Server()
    server.head = lambda key: status  # type: ignore[method-assign]
    with serving(server) as storage:
        if isinstance(expected, type):
            with pytest.raises(expected):
                storage.look_up("a b/ü")
        else:
            assert storage.look_up("a b/ü") == expected
