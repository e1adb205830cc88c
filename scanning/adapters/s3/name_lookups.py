"""Looking up the addresses of hosts, with a time-out: `getaddrinfo` itself may never return.

Nothing can interrupt it, so it runs in threads of its own, which are left behind when the time is
over. They are few: one for each name, which everybody who asks for that name waits for, and
``MOST`` in all. A look-up beyond that waits for one to end.
"""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import Future
from typing import Final

MOST: Final = 64


class NameLookups:
    """Safe for threads, not across a fork."""

    def __init__(self, *, limit: int = MOST) -> None:
        self._limit = limit
        self._changed = threading.Condition()
        self._under_way: dict[str, Future[list[str]]] = {}

    def addresses(self, host: str, *, timeout_s: float) -> list[str]:
        """Resolve a host. Raises gaierror: EAI_AGAIN if no address is known in time."""
        until = time.monotonic() + timeout_s
        with self._changed:
            if not self._changed.wait_for(lambda: self._may_ask(host), timeout_s):
                raise _no_answer(timeout_s)
            answer = self._under_way.get(host) or self._begin(host)
        try:
            return answer.result(max(0.0, until - time.monotonic()))
        except TimeoutError:
            raise _no_answer(timeout_s) from None

    def _may_ask(self, host: str) -> bool:
        return host in self._under_way or len(self._under_way) < self._limit

    def _begin(self, host: str) -> Future[list[str]]:
        answer: Future[list[str]] = Future()
        threading.Thread(
            target=self._look_up, args=(host, answer), name="name look-up", daemon=True
        ).start()
        self._under_way[host] = answer
        return answer

    def _look_up(self, host: str, answer: Future[list[str]]) -> None:
        found: list[str] = []
        problem: Exception | None = None
        try:
            rows = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            found = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in rows))
        except UnicodeError as exc:  # a label that is no name
            problem = socket.gaierror(socket.EAI_NONAME, str(exc))
        except Exception as exc:  # noqa: BLE001 - raised again where it was asked for
            problem = exc
        with self._changed:
            del self._under_way[host]
            self._changed.notify_all()
        if problem is None:
            answer.set_result(found)
        else:
            answer.set_exception(problem)


def _no_answer(timeout_s: float) -> socket.gaierror:
    return socket.gaierror(socket.EAI_AGAIN, f"no answer within {timeout_s:g} s")
