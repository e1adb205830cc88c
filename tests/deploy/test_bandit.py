"""Bandit's findings are answered, each at its line and with a reason.

Ruff has nearly all of bandit's rules, under the same numbers: its B608 is ruff's S608. So the
answers are ruff's, ``# noqa: S608 - why``, and bandit makes sure that ruff did not miss any.
"""

import json
import subprocess
import sys
import tomllib
from typing import Any

from tests.support.processes import ROOT

PRODUCT = ["bucketwatch", "buckets", "scanning", "manage.py"]
# Where bandit has two rules for what is one of ruff's.
ALSO = {"B703": "S308"}


def findings() -> list[dict[str, Any]]:
    options = ["--recursive", "--quiet", "--format=json", "--configfile=pyproject.toml"]
    done = subprocess.run(
        [sys.executable, "-m", "bandit", *options, *PRODUCT],
        cwd=ROOT,
        capture_output=True,
        check=False,
        timeout=100,
    )
    report = json.loads(done.stdout)
    assert report["errors"] == []
    found: list[dict[str, Any]] = report["results"]
    return found


def is_answered(finding: dict[str, Any]) -> bool:
    rule = ALSO.get(finding["test_id"], finding["test_id"].replace("B", "S", 1))
    lines = (ROOT / finding["filename"]).read_text(encoding="utf-8").splitlines()
    first, last = finding["line_range"][0], finding["line_range"][-1]
    return any("noqa:" in line and rule in line for line in lines[first - 1 : last])


def test_every_finding_of_bandit_is_answered_where_it_is():
    found = findings()
    assert found, "bandit found nothing at all: did it look?"
    open_ones = [finding for finding in found if not is_answered(finding)]
    assert [f"{f['filename']}:{f['line_number']} {f['issue_text']}" for f in open_ones] == []


def test_ruff_has_its_security_rules_on():
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    off = [rule for rule in lint["ignore"] if rule.startswith("S") and rule[1:].isdecimal()]
    assert (lint["select"], off) == (["ALL"], ["S603", "S607"])
