"""`manage.py runscan` from outside: on a terminal, in a pipe, and when somebody presses Ctrl-C."""

import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scanning import wiring
from scanning.core import redis_keys
from scanning.core.types import KeyPair
from tests.support import engine_buckets
from tests.support.canned_http import CannedServer, Stall
from tests.support.engine_buckets import REGION
from tests.support.processes import ROOT, Program
from tests.support.waiting import eventually

pytestmark = pytest.mark.processes


@pytest.fixture
def environ(redis_server, tmp_path) -> dict[str, str]:
    return {
        "DJANGO_SETTINGS_MODULE": "bucketwatch.settings",
        "REDIS_URL": redis_server.url,
        "DATA_DIR": str(tmp_path),
    }


@pytest.fixture
def start(environ, tmp_path) -> Iterator[Callable[..., Program]]:
    started: list[Program] = []

    def run(*arguments: str) -> Program:
        program = Program(
            ["manage.py", "runscan", *arguments], log=tmp_path / "log", environ=environ
        )
        started.append(program)
        return program

    yield run
    for program in started:
        program.clear_away()


def on_a_terminal(*arguments: str, environ: dict[str, str]) -> str:
    """What the command writes to a terminal."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    with subprocess.Popen(
        [sys.executable, "manage.py", "runscan", *arguments],
        cwd=ROOT,
        env=os.environ | environ | {"TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    ):
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # the other side is closed
                break
    os.close(ours)
    return shown.decode()


def test_a_terminal_shows_a_bar_and_the_lines_above_it(store, s3_server, environ):
    name = s3_server.bucket()
    s3_server.put(name, "key")
    engine_buckets.put_real(s3_server, name)
    shown = on_a_terminal(name, environ=environ)
    assert "1.00 objects [" in shown
    assert "1 pages, 1 events, 1/1 buckets" in shown
    assert f"\r{name}: 1 objects, 1 created" in shown.replace("\x1b[A", "").replace(" \r", "\r")
    # Known from the last scan, so there is a bar; and it is gone in the end.
    again = on_a_terminal(name, environ=environ)
    assert "100%|" in again
    assert again.rpartition("\n")[2].rpartition("\r")[2].strip() == ""


def test_a_pipe_is_given_plain_lines(store, s3_server, start):
    name = s3_server.bucket()
    engine_buckets.put_real(s3_server, name)
    program = start(name)
    assert program.process.wait(60) == 0
    [line] = program.output().splitlines()
    assert line.startswith(f"{name}: 0 objects, ")
    assert "\r" not in program.output()


def test_ctrl_c_gives_the_leases_back_and_says_what_was_scanned(store, s3_server, start):
    good = s3_server.bucket()
    s3_server.put(good, "key")
    engine_buckets.put_real(s3_server, good)
    with CannedServer(Stall()) as silent:
        wiring.vault().write(
            engine_buckets.put("silent", endpoint=silent.url).credential,
            KeyPair("access", "secret"),
        )
        program = start(good, "silent")
        eventually(lambda: silent.asked and f"{good}: 1 objects" in program.output(), 60)
        assert store.zcard(redis_keys.running(REGION)) >= 1
        assert program.signal(signal.SIGINT) == 130
    assert store.zcard(redis_keys.running(REGION)) == 0
    _, *rest = program.output().splitlines()
    assert rest == ["Stopping …", "Interrupted: 1 of 2 buckets were scanned"]


def test_ctrl_c_while_waiting_for_a_worker_scans_nothing(store, s3_server, start, tmp_path):
    name = s3_server.bucket()
    engine_buckets.put_real(s3_server, name)
    store.zadd(redis_keys.running(REGION), {name: 4_000_000_000})
    program = start(name)
    eventually(lambda: "a worker is scanning it" in program.output(), 60)
    assert program.signal(signal.SIGINT) == 130
    assert program.output().endswith("Interrupted: 0 of 1 buckets were scanned\n")
    assert store.zscore(redis_keys.running(REGION), name)  # the worker keeps its lease


def test_a_reader_that_has_enough_ends_it_quietly(store, s3_server, environ, tmp_path: Path):
    name = s3_server.bucket()
    for number in range(3):
        s3_server.put(name, f"key-{number}")
    engine_buckets.put_real(s3_server, name)
    command = f"{sys.executable} manage.py runscan {name} --dry-run | (exec <&-; sleep 0)"
    ended = subprocess.run(
        ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"],
        cwd=ROOT,
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (141, "")
