"""Whole process trees, started and looked at from outside."""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from scanning.runtime.processes import ChildProcess
from tests.support.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]


class Program(ChildProcess):
    """One of our programs with all that it starts; its output goes to a file."""

    def __init__(
        self,
        arguments: Sequence[str | Path],
        *,
        log: Path,
        environ: Mapping[str, str],
        directory: Path = ROOT,
        python: Path | str = sys.executable,
    ) -> None:
        self.log = log
        super().__init__(
            [python, *arguments],
            log=log,
            environ={**os.environ, **environ},
            directory=directory,
            # If the test run is killed: it has children of its own to stop.
            death_signal=signal.SIGTERM,
        )

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def tree(self) -> set[tuple[int, int]]:
        """Find the process and all that it started, directly or not."""
        return descendants(self.process.pid)

    def signal(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end; returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(60)

    def clear_away(self) -> None:
        """Kill what a test that failed half-way left; a tree that was stopped needs nothing."""
        for pid, started in self.tree() if self.is_running else ():
            if running(pid, started):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


def descendants(pid: int) -> set[tuple[int, int]]:
    """Find a process and its descendants, as (pid, start time): pids are used again."""
    table = dict(_processes())
    found = {pid}
    while True:
        more = {child for child, (parent, _) in table.items() if parent in found} - found
        if not more:
            return {(member, table[member][1]) for member in found if member in table}
        found |= more


def running(pid: int, started: int) -> bool:
    stat = _stat(pid)
    return stat is not None and stat[1] == started


def command(pid: int) -> str:
    """Read a process's command line; "" without one. django-q2 gives its processes titles."""
    try:
        text = Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""
    return text.replace("\0", " ").strip()


def children_of(pid: int) -> list[int]:
    """Read the children of all threads of a process; none if it has ended."""
    children: list[int] = []
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            children += map(int, listing.read_text().split())
    return children


def all_gone(tree: set[tuple[int, int]], *, timeout: float = 60) -> None:
    """Wait until none of these processes runs."""

    def none_left() -> bool:
        left = [pid for pid, started in tree if running(pid, started)]
        assert not left, [command(pid) or pid for pid in left]
        return True

    eventually(none_left, timeout)


def _processes() -> list[tuple[int, tuple[int, int]]]:
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    return [(pid, stat) for pid in pids if (stat := _stat(pid))]


def _stat(pid: int) -> tuple[int, int] | None:
    """Read parent and start time; None if the process does not run (a zombie does not)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, parent, *rest = text.rpartition(")")[2].split()
    return None if state in {"Z", "X"} else (int(parent), int(rest[17]))
