"""A real PostgreSQL server, where its programs are installed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psycopg

from bucketwatch.local.servers import LOOPBACK, ServerProcess, free_port

USER = "bucketwatch"
_SOMEBODY = "nobody"


def missing() -> str:
    """Say why no server can be started here; "" if one can."""
    programs = ["postgres", "initdb", *(["setpriv"] if _is_root() else [])]
    absent = [program for program in programs if _program(program) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


class PostgresServer:
    """An empty database on the loopback interface; keeps port and data when started again."""

    def __init__(self) -> None:
        # Not in pytest's directory: PostgreSQL refuses root, and nobody else may look in there.
        self._home = Path(tempfile.mkdtemp(prefix="bucketwatch-postgres-"))
        self._data = self._home / "data"
        self.port = free_port()
        self._child: ServerProcess | None = None
        if _is_root():
            shutil.chown(self._home, _SOMEBODY)
        subprocess.run(
            [
                *_as_somebody("initdb"),
                f"--pgdata={self._data}",
                f"--username={USER}",
                *("--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"),
            ],
            cwd=self._home,
            check=True,
            capture_output=True,
            timeout=100,
        )

    @property
    def url(self) -> str:
        return f"postgres://{USER}@{LOOPBACK}:{self.port}/postgres"

    def start(self) -> None:
        options = {
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",
        }
        arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        command = [*_as_somebody("postgres"), "-D", self._data, *arguments]
        self._child = ServerProcess(command, log=self._home / "server.log")
        self._child.wait_until(self._answers, what="PostgreSQL")

    def stop(self) -> None:
        """End the server at once, without waiting for connected clients."""
        if self._child is not None and self._child.is_running:
            self._child.process.send_signal(signal.SIGINT)
            self._child.process.wait(30)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._home)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=5).close()
        except psycopg.Error:
            return False
        return True


def _is_root() -> bool:
    return os.getuid() == 0


def _program(name: str) -> Path | None:
    """Look in the path, and where Debian hides the programs of a server."""
    if found := shutil.which(name):
        return Path(found)
    return max(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), default=None)


def _as_somebody(name: str) -> list[str | Path]:
    """Begin a command that runs a program of PostgreSQL as an ordinary user."""
    program = _program(name)
    assert program is not None, f"{name} is not installed"
    if not _is_root():
        return [program]
    # The kernel forgets whose death ends a process when that changes its user: say so again.
    change = ["setpriv", f"--reuid={_SOMEBODY}", "--clear-groups", "--pdeathsig=KILL", "--"]
    return [*change, program]
