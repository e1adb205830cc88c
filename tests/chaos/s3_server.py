"""The S3 server of the chaos runs, in a process of its own: `python -m tests.chaos.s3_server`.

It answers ListObjectsV2 and HEAD, at several ports as several endpoints, each with faults of its
own. All endpoints show the same buckets, in listings that may be some seconds late. What they show,
and what goes wrong, comes as JSON in ``POST /-/…`` to any of them.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import signal
import socket
import struct
import sys
import threading
import time
from collections import defaultdict
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import parse_qs, unquote, urlsplit

from bucketwatch.local.servers import LOOPBACK, ServerProcess, listen
from tests.chaos.s3_faults import Answer, Dice, error, zipped
from tests.chaos.s3_objects import (
    AFTER_ALL,
    MOST_KEYS,
    STYLES,
    Bucket,
    Change,
    Page,
    key_of,
    token_after,
)
from tests.support.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_CONTROL: Final = "/-/"
_REASONS: Final = http.client.responses
_RESET: Final = struct.pack("ii", 1, 0)
_DRIP_PAUSE_S: Final = 0.2


class Shown:
    """The buckets, what ever changed in them, and a record of who asked for what."""

    def __init__(self) -> None:
        self.buckets: dict[str, Bucket] = {}
        self.changes: list[tuple[float, Change]] = []
        self.lists: list[tuple[float, str]] = []
        self.heads: list[tuple[float, str]] = []

    def change(self, changes: Sequence[Mapping[str, Any]]) -> None:
        for given in changes:
            change = Change(**given)
            self.buckets.setdefault(change.bucket, Bucket()).change(change)
            self.changes.append((time.monotonic(), change))


class Late:
    """The buckets as a node lists them to which changes come late; it never goes back in time."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self._buckets: dict[str, Bucket] = {}
        self._taken = 0
        self._lock = threading.Lock()

    def bucket(self, name: str, *, lag_s: float) -> Bucket:
        until = time.monotonic() - lag_s
        changes = self._shown.changes
        with self._lock:
            while self._taken < len(changes) and changes[self._taken][0] <= until:
                change = changes[self._taken][1]
                self._buckets.setdefault(change.bucket, Bucket()).change(change)
                self._taken += 1
            return self._buckets.setdefault(name, Bucket())


class Endpoint:
    """One port: its faults, how long each answer takes there, and how late its listings are."""

    def __init__(self, shown: Shown, seed: str) -> None:
        self.shown = shown
        self.dice = Dice(random.Random(seed))  # noqa: S311
        self.list_s = self.head_s = self.lag_s = 0.0
        self._late = Late(shown)
        self.tells_totals = False

    def answer(self, method: str, target: str) -> Answer:
        url = urlsplit(target)
        name, _, key = unquote(url.path.lstrip("/")).partition("/")
        bucket = self.shown.buckets.get(name)
        if bucket is None:
            right = error(404, "NoSuchBucket")
        elif method == "HEAD" and not key:
            right = self._head_of_bucket(name, bucket)
        elif method == "HEAD":
            right = _head(bucket, key, lie=self.dice.head())
        elif method == "GET" and not key:
            self.shown.lists.append((time.time(), name))
            there = self._late.bucket(name, lag_s=self.lag_s)
            right = self._listing(there, parse_qs(url.query, keep_blank_values=True))
        else:
            right = error(501, "NotImplemented")
        delay_s = self.head_s if method == "HEAD" else self.list_s
        return self.dice.spoil(replace(right, delay_s=delay_s))

    def _head_of_bucket(self, name: str, bucket: Bucket) -> Answer:
        self.shown.heads.append((time.time(), name))
        if not self.tells_totals:
            return Answer(200, b"")
        objects, size_bytes = self.dice.totals(*bucket.totals())
        return Answer(
            200,
            b"",
            (("x-rgw-object-count", str(objects)), ("x-rgw-bytes-used", str(size_bytes))),
        )

    def _listing(self, bucket: Bucket, query: Mapping[str, list[str]]) -> Answer:
        asked = {name: values[0] for name, values in query.items()}
        if asked.get("list-type") != "2" or asked.get("encoding-type") != "url":
            return error(400, "InvalidArgument")
        token, start_after = asked.get("continuation-token", ""), asked.get("start-after", "")
        page = Page(
            prefix=asked.get("prefix", ""),
            after=key_of(token) if token else start_after,
            most=min(int(asked.get("max-keys", MOST_KEYS)), MOST_KEYS),
        )
        shape = self.dice.shape()
        if shape == "empty_page":
            return Answer(200, _empty_page(page.after))
        style = self.dice.below(len(STYLES)) if shape == "other_style" else 0
        page = self._taken_as(page, shape, begins=not token)
        if page.after and bucket.get(page.after) is None and self.dice.loses_place():
            page = replace(page, after=AFTER_ALL)
        body = bucket.page(page, style=style, shows=self.dice.shown, writes=self.dice.written)
        return zipped(Answer(200, body)) if shape == "gzip" else Answer(200, body)

    def _taken_as(self, page: Page, shape: str, *, begins: bool) -> Page:
        """Change what is asked for to what a server of this shape understands."""
        match shape:
            case "short_page":
                return replace(page, most=1 + self.dice.below(page.most))
            case "inclusive":
                return replace(page, inclusive=True)
            case "ignored" if begins:
                return replace(page, after="")
            case "repeats" if page.most > 1:
                return replace(page, repeats=True, most=page.most - 1)
            case "terse":
                return replace(page, tersely=True)
        return page


