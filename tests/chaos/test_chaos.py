"""A minute of `make chaos`."""

import re
import subprocess
import sys

import pytest

from tests.support.processes import ROOT

WITHIN_S = 540


@pytest.mark.processes
@pytest.mark.starts_early
@pytest.mark.timeout(WITHIN_S + 30)
def test_a_minute_of_kills_and_failovers_loses_repeats_and_invents_nothing():
    program = [sys.executable, "-m", "tests.chaos", "--with-parent", "--seconds", "60"]
    done = subprocess.run(
        program, cwd=ROOT, capture_output=True, text=True, check=False, timeout=WITHIN_S
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    figures = dict(
        re.findall(
            r"^(lost|duplicated|false|kills|failovers|events|S3 faults) (\d+)", said, re.MULTILINE
        )
    )
    assert (figures["lost"], figures["duplicated"], figures["false"]) == ("0", "0", "0")
    assert all(int(figures[what]) > 0 for what in ("kills", "failovers", "events", "S3 faults"))
