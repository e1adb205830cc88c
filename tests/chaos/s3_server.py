"""The S3 server of the chaos runs, in a process of its own: `python -m tests.chaos.s3_server`.

It answers ListObjectsV2 and HEAD, at several ports as several endpoints, each with faults of its
own. All endpoints show the same buckets. What they show, and what goes wrong, comes as JSON in
``POST /-/…`` to any of them.
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
from tests.chaos.s3_faults import Answer, Dice, error
from tests.chaos.s3_objects import (
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


class Shown:
    """The buckets, and a record of who asked for what."""

    def __init__(self) -> None:
        self.buckets: dict[str, Bucket] = {}
        self.lists: list[tuple[float, str]] = []
        self.heads: list[tuple[float, str]] = []

    def change(self, changes: Sequence[Mapping[str, Any]]) -> None:
        for given in changes:
            change = Change(**given)
            self.buckets.setdefault(change.bucket, Bucket()).change(change)


class Endpoint:
    """One port: its faults, and how long each answer takes there."""

    def __init__(self, shown: Shown, seed: str) -> None:
        self.shown = shown
        self.dice = Dice(random.Random(seed))  # noqa: S311
        self.list_s = self.head_s = 0.0
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
            right = _head(bucket, key)
        elif method == "GET" and not key:
            self.shown.lists.append((time.time(), name))
            right = self._listing(bucket, parse_qs(url.query, keep_blank_values=True))
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
        token = asked.get("continuation-token", "")
        page = Page(
            prefix=asked.get("prefix", ""),
            after=key_of(token) if token else asked.get("start-after", ""),
            most=min(int(asked.get("max-keys", MOST_KEYS)), MOST_KEYS),
        )
        style = 0
        match self.dice.shape():
            case "other_style":
                style = self.dice.below(len(STYLES))
            case "short_page":
                page = replace(page, most=1 + self.dice.below(page.most))
            case "empty_page":
                return Answer(200, _empty_page(page.after))
        return Answer(200, bucket.page(page, style=style, shows=self.dice.shown))


def _empty_page(after: str) -> bytes:
    """No keys, but more to come: a gateway that skipped many deleted entries says so."""
    return (
        b"<ListBucketResult><Name>chaos</Name><Prefix></Prefix><EncodingType>url</EncodingType>"
        b"<IsTruncated>true</IsTruncated><NextContinuationToken>%b</NextContinuationToken>"
        b"</ListBucketResult>"
    ) % token_after(after).encode()


def _head(bucket: Bucket, key: str) -> Answer:
    found = bucket.get(key)
    if found is None:
        return Answer(404, b"")
    return Answer(
        200,
        b"",
        (
            ("ETag", f'"{found.etag}"'),
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
    if answer.sent is None:
        client.sendall(head + body)
        return True
    if answer.sent >= 0:
        client.sendall(head + body[: answer.sent])
    if answer.reset:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    return False


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