def _empty_page(after: str) -> bytes:
    """No keys, but more to come: a gateway that skipped many deleted entries says so."""
    return (
        b"<ListBucketResult><Name>chaos</Name><Prefix></Prefix><EncodingType>url</EncodingType>"
        b"<IsTruncated>true</IsTruncated><NextContinuationToken>%b</NextContinuationToken>"
        b"</ListBucketResult>"
    ) % token_after(after).encode()


def _head(bucket: Bucket, key: str, *, lie: str) -> Answer:
    found = bucket.get_before(key) if lie == "head_stale" else None
    found = found or bucket.get(key)
    if lie == "head_refused":
        return Answer(403, b"")
    if found is None or lie == "head_gone":
        return Answer(404, b"")
    return Answer(
        200,
        b"",
        (
            ("ETag", f'W/"{found.etag}"' if lie == "head_weak" else f'"{found.etag}"'),
            ("Content-Type", "text/chaos"),
            ("x-amz-meta-etag", found.etag),
        ),
        announced=found.size,
    )


class Server:
    """Serves all endpoints; a thread a connection."""

    def __init__(self, ports: int, seed: int) -> None:
        self.shown = Shown()
        self.endpoints = [Endpoint(self.shown, f"{seed} {number}") for number in range(ports)]
        self._controls: dict[str, Callable[[Any], Any]] = {
            "change": self.shown.change,
            "faults": self._faults,
            "latency": self._latency,
            "lag": self._lag,
            "lists": lambda _: list(self.shown.lists),
            "heads": lambda _: list(self.shown.heads),
            "totals": self._totals,
            "drawn": self._drawn,
        }

    def serve(self, listener: socket.socket, endpoint: Endpoint) -> None:
        while True:
            client, _ = listener.accept()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._talk, args=(client, endpoint), daemon=True).start()

    def _talk(self, client: socket.socket, endpoint: Endpoint) -> None:
        with client, suppress(OSError), client.makefile("rb") as received:
            while line := received.readline():
                method, target, _ = line.decode("latin-1").split(" ", 2)
                length = 0
                while (header := received.readline().strip().lower()) != b"":
                    if header.startswith(b"content-length:"):
                        length = int(header.partition(b":")[2])
                body = received.read(length)
                if target.startswith(_CONTROL):
                    asked = json.loads(body)
                    said = self._controls[target.removeprefix(_CONTROL)](asked)
                    answer = Answer(200, json.dumps(said).encode())
                else:
                    answer = endpoint.answer(method, target)
                if not _send(client, answer, head_only=method == "HEAD"):
                    return

    def _faults(self, asked: Mapping[str, Mapping[str, float]]) -> None:
        for number, rates in asked.items():
            self.endpoints[int(number)].dice.set(rates)

    def _latency(self, asked: Mapping[str, tuple[float, float]]) -> None:
        for number, (list_s, head_s) in asked.items():
            endpoint = self.endpoints[int(number)]
            endpoint.list_s, endpoint.head_s = list_s, head_s

    def _lag(self, asked: Mapping[str, float]) -> None:
        for number, seconds in asked.items():
            self.endpoints[int(number)].lag_s = seconds

    def _totals(self, tells: Mapping[str, bool]) -> None:
        for number, tells_totals in tells.items():
            self.endpoints[int(number)].tells_totals = tells_totals

    def _drawn(self, _: object) -> dict[str, int]:
        total: defaultdict[str, int] = defaultdict(int)
        for endpoint in self.endpoints:
            for name, times in list(endpoint.dice.drawn.items()):
                total[name] += times
        return dict(total)


