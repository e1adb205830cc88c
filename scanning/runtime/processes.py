"""The monitor's children: web server and workers, each a program of its own, kept alive."""

from __future__ import annotations

import ctypes
import logging
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from django.conf import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

logger = logging.getLogger(__name__)

STOP_S = 14.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
_PR_SET_PDEATHSIG = 1
_M_ARENA_MAX = -8
_libc = ctypes.CDLL(None)


def die_with_parent(parent: int, how: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel signal this process when the thread that started it ends (Linux).

    Call it in the child, with the parent's process id.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, how)
    if os.getppid() != parent:  # it died before we asked
        os._exit(1)


def share_heaps() -> None:
    """Have all threads of this process, and of its forks, allocate from two heaps (glibc).

    Else each thread gets one of its own, which keeps what one scan or page once needed. They wait
    for the same interpreter lock anyway, so this costs no time.
    """
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_ARENA_MAX, 2)


def give_back_memory() -> None:
    """Return to the system what was freed: a few megabytes after many scans (glibc)."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)


class StopSignal:
    """An event that a signal handler may set, and that forked children see too.

    The events of ``threading`` and ``multiprocessing`` have locks: a handler waits for ever for
    the one that its own thread holds, and so does everybody when a process is killed while it
    waits. A byte in a pipe that nobody takes out needs none.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()

    def set(self) -> None:
        if not self.is_set():  # a full pipe would make the writer wait for ever
            os.write(self._writer, b"!")

    def is_set(self) -> bool:
        return self.wait(0)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, at most ``timeout`` seconds; say whether it is."""
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        return bool(poll.poll(None if timeout is None else timeout * 1000))

    def __del__(self) -> None:
        os.close(self._reader)
        os.close(self._writer)


class Child:
    """A child process that is started again, ever more slowly, when it ends by itself."""

    def __init__(
        self, name: str, command: Sequence[str], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name = name
        self._clock = clock
        self._command = list(command)
        self._pause_s = _FIRST_PAUSE_S
        self._start_at = self._started_at = clock()
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = False
        self.keep_alive()

    def keep_alive(self) -> None:
        """Start the child if it does not run and its pause is over."""
        now = self._clock()
        if self._process is not None and self._process.poll() is not None:
            self._ended(self._process.returncode, ran_s=now - self._started_at)
            self._process, self._start_at = None, now + self._pause_s
        if self._process is None and now >= self._start_at:
            self._started_at, self._asked = now, False
            try:
                self._process = self._start()
            except OSError as exc:  # there is no memory, or no process left
                self._start_at = now + _LONGEST_PAUSE_S
                logger.error("%s cannot be started: %s", self._name, exc)  # noqa: TRY400 - says it all

    def _start(self) -> subprocess.Popen[bytes]:
        parent = os.getpid()
        # Its own session: Ctrl-C reaches the monitor alone, which stops its children in order.
        return subprocess.Popen(
            self._command,
            cwd=settings.BASE_DIR,
            start_new_session=True,
            preexec_fn=lambda: die_with_parent(parent, signal.SIGTERM),  # noqa: PLW1509 - no lock
        )

    def _ended(self, code: int, *, ran_s: float) -> None:
        ran_well = ran_s > _LONGEST_PAUSE_S
        self._pause_s = _FIRST_PAUSE_S if ran_well else min(self._pause_s * 2, _LONGEST_PAUSE_S)
        logger.error(
            "%s ended with code %s; starting it again in %.0f s", self._name, code, self._pause_s
        )

    def ask_to_stop(self) -> None:
        """Send SIGTERM, once: a second one would mean *at once*."""
        if self._process is not None and self._process.poll() is None and not self._asked:
            self._asked = True
            self._process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float) -> None:
        """Wait for the end; kill after ``timeout_s``."""
        if self._process is None:
            return
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            logger.warning("%s did not stop in time; killing it", self._name)
            self.kill()
            self._process.wait()

    def kill(self) -> None:
        """End it at once. A signal handler may call this: it does not wait.

        ``Popen.wait`` takes a lock, which the code that the handler interrupts may hold.
        """
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)


def workers(regions: Collection[str] = ()) -> Child:
    chosen = ["--regions", ",".join(regions)] if regions else []
    return Child(
        "workers", [sys.executable, str(settings.BASE_DIR / "manage.py"), "runworkers", *chosen]
    )


def web() -> Child:
    return Child("web", web_command())


def web_command() -> list[str]:
    """Gunicorn with threads: one process serves hundreds of open pages in some 100 MiB."""
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "bucketwatch.wsgi:application",
        f"--bind={settings.WEB_BIND}",
        "--worker-class=gthread",
        "--workers=1",
        "--threads=64",
        "--graceful-timeout=5",
        "--no-control-socket",  # nobody uses it, and there may be no home to put it into
        "--log-level=warning",
    ]
    if settings.SITE.log_format == "json":
        command.append("--logger-class=scanning.runtime.gunicorn_logs.JsonLogger")
    if os.access("/dev/shm", os.W_OK):  # noqa: S108 - a heartbeat file: a stalled disk must not kill it
        command.append("--worker-tmp-dir=/dev/shm")
    return command


def stop(children: Sequence[Child], *, deadline: float) -> None:
    """End all children: asked together, killed at ``deadline`` (monotonic)."""
    for child in children:
        child.ask_to_stop()
    for child in children:
        child.wait(max(0.1, deadline - time.monotonic()))


def kill(children: Sequence[Child]) -> None:
    for child in children:
        child.kill()
