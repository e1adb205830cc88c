"""What the limiters of one process have in common."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scanning.core.errors import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable

    from scanning.ports import EndpointHealthStore


@dataclass(frozen=True, slots=True)
class PacingContext:
    """Made by the registry for its limiters.

    ``probe_s`` is how long a probe of a dead endpoint takes, ``max_wait_s`` how long a request
    waits before its scan makes room for others. ``trim`` closes idle connections to an endpoint
    down to a number; ``ensure_reporting`` has a thread that reports the usage of endpoints.
    """

    store: EndpointHealthStore
    probe_s: float
    max_wait_s: float
    trim: Callable[[str, int], None]
    ensure_reporting: Callable[[], None]
    closing: threading.Event = field(default_factory=threading.Event)

    def wait(self, seconds: float) -> None:
        """Wait, but not while this process is stopping. Raises Interrupted."""
        if self.closing.wait(seconds):
            raise Interrupted("this process is stopping")
