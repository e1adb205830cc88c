"""A deployment as operators have it: two hosts that share a database, a vault and a Redis.

Everything here is a child of the thread that starts it, and ends with it.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from signal import Signals
from typing import TYPE_CHECKING, Final

from bucketwatch.local.environment import without_product_variables
from bucketwatch.local.servers import LOOPBACK, ServerProcess, free_port
from tests.support.processes import ROOT, children_of, command, descendants, running

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

START_AGAIN_S: Final = 1.0
_MANAGE_S: Final = 180
NEW_BUCKET: Final = {"credential": "chaos", "first_scan": "announce"}


def site_environ(data: Path, redis: Mapping[str, str], **more: str) -> dict[str, str]:
    """One installation, for all of its hosts; its database and its vault are in ``data``."""
    return {
        **without_product_variables(os.environ),
        "ENV_FILE": os.devnull,
        "SECRET_KEY": secrets.token_urlsafe(50),
        "DATA_DIR": str(data),
        "HOST": LOOPBACK,
        "LOG_LEVEL": "INFO",
        "READY_REQUIRE_WEBHOOK": "false",
        "SECURITY_ALLOW_PRIVATE_ENDPOINTS": "true",
        "PYTHONPATH": str(ROOT),
        **redis,
        **more,
    }


def manage(environ: Mapping[str, str], *arguments: str) -> str:
    """What one of the installation's commands prints. Raises AssertionError if it fails."""
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=dict(environ),
        capture_output=True,
        text=True,
        check=False,
        timeout=_MANAGE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def install(
    directory: Path, environ: Mapping[str, str], buckets: Sequence[Mapping[str, object]]
) -> None:
    """Make the database, and watch ``buckets`` (members as in the file of importbuckets)."""
    manage(environ, "migrate", "--verbosity=0")
    shared = {"name": "chaos", "access_key": "chaos", "secret_key": secrets.token_hex(8)}
    rows = [{**NEW_BUCKET, **bucket} for bucket in buckets]
    file = directory / "buckets.yaml"
    file.write_text(json.dumps({"credentials": [shared], "buckets": rows}), encoding="utf-8")
    manage(environ, "importbuckets", str(file))


class KeptAlive:
    """A program that is started again when it ends, as an init would."""

    def __init__(self, arguments: Sequence[str], *, log: Path, environ: Mapping[str, str]) -> None:
        self._command = [sys.executable, *arguments]
        self._log, self._environ = log, dict(environ)
        self._ended_at: float | None = None
        self._child = self._started()

    def keep_alive(self) -> None:
        if self._child.is_running:
            return
        now = time.monotonic()
        self._ended_at = self._ended_at or now
        if now - self._ended_at >= START_AGAIN_S:
            self._child, self._ended_at = self._started(), None

    def tree(self) -> set[tuple[int, int]]:
        """All that it started, directly or not, and itself; as (pid, start time)."""
        return descendants(self._child.process.pid) if self._child.is_running else set()

    @property
    def pid(self) -> int | None:
        return self._child.process.pid if self._child.is_running else None

    def stop(self, *, patience_s: float) -> None:
        self._child.stop(timeout_s=patience_s)

    def _started(self) -> ServerProcess:
        # SIGTERM if we die: it has children of its own to stop.
        return ServerProcess(
            self._command, log=self._log, environ=self._environ, death_signal=Signals.SIGTERM
        )


class Host(KeptAlive):
    """`manage.py runmonitor` with its web server and workers."""

    def __init__(self, number: int, directory: Path, environ: Mapping[str, str]) -> None:
        self.port = free_port()
        environ = {**environ, "PORT": str(self.port)}
        log = directory / f"host-{number}.log"
        super().__init__([str(ROOT / "manage.py"), "runmonitor"], log=log, environ=environ)

    # --- its processes by what they do

    def monitors(self) -> list[int]:
        return [self.pid] if self.pid else []

    def parents(self) -> list[int]:
        """The parents of all workers."""
        return [p for monitor in self.monitors() for p in _children(monitor, "runworkers")]

    def webs(self) -> list[int]:
        masters = [p for monitor in self.monitors() for p in _children(monitor, "gunicorn")]
        return [*masters, *(worker for master in masters for worker in children_of(master))]

    def supervisors(self) -> list[int]:
        return [p for parent in self.parents() for p in children_of(parent)]

    def workers(self) -> list[int]:
        return [
            p for supervisor in self.supervisors() for p in children_of(supervisor) if _scans(p)
        ]


def _children(pid: int, word: str) -> list[int]:
    return [child for child in children_of(pid) if word in command(child)]


def _scans(pid: int) -> bool:
    # django-q2 gives its processes titles: one that was forked just now has its supervisor's.
    return not command(pid).endswith("guard")


def still_running(processes: set[tuple[int, int]]) -> list[str]:
    return [command(pid) for pid, started in processes if running(pid, started)]
