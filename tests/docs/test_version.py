"""There is one version, and everybody who tells it tells that one."""

import re
import subprocess
import sys

import pytest

from bucketwatch import __version__
from tests.support.processes import ROOT


@pytest.mark.parametrize("asked", ["version", "--version"])
def test_the_command_tells_our_version_and_not_djangos_even_without_settings(asked):
    told = subprocess.run(
        [sys.executable, "manage.py", asked],
        cwd=ROOT,
        env={"ENV_FILE": "/nowhere"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert told.stdout == f"bucketwatch {__version__}\n"


def test_the_schema_of_the_api_tells_it(client):
    assert client.get("/api/schema/").json()["info"]["version"] == __version__


def test_the_changelog_has_a_section_for_it_or_for_what_comes():
    titles = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert {__version__, "Unreleased"} & set(titles[:1])