def _send(client: socket.socket, answer: Answer, *, head_only: bool) -> bool:
    """Send it, and say whether the connection goes on."""
    if answer.delay_s:
        time.sleep(answer.delay_s)
    length = len(answer.body) if answer.announced is None else answer.announced
    headers = "".join(f"{name}: {value}\r\n" for name, value in answer.headers)
    head = (
        f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}\r\nContent-Length: {length}\r\n"
        f"{headers}\r\n"
    ).encode()
    body = b"" if head_only else answer.body
    if answer.drip_s and body:
        _drip(client, head, body, seconds=answer.drip_s)
        return False
    if answer.sent is None:
        client.sendall(head + body)
        return True
    if answer.sent >= 0:
        client.sendall(head + body[: answer.sent])
    if answer.reset:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    return False


def _drip(client: socket.socket, head: bytes, body: bytes, *, seconds: float) -> None:
    client.sendall(head)
    until = time.monotonic() + seconds
    for byte in body[:-1]:
        if time.monotonic() > until:
            return
        client.sendall(bytes([byte]))
        time.sleep(_DRIP_PAUSE_S)


class ChaosS3:
    """The server's process, and what it is told. Safe for threads."""

    def __init__(self, directory: Path, *, endpoints: int, seed: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._seed = seed
        self._lock = threading.Lock()
        self._ports = [0] * endpoints
        self._child: ServerProcess | None = None

    @property
    def urls(self) -> list[str]:
        return [f"http://{LOOPBACK}:{port}" for port in self._ports]

    def change(self, changes: Sequence[Change]) -> None:
        self._tell("change", [asdict(change) for change in changes])

    def faults(self, rates: Mapping[int, Mapping[str, float]]) -> None:
        """Set the faults of some endpoints, by number."""
        self._tell("faults", rates)

    def latency(self, seconds: Mapping[int, tuple[float, float]]) -> None:
        """Set how long each LIST and each HEAD takes, by endpoint."""
        self._tell("latency", seconds)

    def lag(self, seconds: Mapping[int, float]) -> None:
        """Set how late changes come to the listings of some endpoints, by number."""
        self._tell("lag", seconds)

    def lists(self) -> list[tuple[float, str]]:
        """When each LIST came, and for which bucket."""
        return [(at, bucket) for at, bucket in self._tell("lists")]

    def heads(self) -> list[tuple[float, str]]:
        """When each HEAD of a bucket came, and for which."""
        return [(at, bucket) for at, bucket in self._tell("heads")]

    def totals(self, tells: Mapping[int, bool]) -> None:
        """Have some endpoints, by number, tell a bucket's totals as Ceph's gateway does, or not."""
        self._tell("totals", tells)

    def drawn(self) -> dict[str, int]:
        """How often each fault was drawn."""
        drawn: dict[str, int] = self._tell("drawn")
        return drawn

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            listeners = [stack.enter_context(listen(port)) for port in self._ports]
            self._ports = [listener.getsockname()[1] for listener in listeners]
            fds = [listener.fileno() for listener in listeners]
            self._child = ServerProcess(
                [sys.executable, "-m", __name__, f"--seed={self._seed}", *map(str, fds)],
                log=self._directory / "s3.log",
                environ=os.environ | {"PYTHONPATH": str(ROOT)},
                pass_fds=fds,
            )
        self._tell("drawn")  # answered when it serves
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.stop()

    def _tell(self, what: str, content: Any = None) -> Any:
        with self._lock:
            connection = http.client.HTTPConnection(LOOPBACK, self._ports[0], timeout=60)
            try:
                connection.request("POST", f"{_CONTROL}{what}", json.dumps(content))
                return json.loads(connection.getresponse().read())
            finally:
                connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("fds", type=int, nargs="+")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    server = Server(len(options.fds), options.seed)
    for fd, endpoint in zip(options.fds, server.endpoints, strict=True):
        listener = socket.socket(fileno=fd)
        threading.Thread(target=server.serve, args=(listener, endpoint), daemon=True).start()
    signal.pause()


if __name__ == "__main__":
    main()
