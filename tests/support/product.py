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

from bucketwatch.local.servers import LOOPBACK, free_port
from tests.support.processes import ROOT, Program, all_gone
from tests.support.servers import S3Account
from tests.support.waiting import eventually

# Runs in a process of its own, through the service that admin and API use.
_CALL = """
import django; django.setup()
from buckets import selectors, services
{call}
"""


class Installation:
    """A new installation with one operator, in ``directory``; polls every 2 s. Nothing runs yet.

    That two objects are gone is a mass deletion.
    """

    username = "operator"

    def __init__(self, directory: Path, *, redis_url: str, **environ: str) -> None:
        self.log = directory / "monitor.log"
        port = free_port()
        self.url = f"http://{LOOPBACK}:{port}"
        self.password = secrets.token_urlsafe(12)
        self.environ = {
            "DATA_DIR": str(directory / "data"),
            "REDIS_URL": redis_url,
            "HOST": LOOPBACK,
            "PORT": str(port),
            "POLLING_INTERVAL": "2",
            "DELETIONS_MASS_MINIMUM": "2",
            "READY_REQUIRE_WEBHOOK": "false",
            "DJANGO_SUPERUSER_PASSWORD": self.password,
            **environ,
        }
        self.manage("migrate", "--verbosity=0")
        self.manage("createsuperuser", "--noinput", f"--username={self.username}", "--email=")

    def start(self) -> Program:
        return Program(["manage.py", "runmonitor"], log=self.log, environ=self.environ)

    def manage(self, *arguments: str) -> str:
        """Run another command of the same installation; returns what it printed."""
        return self._run("manage.py", *arguments)

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**os.environ, **self.environ, "DJANGO_SETTINGS_MODULE": "bucketwatch.settings"},
            capture_output=True,
            text=True,
            check=False,
            timeout=180,  # a busy machine; pytest has a limit of its own
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def call(self, python: str) -> str:
        """Run a statement with ``services`` and ``selectors``; returns what it printed."""
        return self._run("-c", _CALL.format(call=python))

    def add(self, name: str, s3: S3Account, **options: object) -> None:
        """Watch a bucket of the S3 server, as somebody in the admin would."""
        given = {
            "name": name,
            "endpoint": s3.url,
            "region": "us-test-1",
            "access_key": s3.access_key,
            "secret_key": s3.secret_key,
            **options,
        }
        self.call(f"services.add_bucket(**{given!r})")


class Product(Installation, Program):
    """An installation that runs."""

    def __init__(self, directory: Path, *, redis_url: str, **environ: str) -> None:
        Installation.__init__(self, directory, redis_url=redis_url, **environ)
        Program.__init__(self, ["manage.py", "runmonitor"], log=self.log, environ=self.environ)

    def wait_until_ready(self) -> None:
        def ready() -> bool:
            if self.process.poll() is not None:
                pytest.fail(self.output())
            with suppress(OSError), urllib.request.urlopen(f"{self.url}/ready") as answer:
                return bool(answer.status == 200)
            return False

        eventually(ready)

    def stop_and_wait(self) -> None:
        """Stop it as an init would; returns when its whole tree is gone."""
        tree = self.tree()
        self.signal(signal.SIGTERM)
        all_gone(tree)
