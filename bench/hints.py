"""How soon a hint has its change announced: over HTTP, through monitor and worker, to the queue.

Everything runs as `manage.py runmonitor` starts it. No pass is due while it is measured.
"""

from __future__ import annotations

import http.client
import json
import random
import secrets
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from statistics import quantiles
from typing import TYPE_CHECKING, Any, Final

from bench.installation import installed
from bench.objects import make_rows
from bench.server import BenchServer
from bucketwatch.local.servers import LOOPBACK, RedisServer
from scanning.core import redis_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

BUCKET: Final = "bench"
QUEUE: Final = "linode:notifications:queue"
OBJECTS: Final = 20_000
GIVE_UP_S: Final = 60.0
LOOK_EVERY_S: Final = 0.005


@dataclass(frozen=True)
class Size:
    hints: int


FULL: Final = Size(hints=60)
QUICK: Final = Size(hints=10)


def measure(directory: Path, size: Size) -> Mapping[str, float]:
    """Add one object after the other, and hint at each."""
    home = directory / "hints"
    home.mkdir()
    with ExitStack() as stack:
        redis = RedisServer(home / "redis", appendonly=True)
        redis.start()
        stack.callback(redis.stop)
        objects = OBJECTS + size.hints
        server = stack.enter_context(BenchServer(home, objects=objects, changing=objects))
        server.show(objects=OBJECTS)
        client_secret = secrets.token_urlsafe(32)
        product = stack.enter_context(
            installed(
                home,
                redis.url,
                [_bucket(server.url)],
                API_CLIENT_ID="bench",
                API_CLIENT_SECRET=client_secret,
            )
        )
        client = stack.enter_context(redis.client())
        _wait(lambda: bool(client.hget(redis_keys.bucket(BUCKET), "scan_at")))
        api = _Api(product.port, client_secret)
        rows = make_rows(objects)
        seconds = []
        for place in range(OBJECTS, objects):
            time.sleep(random.uniform(0.5, 1.5))  # noqa: S311 - some moment of the monitor's second
            before = client.llen(QUEUE)
            server.show(objects=place + 1)
            began = time.monotonic()
            api.hint(rows.key(place).decode())
            _wait(partial(_is_longer, client, before))
            seconds.append(time.monotonic() - began)
    split = quantiles(seconds, n=20, method="inclusive")
    return {"hint_to_queue_p95_s": split[18], "hint_to_queue_p50_s": split[9]}


class _Api:
    """A program with a token."""

    def __init__(self, port: int, secret: str) -> None:
        self._port = port
        login = {"client_id": "bench", "client_secret": secret}
        answer = json.loads(self._post("/api/auth/token", login, {}))
        self._headers = {"Authorization": f"Bearer {answer['access_token']}"}

    def hint(self, key: str) -> None:
        self._post("/api/v1/hints/", {"bucket": BUCKET, "keys": [key]}, self._headers)

    def _post(self, path: str, body: Mapping[str, Any], headers: dict[str, str]) -> bytes:
        connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=GIVE_UP_S)
        connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if answer.status >= http.client.BAD_REQUEST:
            raise RuntimeError(f"{path} answers {answer.status}: {content!r}")
        return content


def _is_longer(client: Any, length: int) -> bool:
    return int(client.llen(QUEUE)) > length


def _wait(is_so: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + GIVE_UP_S
    while not is_so():
        if time.monotonic() > give_up_at:
            raise RuntimeError("the product does nothing")
        time.sleep(LOOK_EVERY_S)


def _bucket(url: str) -> dict[str, Any]:
    """One bucket that only its first pass and hints have listed."""
    return {
        "name": BUCKET,
        "region": "bench",
        "endpoint": url,
        "polling_interval": 604_800,
        "probe_interval": 0,
        "fetch_metadata": False,
        "first_scan": "baseline",
    }
