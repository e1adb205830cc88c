"""`deploy/systemd/bucketwatch.service`: what it starts and how it stops it. systemd is not run."""

import shutil
import subprocess
from configparser import ConfigParser

import pytest

from scanning.runtime.processes import STOP_S
from tests.support.doc_blocks import ALL
from tests.support.processes import ROOT

UNIT = ROOT / "deploy/systemd/bucketwatch.service"


@pytest.fixture
def service():
    unit = ConfigParser(interpolation=None)
    unit.read(UNIT)
    return unit["Service"]


def test_the_unit_starts_what_the_documentation_installs(service):
    [block] = [block for block in ALL if UNIT.name in block.text]
    home = service["WorkingDirectory"]
    for command in (service["ExecStartPre"], service["ExecStart"]):
        assert command.startswith(f"{home}/.venv/bin/python manage.py ")
    assert f" {home}\n" in block.text
    assert f"DATA_DIR=/var/lib/{service['StateDirectory']}" in block.text
    assert f" {service['User']}\n" in block.text


def test_the_monitor_has_the_time_to_end_its_children_itself(service):
    assert service["KillMode"] == "mixed"
    assert int(service["TimeoutStopSec"]) > STOP_S


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path, service):
    there = tmp_path / UNIT.name
    text = UNIT.read_text().replace(f"{service['WorkingDirectory']}/.venv/bin/python", "/bin/true")
    there.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", there], capture_output=True, text=True, check=False
    )
    assert [line for line in done.stderr.splitlines() if UNIT.name in line] == []
