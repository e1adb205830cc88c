"""`make` on a fresh machine: what it finds, what it says."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import ROOT

TOOLS = ("make", "bash", "sed", "expand", "touch", "id")


class Machine:
    """A directory with our Makefile, and a PATH with only these programs."""

    def __init__(self, directory: Path) -> None:
        self.clone = directory / "clone"
        self.bin = directory / "bin"
        (self.clone / "requirements").mkdir(parents=True)
        self.bin.mkdir()
        shutil.copy(ROOT / "Makefile", self.clone)
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found, tool
            (self.bin / tool).symlink_to(found)

    def program(self, name: str, *lines: str) -> Path:
        path = self.bin / name
        path.write_text("\n".join(["#!/bin/bash", *lines]) + "\n")
        path.chmod(0o755)
        return path

    def make(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.bin / "make", "--no-print-directory", *arguments],
            cwd=self.clone,
            env={"PATH": str(self.bin), **environ},
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )

    def python(self) -> Path:
        return self.clone / ".venv/bin/python"


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_without_a_verb_make_lists_them(machine):
    listed = machine.make().stdout
    for verb in ("demo", "run", "test", "lint"):
        assert f"make {verb}" in listed


def test_a_python_that_only_prints_an_error_is_passed_over(machine):
    machine.program("python3.12", "echo 'pyenv: python3.12: command not found' >&2", "exit 127")
    machine.program("python3.11", "exit 1")
    machine.program("python3", f'exec {sys.executable} "$@"')
    made = machine.make(".venv/.created")
    assert made.returncode == 0, made.stderr
    assert subprocess.run([machine.python(), "-c", "import pip"], check=False).returncode == 0


def test_a_machine_without_python_is_told_what_is_missing(machine):
    refused = machine.make(".venv/.created")
    assert refused.returncode != 0
    assert "needs Python 3.11 or 3.12, and PATH has neither" in refused.stderr
    assert not machine.python().exists()


def test_a_python_without_venv_is_told_which_package_is_missing(machine):
    machine.program(
        "python3.11",
        'case "$*" in *ensurepip*) exit 1;; esac',
        f'exec {sys.executable} "$@"',
    )
    refused = machine.make(".venv/.created")
    assert refused.returncode != 0
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"sudo apt-get install python{version}-venv" in refused.stderr


def test_a_virtual_environment_that_works_is_kept(machine):
    machine.program("python3", f'exec {sys.executable} "$@"')
    assert machine.make(".venv/.created").returncode == 0
    mark = machine.clone / ".venv/mark"
    mark.touch()
    (machine.clone / ".venv/.created").unlink()
    assert machine.make(".venv/.created").returncode == 0
    assert mark.exists()


def test_make_run_without_settings_says_what_to_do(machine):
    venv = machine.clone / ".venv"
    venv.mkdir()
    for file in ("requirements/base.txt", ".venv/.created", ".venv/.base"):
        (machine.clone / file).touch()
    os.utime(venv / ".base", (2e9, 2e9))
    refused = machine.make("run")
    assert refused.returncode != 0
    assert "copy .env.example to .env" in refused.stderr


def test_a_machine_that_cannot_install_ceph_is_told_which_tests_are_skipped(machine):
    machine.program("apt-get", "exit 1")
    made = machine.make("ceph")
    assert made.returncode == 0, made.stderr
    assert "tests that ask Ceph will be skipped" in made.stderr
