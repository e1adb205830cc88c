"""Log lines: which scan they are about, in every thread, and as JSON."""

import json
import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.http import HttpResponse
from django.test import RequestFactory
from django.utils.log import log_response

from buckets.api.probes import PROBES
from scanning import logs, wiring
from scanning.core.types import BucketConfig, Claim
from scanning.runtime import processes
from scanning.runtime.bucket_scanner import BucketScanner
from scanning.scan.heartbeat import LeaseHeartbeat
from tests.support import engine_buckets
from tests.support.notifications import queued
from tests.support.servers import TestS3Server
from tests.support.waiting import eventually

CLAIM = Claim("media-in", "r", 0xABC, 1, 0.0, None, 0.0, 0)


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []
        self.addFilter(logs.ScanFilter())

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def kept() -> Iterator[Kept]:
    """Every record that any library writes, as the console's handler would see it."""
    handler = Kept()
    root, loggers = logging.getLogger(), [logging.getLogger("botocore"), logging.getLogger()]
    levels = [logger.level for logger in loggers]
    root.addHandler(handler)
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    yield handler
    root.removeHandler(handler)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def bucket_of_some_objects(s3_server: TestS3Server, **ours: Any) -> BucketConfig:
    name: str = s3_server.bucket()
    for number in range(30):
        s3_server.put(name, f"key-{number:02}", b"x")
    document = engine_buckets.document(name)["bucketwatch"] | ours
    return engine_buckets.put_real(s3_server, name, bucketwatch=document)


def test_every_line_of_a_scan_names_it_whichever_thread_wrote_it(redis_server, s3_server, kept):
    bucket = bucket_of_some_objects(s3_server, fetch_metadata=True)
    claim = wiring.background().leases.claim(bucket, slots=15)
    assert claim is not None
    scanner = BucketScanner(
        bucket,
        wiring.background().connection.client,
        wiring.conf(),
        None,
        wiring.client_cache(),
        claim=claim,
        settings=replace(wiring.scan_settings(wiring.conf()), page_size=7, slow_page_s=-1.0),
    )
    kept.records.clear()
    scanner.run()
    said: dict[str, set[tuple[str, str]]] = {}
    for record in kept.records:
        thread = re.sub(r"[-_]\d+$", "", str(record.threadName))
        about = getattr(record, "bucket", ""), getattr(record, "scan", "")
        said.setdefault(thread, set()).add(about)
    assert any("30 created" in record.getMessage() for record in kept.records)
    with redis_server.client() as client:
        scan = queued(client)[0]["sequencer"][:16]
    # There may be others: those that keep leases and paces serve all scans.
    for thread in ("MainThread", "list", "head"):
        assert said[thread] == {(bucket.name, scan)}


def test_lines_after_a_scan_are_about_no_scan(kept):
    with logs.about(CLAIM):
        logging.getLogger("x").info("in it")
    logging.getLogger("x").info("after it")
    in_it, after_it = kept.records
    assert in_it.__dict__["in_scan"] == " [media-in 0000000000000abc]"
    assert after_it.__dict__["in_scan"] == ""
    assert "scan" not in after_it.__dict__


def test_a_lease_that_is_lost_is_told_of_as_part_of_its_scan(redis_server, kept):
    heartbeat = LeaseHeartbeat(wiring.background().leases, every_s=0.01)
    with heartbeat.keeping(CLAIM):
        eventually(lambda: any(r.name == "scanning.scan.heartbeat" for r in kept.records))
    record = next(r for r in kept.records if r.name == "scanning.scan.heartbeat")
    assert record.threadName == "leases"
    assert record.getMessage() == "media-in: the lease is lost; the scan ends at its next commit"
    assert record.__dict__["scan"] == "0000000000000abc"


def lines_of_a_scan(s3_server: TestS3Server, url: str, data_dir: Path, form: str) -> list[str]:
    """What `manage.py runscan` logs of a bucket with new objects."""
    bucket = bucket_of_some_objects(s3_server)
    environ = os.environ | {"REDIS_URL": url, "DATA_DIR": str(data_dir), "LOG_LEVEL": "INFO"}
    ran = subprocess.run(
        [sys.executable, str(settings.BASE_DIR / "manage.py"), "runscan", bucket.name],
        env=environ | {"LOG_FORMAT": form},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stderr.splitlines()


def test_as_text_a_line_ends_with_its_scan(redis_server, s3_server, tmp_path):
    lines = lines_of_a_scan(s3_server, redis_server.url, tmp_path, "text")
    [line] = [line for line in lines if "30 created" in line]
    assert re.search(
        r"INFO    scanning\.runtime\.bucket_scanner: .* s \[bucket-\S+ [0-9a-f]{16}\]$", line
    )


def test_as_json_each_line_is_an_object(redis_server, s3_server, tmp_path):
    objects = [
        json.loads(line) for line in lines_of_a_scan(s3_server, redis_server.url, tmp_path, "json")
    ]
    for one in objects:
        assert {"time", "level", "logger", "message", "process", "thread"} <= one.keys()
    [about_scan] = [one for one in objects if "30 created" in one["message"]]
    assert (about_scan["level"], about_scan["logger"]) == (
        "INFO",
        "scanning.runtime.bucket_scanner",
    )
    assert about_scan["message"].startswith(f"{about_scan['bucket']}: 30 objects")
    assert re.fullmatch("[0-9a-f]{16}", about_scan["scan"])
    assert datetime.fromisoformat(about_scan["time"]).utcoffset() == timedelta(0)


def formatted(record: logging.LogRecord) -> dict[str, Any]:
    logs.ScanFilter().filter(record)
    text = logs.json_formatter().format(record)
    assert "\n" not in text
    said: dict[str, Any] = json.loads(text)
    return said


def test_as_json_a_traceback_is_part_of_its_line():
    try:
        raise ValueError("half a \ud800 character")  # noqa: TRY301
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "", 1, "broke", None, sys.exc_info())
    said = formatted(record)
    assert said["message"] == "broke"
    assert "ValueError: half a" in said["exc_info"]
    assert "in_scan" not in said


def test_as_json_what_an_address_asked_for_is_not_told():
    record = logging.LogRecord("django.request", logging.WARNING, "", 1, "Bad Request", None, None)
    record.request = RequestFactory().get("/api?token=secret")
    assert "secret" not in json.dumps(formatted(record))


@pytest.mark.parametrize(("path", "lines"), [*((f"/{probe}", 0) for probe in PROBES), ("/api", 1)])
def test_a_probe_that_is_refused_each_second_does_not_fill_the_log(path, lines, caplog):
    request = RequestFactory().get(path)
    log_response("%s: %s", "x", path, response=HttpResponse(status=503), request=request)
    assert len(caplog.records) == lines


def test_as_json_gunicorn_speaks_too(settings):
    settings.SITE = settings.SITE.model_copy(update={"log_format": "json"})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings.WEB_BIND = f"127.0.0.1:{taken.getsockname()[1]}"
        process = subprocess.Popen(
            processes.web_command(), cwd=settings.BASE_DIR, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        said = json.loads(process.stderr.readline())
        process.kill()
        process.communicate()
    assert (said["logger"], said["level"]) == ("gunicorn.error", "ERROR")
    assert "in use" in said["message"]
