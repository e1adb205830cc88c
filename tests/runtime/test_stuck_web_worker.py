"""A web worker that holds its interpreter: gunicorn as `runweb` starts it, with its settings."""

import re
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import pytest

from bucketwatch.local.servers import LOOPBACK, free_port
from scanning.runtime.processes import web_command
from tests.support import stuck_site
from tests.support.processes import Program
from tests.support.waiting import eventually

MINUTE_S = 60


class Web:
    """A running `manage.py runweb` with the routes of `stuck_site`."""

    def __init__(self, directory: Path) -> None:
        port = free_port()
        self.url = f"http://{LOOPBACK}:{port}"
        self.begun = directory / "stuck"
        self.program = Program(
            ["manage.py", "runweb"],
            log=directory / "web.log",
            environ={
                "DJANGO_SETTINGS_MODULE": stuck_site.__name__,
                "DATA_DIR": str(directory / "data"),
                "HOST": LOOPBACK,
                "PORT": str(port),
                stuck_site.BEGUN: str(self.begun),
            },
        )

    def worker(self) -> int:
        """Ask which process answers; 0 if none does."""
        try:
            with urllib.request.urlopen(f"{self.url}/worker/", timeout=5) as answer:
                return int(answer.read())
        except (OSError, HTTPException):
            return 0

    def ask_what_never_ends(self) -> None:
        with suppress(OSError, HTTPException):
            urllib.request.urlopen(f"{self.url}/stuck/", timeout=180).close()


@pytest.fixture
def web(tmp_path) -> Iterator[Web]:
    web = Web(tmp_path)
    yield web
    web.program.ask_to_stop()
    web.program.clear_away()


@pytest.mark.starts_early
def test_a_web_worker_that_holds_its_interpreter_is_replaced_and_others_are_answered(web):
    stuck = eventually(web.worker)
    asking = threading.Thread(target=web.ask_what_never_ends)
    asking.start()
    eventually(web.begun.exists)
    assert web.worker() == 0  # its other threads get no turn
    other = eventually(web.worker, timeout=240)
    assert other != stuck
    asking.join(60)  # the request of the stuck worker ended with it
    assert not asking.is_alive()
    assert "WORKER TIMEOUT" in web.program.output()


def test_the_web_server_ends_a_stuck_worker_within_a_minute():
    [timeout_s] = re.findall(r"--timeout=(\d+)", " ".join(web_command()))
    assert 10 <= int(timeout_s) <= MINUTE_S - 10
