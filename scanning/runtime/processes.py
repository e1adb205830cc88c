"""Child processes: tied to whoever started them, stopped in order, started again when they end.

The product, its demo and the tests start their processes with `ChildProcess`.
"""

from __future__ import annotations

import ctypes
import logging
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

from django.conf import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

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
    if hasattr(_libc, "prctl"):
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


class ChildProcess:
    """A process that stops when it is told to, and when the thread that started it ends.

    It has a session of its own: Ctrl-C reaches its parent alone, which stops it in order. Output
    goes to ``log``, or where the parent's goes; ``death_signal`` is sent when the parent ends.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path | None = None,
        environ: Mapping[str, str] | None = None,
        directory: Path | None = None,
        death_signal: signal.Signals = signal.SIGKILL,
        pass_fds: Sequence[int] = (),
    ) -> None:
        parent = os.getpid()
        self._asked_to_stop = False
        with log.open("ab") if log else nullcontext() as output:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                cwd=directory,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if log else None,
                start_new_session=True,
                preexec_fn=lambda: die_with_parent(parent, death_signal),  # noqa: PLW1509 - no lock
                pass_fds=pass_fds,
            )

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def ask_to_stop(self) -> None:
        """Send SIGTERM, once: a second one would mean *at once*."""
        if self.is_running and not self._asked_to_stop:
            self._asked_to_stop = True
            self.process.terminate()

    def stop(self, *, timeout_s: float = 10.0) -> bool:
        """Ask it to stop and wait for its end; False if it was killed after ``timeout_s``."""
        self.ask_to_stop()
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        return True

    def kill(self) -> None:
        """Kill the process group; returns when the process is gone."""
        self.send_kill()
        self.process.wait()

    def send_kill(self) -> None:
        """Kill without waiting: a signal handler may call this.

        ``Popen.wait`` takes a lock, which the code that the handler interrupts may hold.
        """
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


class RestartedChild:
    """A child process that is started again, ever more slowly, when it ends by itself."""

    def __init__(
        self, name: str, command: Sequence[str], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name = name
        self._clock = clock
        self._command = list(command)
        self._pause_s = _FIRST_PAUSE_S
        self._start_at = self._started_at = clock()
        self._child: ChildProcess | None = None
        self.keep_alive()

    def keep_alive(self) -> None:
        """Start the child if it does not run and its pause is over."""
        now = self._clock()
        if self._child is not None and not self._child.is_running:
            self._note_end(self._child.process.returncode, ran_s=now - self._started_at)
            self._child, self._start_at = None, now + self._pause_s
        if self._child is None and now >= self._start_at:
            self._started_at = now
            try:
                # SIGTERM if we die: it has children of its own to stop.
                self._child = ChildProcess(
                    self._command, directory=settings.BASE_DIR, death_signal=signal.SIGTERM
                )
            except OSError as exc:  # there is no memory, or no process left
                self._start_at = now + _LONGEST_PAUSE_S
                logger.error("%s cannot be started: %s", self._name, exc)  # noqa: TRY400 - says it all

    def _note_end(self, code: int, *, ran_s: float) -> None:
        ran_well = ran_s > _LONGEST_PAUSE_S
        self._pause_s = _FIRST_PAUSE_S if ran_well else min(self._pause_s * 2, _LONGEST_PAUSE_S)
        logger.error(
            "%s ended with code %s; starting it again in %.0f s", self._name, code, self._pause_s
        )

    def ask_to_stop(self) -> None:
        if self._child is not None:
            self._child.ask_to_stop()

    def stop(self, timeout_s: float) -> None:
        if self._child is not None and not self._child.stop(timeout_s=timeout_s):
            logger.warning("%s did not stop in time and was killed", self._name)

    def send_kill(self) -> None:
        if self._child is not None:
            self._child.send_kill()


def workers_command(regions: Collection[str] = ()) -> list[str]:
    chosen = ["--regions", ",".join(regions)] if regions else []
    return [sys.executable, str(settings.BASE_DIR / "manage.py"), "runworkers", *chosen]


def web_command() -> list[str]:
    """Run gunicorn with threads: one process serves hundreds of open pages in some 100 MiB."""
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
        "--timeout=30",  # a worker whose main thread gets no turn for so long is killed
        "--no-control-socket",  # nobody uses it, and there may be no home to put it into
        "--log-level=warning",
    ]
    if settings.SITE.log_format == "json":
        command.append("--logger-class=scanning.runtime.gunicorn_logs.JsonLogger")
    if os.access("/dev/shm", os.W_OK):  # noqa: S108 - a heartbeat file: a stalled disk must not kill it
        command.append("--worker-tmp-dir=/dev/shm")
    return command
