"""Somebody who changes the configuration while everything breaks, over the API of either host."""

from __future__ import annotations

import http.client
import json
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from bucketwatch.local.servers import LOOPBACK

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping, Sequence

CLIENT: Final = {"API_CLIENT_ID": "chaos", "API_CLIENT_SECRET": "the secret of a chaos run"}
_ANSWERS_WITHIN_S: Final = 20


class Unanswered(Exception):
    """The host's web server is away, or could not do it."""


class Api:
    """The API of some hosts: each request goes to one of them by chance."""

    def __init__(self, dice: random.Random, ports: Sequence[int]) -> None:
        self._dice, self._ports = dice, ports
        self._token = ""

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Send a request; returns status and answer. Raises Unanswered."""
        port = self._dice.choice(self._ports)
        try:
            self._token = self._token or _token(port)
            return _sent(port, method, path, body, Authorization=f"Bearer {self._token}")
        except (OSError, ValueError, http.client.HTTPException) as exc:
            raise Unanswered(str(exc)) from exc


class Operator:
    """Pauses buckets, lets them go on, gives them other lanes and intervals, adds ``late`` ones.

    Has held updates announced. Never has times taken silently: that would be an event less.

    ``late`` are the bodies of ``POST /api/v1/buckets/``.
    """

    def __init__(
        self,
        dice: random.Random,
        ports: Sequence[int],
        names: Sequence[str],
        late: Sequence[Mapping[str, object]],
    ) -> None:
        self.did: Counter[str] = Counter()
        self._dice, self._api = dice, Api(dice, ports)
        self._names, self._late = list(names), list(late)
        self._paused: set[str] = set()

    def act(self) -> None:
        """Try one thing."""
        lots = {
            self._change: 6,
            self._scan: 2,
            self._release: 2,
            self._pause: 2,
            self._go_on: 3,
            self._add: 1,
        }
        [lot] = self._dice.choices(list(lots), list(lots.values()))
        try:
            lot()
        except Unanswered:
            self.did["failed"] += 1

    def settle(self) -> None:
        """Try to bring everything to where all buckets are scanned."""
        with suppress(Unanswered):
            self._go_on()
            self._add()

    @property
    def is_settled(self) -> bool:
        return not self._paused and not self._late

    # --- what can be done

    def _change(self) -> None:
        changes = {
            "lanes": self._dice.choice([None, 1, 2, 4]),
            "polling_interval": self._dice.choice([1, 2, 8]),
            "probe_interval": self._dice.choice([None, 0, 1, 3]),
        }
        self._patch(self._dice.choice(self._names), **changes)
        self.did["changes"] += 1

    def _scan(self) -> None:
        self._api.ask("POST", f"/api/v1/buckets/{self._dice.choice(self._names)}/scan/")
        self.did["scans"] += 1

    def _release(self) -> None:
        path = f"/api/v1/buckets/{self._dice.choice(self._names)}/release/"
        self._api.ask("POST", path, {"choice": "announce_updates"})
        self.did["releases"] += 1

    def _pause(self) -> None:
        name = self._dice.choice(self._names)
        self._paused.add(name)  # also if it fails: it may have been done
        self._patch(name, monitoring_enabled=False)
        self.did["pauses"] += 1

    def _go_on(self) -> None:
        for name in sorted(self._paused):
            self._patch(name, monitoring_enabled=True)
            self._paused.discard(name)

    def _add(self) -> None:
        if not self._late:
            return
        status, _ = self._api.ask("POST", "/api/v1/buckets/", self._late[0])
        if status in {http.client.CREATED, http.client.CONFLICT}:  # of a try that seemed to fail
            self._names.append(str(self._late.pop(0)["name"]))
            self.did["added"] += 1

    # --- how

    def _patch(self, name: str, **changes: object) -> None:
        status, answer = self._api.ask("PATCH", f"/api/v1/buckets/{name}/", changes)
        if status != http.client.OK:
            raise Unanswered(answer)


def _token(port: int) -> str:
    login = {"client_id": CLIENT["API_CLIENT_ID"], "client_secret": CLIENT["API_CLIENT_SECRET"]}
    status, answer = _sent(port, "POST", "/api/auth/token", login)
    if status != http.client.OK:
        raise Unanswered(str(answer))
    return str(answer["access_token"])


def _sent(port: int, method: str, path: str, body: object, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=_ANSWERS_WITHIN_S)
    try:
        content = json.dumps(body) if body is not None else None
        connection.request(method, path, content, {"Content-Type": "application/json", **headers})
        response = connection.getresponse()
        return response.status, json.loads(response.read() or b"null")
    finally:
        connection.close()
