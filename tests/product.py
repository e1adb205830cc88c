"""bucketwatch as it is deployed: `manage.py runmonitor` with its web server and workers."""

import os
import secrets
import signal
import subprocess
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from bucketwatch.demo.servers import LOOPBACK, free_port
from tests.processes import ROOT, Program, all_gone
from tests.waiting import eventually


class Product(Program):
    """A new installation with one operator, in ``directory``; polls every 2 s."""

    username = "operator"

    def __init__(self, directory: Path, *, redis_url: str, **environ: str) -> None:
        port = free_port()
        self.url = f"http://{LOOPBACK}:{port}"
        self.password = secrets.token_urlsafe(12)
        self.environ = {
            "DATA_DIR": str(directory / "data"),
            "REDIS_URL": redis_url,
            "HOST": LOOPBACK,
            "PORT": str(port),
            "POLLING_INTERVAL": "2",
            "READY_REQUIRE_WEBHOOK": "false",
            "DJANGO_SUPERUSER_PASSWORD": self.password,
            **environ,
        }
        self.manage("migrate", "--verbosity=0")
        self.manage("createsuperuser", "--noinput", f"--username={self.username}", "--email=")
        super().__init__(
            ["manage.py", "runmonitor"], log=directory / "monitor.log", environ=self.environ
        )

    def manage(self, *arguments: str) -> str:
        """Run another command of the same installation; returns what it printed."""
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env={**os.environ, **self.environ},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def wait_until_ready(self) -> None:
        def ready() -> bool:
            if self.process.poll() is not None:
                pytest.fail(self.output())
            with suppress(OSError), urllib.request.urlopen(f"{self.url}/ready") as answer:
                return bool(answer.status == 200)
            return False

        eventually(ready, timeout=60)

    def stop(self) -> None:
        tree = self.tree()
        self.signal(signal.SIGTERM)
        all_gone(tree)
