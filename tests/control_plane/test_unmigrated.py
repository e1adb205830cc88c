"""A new installation, or an upgraded one, on which nobody ran `manage.py migrate`."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from django.db import OperationalError, ProgrammingError, connection

from scanning.runtime.database import UNMIGRATED, is_unmigrated
from tests.support.processes import ROOT, Program, all_gone
from tests.support.servers import RedisServer
from tests.support.waiting import eventually


@pytest.mark.parametrize(
    ("exc", "expected"),
    [
        (OperationalError("no such table: buckets_bucket"), True),
        (OperationalError("no such column: buckets_bucket.lanes"), True),
        (ProgrammingError('relation "buckets_bucket" does not exist'), True),
        (OperationalError("database is locked"), False),
        (OperationalError("connection refused"), False),
    ],
    ids=str,
)
def test_it_is_told_from_a_database_that_is_away(exc, expected):
    assert is_unmigrated(exc) is expected


@pytest.mark.django_db
def test_ready_says_what_to_run(client, redis_server):
    def refuse(*_: object) -> None:
        raise OperationalError("no such table: buckets_bucket")

    with connection.execute_wrapper(refuse):
        answer = client.get("/ready")
    assert answer.status_code == 503
    assert json.loads(answer.content)["checks"]["database"] == UNMIGRATED


@pytest.mark.processes
@pytest.mark.parametrize(("command", "status"), [("status", 2), ("reconcile", 1)])
def test_commands_say_what_to_run(tmp_path, redis_server, command, status):
    done = subprocess.run(
        [sys.executable, "manage.py", command],
        cwd=ROOT,
        env={**os.environ, "DATA_DIR": str(tmp_path), "REDIS_URL": redis_server.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (status, "")
    assert UNMIGRATED in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.processes
def test_the_monitor_says_what_to_run_and_says_it_once(tmp_path: Path, redis_server: RedisServer):
    program = Program(
        ["manage.py", "runmonitor", "--no-web", "--no-workers"],
        log=tmp_path / "log",
        environ={"DATA_DIR": str(tmp_path), "REDIS_URL": redis_server.url},
    )
    try:
        eventually(lambda: UNMIGRATED in program.output())
        tree = program.tree()
        with redis_server.client() as client:  # several rounds of housekeeping later
            at = int(client.info("commandstats")["cmdstat_evalsha"]["calls"])
            eventually(
                lambda: int(client.info("commandstats")["cmdstat_evalsha"]["calls"]) > at + 10
            )
        program.signal(signal.SIGTERM)
        all_gone(tree)
        assert program.output().count(UNMIGRATED) == 1
    finally:
        program.clear_away()
