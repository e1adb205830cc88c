"""The S3 endpoints that this process asks; what processes share is in `EndpointHealthStore`.

A request of an endpoint that has no limits and answers well costs a lock and two additions here.
Where there are limits, connections and moments to ask are reserved in batches, so that a listing
asks Redis once for several pages. One thread a process tells of its use once a second, and learns
how the endpoints stand.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from contextlib import nullcontext
from typing import TYPE_CHECKING, Protocol

from scanning.core import pacing
from scanning.core.endpoints import endpoint_name
from scanning.core.errors import Interrupted
from scanning.pacing.gate import EndpointLimiter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from scanning.core.pacing import EndpointLimits
    from scanning.ports import EndpointHealthStore

logger = logging.getLogger(__name__)

TELL_S = 1.0
_CLOSE_S = 1.0


class ConnectionPool(Protocol):
    """Somebody who keeps connections."""

    def trim(self, endpoint: str, most: int) -> None:
        """Close idle connections to an endpoint until there are at most so many."""

    def end_overdue(self) -> None:
        """End the requests whose answers take too long."""


class EndpointRegistry:
    """The gates of a process, by endpoint.

    ``probe_s`` is how long a probe of a dead one takes, ``most_wait_s`` how long a request waits
    for its turn before its scan makes room for others.
    """

    def __init__(
        self,
        paces: EndpointHealthStore,
        rules: Sequence[tuple[str, EndpointLimits]] = (),
        *,
        probe_s: float = 40.0,
        most_wait_s: float = 5.0,
    ) -> None:
        self.paces = paces
        self.probe_s = probe_s
        self.most_wait_s = most_wait_s
        self._rules = rules
        self._gates: dict[str, EndpointLimiter] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._trims: weakref.WeakSet[ConnectionPool] = weakref.WeakSet()

    def at(self, endpoint: str) -> EndpointLimiter:
        """The gate of a bucket's endpoint, however that is written."""
        name = endpoint_name(endpoint)
        gate = self._gates.get(name)
        if gate is None:
            with self._lock:
                limits = pacing.limits_of(name, self._rules)
                gate = self._gates.setdefault(name, EndpointLimiter(self, name, limits))
        return gate

    def keeps_connections(self, keeper: ConnectionPool) -> None:
        self._trims.add(keeper)

    def trim(self, endpoint: str, most: int) -> None:
        for keeper in list(self._trims):
            keeper.trim(endpoint, most)

    def close(self) -> None:
        """Let nobody wait any more, and tell nothing any more: this process is stopping."""
        self._closing.set()
        thread = self._thread
        if thread is not None:
            thread.join(_CLOSE_S)

    def wait(self, seconds: float) -> None:
        """Wait, but not when this process is stopping. Raises Interrupted."""
        if self._closing.wait(seconds):
            raise Interrupted("this process is stopping")

    @property
    def is_closing(self) -> bool:
        return self._closing.is_set()

    def watch(self) -> None:
        """Have the thread that tells of this process's use; it ends when there is none."""
        with self._lock:
            if self._thread is None and not self._closing.is_set():
                thread = threading.Thread(target=self._tell, name="pace", daemon=True)
                thread.start()  # may fail: then the next request tries again
                self._thread = thread

    def _tell(self) -> None:
        while not self._closing.wait(TELL_S):
            try:
                for keeper in list(self._trims):
                    keeper.end_overdue()
                for gate in list(self._gates.values()):
                    gate.tell()
            except Exception:
                # Without this thread the connections of this process would be given away.
                logger.exception("an error in bucketwatch while telling of endpoints")
            with self._lock:
                if not any(gate.is_used for gate in self._gates.values()):
                    self._thread = None
                    return


class UnlimitedEndpoint:
    """For somebody who waits in front of a page: at once, and nobody is told."""

    def turn(self, bucket: str, *, lists: bool) -> AbstractContextManager[None]:  # noqa: ARG002
        return nullcontext()

    def answered(self) -> None: ...

    def throttled(self) -> None: ...

    def unanswered(self, bucket: str, why: str, *, timed_out: bool) -> None: ...

    def refuses(self, bucket: str) -> bool:  # noqa: ARG002
        return False

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)


UNLIMITED = UnlimitedEndpoint()
