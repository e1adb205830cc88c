"""The programs of docs/how-to/embedding.md, run as they stand: only servers and keys are others."""

import os
import re
import subprocess
import sys

import pytest

from tests.support import engine_buckets
from tests.support.doc_blocks import blocks_of
from tests.support.notifications import queued
from tests.support.processes import ROOT

PAGE = ROOT / "docs/how-to/embedding.md"
PROGRAMS = [block.text for block in blocks_of(PAGE) if block.language == "python"]


@pytest.mark.parametrize("program", PROGRAMS, ids=["scanner", "monitor"])
def test_a_program_of_the_page_scans_and_announces(
    program, redis_server, s3_server, store, settings
):
    name = s3_server.bucket()
    s3_server.put(name, "key")
    engine_buckets.put_real(s3_server, name)
    for ours, theirs in {
        "media-in": name,
        "us-iad-1.linodeobjects.com": s3_server.url,
        "AKIA...": s3_server.access_key,
        '"..."': repr(s3_server.secret_key),
        "redis://localhost:6379/0": redis_server.url,
    }.items():
        program = program.replace(ours, theirs)
    environ = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
    environ |= {"REDIS_URL": redis_server.url, "DATA_DIR": str(settings.DATA_DIR)}

    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "objects=1" in done.stdout
    assert [event["key"] for event in queued(store)] == ["key"]


def test_the_page_names_where_every_documented_class_is_imported_from():
    rows = re.findall(r"^\| `(\w+)` \| `([\w.]+)` \|$", PAGE.read_text(), flags=re.MULTILINE)
    assert rows == [
        ("MultiRegionMonitor", "scanning.monitor"),
        ("BucketScanner", "scanning.scanner"),
        ("S3ClientCache", "scanning.adapters.s3"),
    ]
