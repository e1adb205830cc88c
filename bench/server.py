"""A fast S3 server for listings, in a process of its own: `python -m bench.server --fd N`.

It answers ListObjectsV2 as a Ceph RGW would, from rows that were rendered before: it costs little
more than sending them. HEAD of the bucket tells its totals, at all ports but those of
``--silent``. What it shows is chosen through ``POST /control``, which takes the name of a version,
how many objects there are, and by how many milliseconds to delay each page. ``GET /requests`` says
how many came, by method and bucket.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import parse_qs, urlencode, urlsplit

from bench.objects import Rows, clustered, flat, make_rows, overwritten, scattered
from bucketwatch.local.servers import LOOPBACK, ServerProcess, listen

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_KEYS: Final = 1000
_HEAD: Final = (
    b'<?xml version="1.0" encoding="UTF-8"?>'
    b'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>bench</Name>'
    b"<Prefix></Prefix><MaxKeys>%d</MaxKeys><IsTruncated>%b</IsTruncated>%b<KeyCount>%d</KeyCount>"
    b"%b"
)
_TAIL: Final = b"</ListBucketResult>"
_ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n"


_TOTALS: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"
    b"x-rgw-object-count: %d\r\nx-rgw-bytes-used: %d\r\n\r\n"
)
_NO_TOTALS: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@dataclass(frozen=True)
class Shown:
    """What the server shows now."""

    rows: Rows
    count: int
    delay_s: float = 0.0


class Listings:
    """The versions of a bucket. ``changing`` objects at its start differ between versions."""

    def __init__(self, objects: int, changing: int) -> None:
        rows = make_rows(objects)
        first = rows if changing == objects else _start(rows, changing)
        self._versions = {
            "as is": rows,
            "scattered": overwritten(first, scattered(changing)),
            "clustered": overwritten(first, clustered(changing)),
            "flat": flat(first),
        }
        self.shown = Shown(rows, objects)
        self.requests: Counter[str] = Counter()

    def control(self, asked: Mapping[str, str]) -> None:
        rows = self._versions[asked["version"]]
        count = min(int(asked["objects"]), len(rows))
        self.shown = Shown(rows, count, float(asked["delay_ms"]) / 1000)

    def totals(self) -> bytes:
        """The answer to HEAD of the bucket, as Ceph RGW gives it."""
        shown = self.shown
        return _TOTALS % (shown.count, shown.rows.sizes[shown.count])

    def answer(self, asked: Mapping[str, str]) -> list[bytes | memoryview]:
        """The parts of one answer to ListObjectsV2."""
        shown = self.shown
        most = min(int(asked.get("max-keys", MOST_KEYS)), MOST_KEYS)
        after = asked.get("continuation-token") or asked.get("start-after") or ""
        first = min(shown.rows.after(after.encode()), shown.count) if after else 0
        end = min(first + most, shown.count)
        entries: bytes | memoryview = shown.rows.between(first, end)
        encoding = b"<EncodingType>url</EncodingType>"
        if asked.get("encoding-type") != "url":
            entries, encoding = bytes(entries).replace(b"%2F", b"/"), b""
        more = end < shown.count
        token = b""
        if more:
            token = shown.rows.key(end - 1).join(
                (b"<NextContinuationToken>", b"</NextContinuationToken>")
            )
        head = _HEAD % (most, b"true" if more else b"false", encoding, end - first, token)
        if shown.delay_s:
            time.sleep(shown.delay_s)
        length = len(head) + len(entries) + len(_TAIL)
        return [_ANSWER % length + head, entries, _TAIL]


def _start(rows: Rows, count: int) -> Rows:
    end = count + 1
    return Rows(rows.raw[: rows.starts[count]], rows.starts[:end], rows.sizes[:end])


def serve(listener: socket.socket, listings: Listings, *, tells_totals: bool) -> None:
    while True:
        client, _ = listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        arguments = (client, listings, tells_totals)
        threading.Thread(target=_talk, args=arguments, daemon=True).start()


def _talk(client: socket.socket, listings: Listings, tells_totals: bool) -> None:  # noqa: FBT001
    received = b""
    with client, suppress(OSError):
        while True:
            while b"\r\n\r\n" not in received:
                more = client.recv(65536)
                if not more:
                    return
                received += more
            request, received = received.split(b"\r\n\r\n", 1)
            method, target, _ = request.split(b" ", 2)
            url = urlsplit(target.decode())
            asked = {name: values[0] for name, values in parse_qs(url.query).items()}
            if url.path == "/control":
                listings.control(asked)
                client.sendall(_ANSWER % 0)
                continue
            if url.path == "/requests":
                body = json.dumps(listings.requests).encode()
                client.sendall(_ANSWER % len(body) + body)
                continue
            listings.requests[f"{method.decode()} {url.path[1:]}"] += 1
            if method == b"HEAD":
                client.sendall(listings.totals() if tells_totals else _NO_TOTALS)
            else:
                _send(client, listings.answer(asked))


def _send(client: socket.socket, parts: list[bytes | memoryview]) -> None:
    sent = client.sendmsg(parts)
    for part in parts:
        if sent < len(part):
            client.sendall(memoryview(part)[sent:])
        sent = max(0, sent - len(part))


class BenchServer:
    """The server's process, and what it is told."""

    def __init__(
        self, directory: Path, *, objects: int, changing: int, ports: int = 1, silent: int = 0
    ) -> None:
        self._directory, self._silent = directory, silent
        self._objects, self._changing = objects, changing
        self._child: ServerProcess | None = None
        self.ports = [0] * ports

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def port(self) -> int:
        return self.ports[0]

    def show(self, *, objects: int, version: str = "as is", delay_ms: int = 0) -> None:
        asked = {"version": version, "objects": objects, "delay_ms": delay_ms}
        self._ask("POST", "/control?" + urlencode(asked))

    def requests(self) -> Counter[str]:
        """How many requests came, by method and bucket."""
        return Counter(json.loads(self._ask("GET", "/requests")))

    def _ask(self, method: str, target: str) -> bytes:
        with closing(http.client.HTTPConnection(LOOPBACK, self.port, timeout=120)) as connection:
            connection.request(method, target)
            answer = connection.getresponse()
            if answer.status != http.client.OK:
                raise RuntimeError("the bench server does not do what it is told")
            return answer.read()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            listeners = [stack.enter_context(listen(0)) for _ in self.ports]
            self.ports = [listener.getsockname()[1] for listener in listeners]
            fds = [listener.fileno() for listener in listeners]
            command = [sys.executable, "-m", "bench.server", "--fd", *map(str, fds)]
            command += ["--objects", str(self._objects), "--changing", str(self._changing)]
            command += ["--silent", str(self._silent)]
            self._child = ServerProcess(
                command,
                log=self._directory / "s3.log",
                environ=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])},
                pass_fds=fds,
            )
        self.show(objects=self._objects)  # answered when all rows are rendered
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fd", type=int, nargs="+", required=True, help="listening sockets")
    parser.add_argument("--objects", type=int, required=True)
    parser.add_argument("--changing", type=int, required=True)
    parser.add_argument("--silent", type=int, default=0, help="so many, the last, tell no totals")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    listings = Listings(options.objects, options.changing)
    telling = len(options.fd) - options.silent
    servers = [
        threading.Thread(
            target=serve,
            args=(socket.socket(fileno=fd), listings),
            kwargs={"tells_totals": number < telling},
        )
        for number, fd in enumerate(options.fd)
    ]
    for server in servers:
        server.start()


if __name__ == "__main__":
    main()
