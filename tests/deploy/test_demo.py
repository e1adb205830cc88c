"""`make demo` as a person meets it: whole process trees, real changes, real notifications."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import boto3
import pytest
import redis

from bucketwatch.demo.home import Home
from bucketwatch.demo.world import BUCKETS
from bucketwatch.local.servers import free_port, listen
from tests.support.notifications import QUEUE, queued
from tests.support.processes import ROOT, Program, all_gone
from tests.support.waiting import eventually

pytestmark = pytest.mark.processes

NOTIFICATION = re.compile(r"^\d\d:\d\d:\d\d  (created|detected|updated) .*$", re.MULTILINE)


PROGRAM = ("-m", "bucketwatch.demo")
# What `make` is to the demo.
STARTER = "import subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]], check=False)"


class Demo(Program):
    def __init__(self, var: Path, log: Path, *, program: Sequence[str | Path] = PROGRAM) -> None:
        self.var = var
        self.started_at = time.time()
        super().__init__([*program, "--var", var], log=log, environ={"PORT": str(free_port())})

    def way_in(self) -> dict[str, Any]:
        """`var/demo.json` of this start."""

        def ready() -> bool:
            if self.process.poll() is not None:
                pytest.fail(self.output())
            return "bucketwatch is ready" in self.output()

        eventually(ready, timeout=90)
        found: dict[str, Any] = json.loads((self.var / "demo.json").read_text())
        return found

    def printed(self) -> list[tuple[str, str]]:
        """Kind and line of each notification printed so far."""
        return [(found[1], found[0]) for found in NOTIFICATION.finditer(self.output())]

    def wait_for(self, *kinds: str) -> None:
        def all_printed() -> bool:
            missing = set(kinds) - {kind for kind, _ in self.printed()}
            assert not missing, f"{missing} not in: {self.output()}"
            return True

        eventually(all_printed)

    def wait_until_all_buckets_were_scanned(self) -> None:
        def scanned() -> bool:
            with redis.Redis.from_url(self.way_in()["redis"]["url"]) as client:
                last = [client.get(f"linode:objstore:last_scan:{b.name}") for b in BUCKETS]
            return all(at is not None and float(at) > self.started_at for at in last)

        eventually(scanned)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    """Start the demo, always in the same directory."""
    demos: list[Demo] = []

    def started(*program: str) -> Demo:
        log = tmp_path / f"output-{len(demos)}"
        demos.append(Demo(tmp_path / "var", log, program=program or PROGRAM))
        return demos[-1]

    yield started
    for demo in demos:
        demo.clear_away()


def queue(way_in: dict[str, Any]) -> list[dict[str, Any]]:
    with redis.Redis.from_url(way_in["redis"]["url"]) as client:
        assert way_in["redis"]["queue"] == QUEUE
        return queued(client)


def assert_each_change_is_announced_once(way_in: dict[str, Any]) -> None:
    events = queue(way_in)
    assert len({event["event_id"] for event in events}) == len(events)
    # No content is written twice: each comes once, and goes at most once.
    contents = {
        (event["bucket"], event["key"], event["etag"], event["event_type"] == "deleted")
        for event in events
    }
    assert len(contents) == len(events)


def stop(demo: Demo, number: signal.Signals) -> None:
    tree = demo.tree()
    assert len(tree) > 5, "Redis, S3, monitor, workers and web at least"
    assert demo.signal(number) == 0, demo.output()
    all_gone(tree, timeout=0)


@pytest.mark.timeout(400)
def test_the_demo_shows_real_changes_and_a_second_start_repeats_nothing(start):
    demo = start()
    way_in = demo.way_in()
    demo.wait_for("created", "detected", "updated")
    assert way_in["operator"]["password"] in demo.output()
    assert way_in["url"] in demo.output()
    demo.wait_until_all_buckets_were_scanned()
    stop(demo, signal.SIGTERM)
    first = demo.printed()

    demo = start()
    way_in = demo.way_in()
    demo.wait_until_all_buckets_were_scanned()
    demo.wait_for("created")
    assert_each_change_is_announced_once(way_in)
    stop(demo, signal.SIGINT)
    assert not set(first) & set(demo.printed())


@pytest.mark.timeout(400)
def test_a_killed_demo_leaves_no_process_and_the_next_one_goes_on(start):
    demo = start()
    demo.way_in()
    demo.wait_until_all_buckets_were_scanned()
    tree = demo.tree()
    demo.signal(signal.SIGKILL)
    all_gone(tree)

    demo = start()
    way_in = demo.way_in()
    demo.wait_until_all_buckets_were_scanned()
    assert_each_change_is_announced_once(way_in)
    stop(demo, signal.SIGTERM)


@pytest.mark.timeout(400)
def test_a_program_can_go_on_from_what_the_demo_wrote(start):
    demo = start()
    way_in = demo.way_in()
    assert (demo.var / "demo.json").stat().st_mode & 0o777 == 0o600
    assert (demo.var / "demo.env").stat().st_mode & 0o777 == 0o600

    request = urllib.request.Request(
        f"{way_in['url']}/api/auth/token",
        data=json.dumps(way_in["api"]).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        assert json.load(answer)["token_type"] == "Bearer"

    s3 = boto3.client(
        "s3",
        endpoint_url=way_in["s3"]["endpoint"],
        region_name="us-east-1",
        aws_access_key_id=way_in["s3"]["access_key"],
        aws_secret_access_key=way_in["s3"]["secret_key"],
    )
    assert {row["Name"] for row in s3.list_buckets()["Buckets"]} == set(way_in["s3"]["buckets"])
    s3.put_object(Bucket="invoices", Key="mine, all mine.pdf", Body=b"mine")
    s3.close()
    eventually(lambda: "mine, all mine.pdf" in {event["key"] for event in queue(way_in)}, 60)

    beside = subprocess.run(
        [sys.executable, "manage.py", "runscan", "--all"],
        cwd=ROOT,
        env={"PATH": os.defpath, "ENV_FILE": str(demo.var / "demo.env")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert beside.returncode == 0, beside.stdout + beside.stderr
    assert all(bucket.name in beside.stdout for bucket in BUCKETS)
    stop(demo, signal.SIGTERM)


@pytest.mark.timeout(400)
def test_a_second_signal_ends_the_demo_at_once(start):
    demo = start()
    demo.way_in()
    tree = demo.tree()
    demo.process.send_signal(signal.SIGINT)
    eventually(lambda: "Stopping" in demo.output(), 20)
    assert demo.signal(signal.SIGINT) in {0, 128 + signal.SIGINT}
    all_gone(tree)


@pytest.mark.timeout(400)
def test_the_demo_ends_with_the_make_that_started_it(start):
    demo = start("-c", STARTER, *PROGRAM, "--with-parent")
    demo.way_in()
    tree = demo.tree()
    demo.signal(signal.SIGKILL)
    all_gone(tree)
    assert "Stopped." in demo.output()


def refusal(tmp_path: Path, port: str) -> str:
    """What the demo says on standard error, in one line, when it cannot start."""
    refused = subprocess.run(
        [sys.executable, "-m", "bucketwatch.demo", "--var", tmp_path / "var"],
        cwd=ROOT,
        env={"PATH": os.defpath, "PORT": port},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    return refused.stderr


@pytest.fixture
def taken_port() -> Iterator[int]:
    with listen(0) as listener:
        yield listener.getsockname()[1]


def test_a_busy_port_is_named_with_the_way_out(tmp_path, taken_port):
    assert f"port {taken_port} cannot be used" in (said := refusal(tmp_path, str(taken_port)))
    assert "PORT=8081 make demo" in said


@pytest.mark.parametrize("port", ["eighty", "0", "65536", "-1"])
def test_an_impossible_port_is_refused(tmp_path, port):
    assert "PORT must be a number from 1 to 65535" in refusal(tmp_path, port)


def test_a_second_demo_in_the_same_directory_is_refused(tmp_path):
    with Home(tmp_path / "var").locked():
        assert "a demo is running already" in refusal(tmp_path, "8080")


def test_the_s3_port_of_the_last_time_is_needed_again(tmp_path):
    made = Home(tmp_path / "var").secrets()
    with socket.socket() as other:
        other.bind(("127.0.0.1", made.s3_port))
        other.listen()
        assert f"port {made.s3_port} cannot be used" in refusal(tmp_path, str(free_port()))


def test_files_of_somebody_else_are_named(tmp_path):
    (tmp_path / "var").write_text("no directory")  # what root may not do either
    assert refusal(tmp_path, "8080") == f"make demo: {tmp_path}/var: File exists\n"


def test_a_damaged_file_says_how_to_start_over(tmp_path):
    home = Home(tmp_path / "var")
    (home.directory / "secrets.json").write_text("")  # a machine that lost power
    assert "is damaged; rm -r var/demo* starts over" in refusal(tmp_path, "8080")


def test_files_that_redis_does_not_take_say_how_to_start_over(tmp_path):
    files = Home(tmp_path / "var").redis_directory / "appendonlydir"
    files.mkdir(parents=True)
    (files / "appendonly.aof.manifest").write_text("written by another server\n")
    assert "rm -r var/demo* starts over" in refusal(tmp_path, "8080")
