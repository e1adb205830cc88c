"""The monitor's children: started again when they end, stopped together."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from scanning.runtime import processes

if TYPE_CHECKING:
    from collections.abc import Collection


class MonitorChildren:
    """Keeps the web server and the workers' parent alive."""

    def __init__(self) -> None:
        self._children: list[processes.RestartedChild] = []
        self._stop_by: float | None = None

    def start_workers(self, regions: Collection[str] = ()) -> None:
        command = processes.workers_command(regions)
        self._children.append(processes.RestartedChild("workers", command))

    def start_web(self) -> None:
        self._children.append(processes.RestartedChild("web", processes.web_command()))

    def keep_alive(self) -> None:
        for child in self._children:
            child.keep_alive()

    def ask_to_stop(self) -> None:
        """Ask all children to stop, without waiting: a signal handler may call this."""
        if self._stop_by is None:
            self._stop_by = time.monotonic() + processes.STOP_S
        for child in self._children:
            child.ask_to_stop()

    def stop(self) -> None:
        """Wait for the end of all children; kill what still runs ``STOP_S`` after it was asked."""
        self.ask_to_stop()
        assert self._stop_by is not None  # noqa: S101 - asked above
        for child in self._children:
            child.stop(max(0.1, self._stop_by - time.monotonic()))

    def send_kill(self) -> None:
        """Kill all children without waiting: a signal handler may call this."""
        for child in self._children:
            child.send_kill()
