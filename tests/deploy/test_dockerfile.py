"""The `Dockerfile`: linted, and its own steps done in a directory, which takes no engine."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bucketwatch.local.servers import free_port
from scanning.runtime.processes import STOP_S
from tests.support.deployment import build, dockerfile, ignored
from tests.support.processes import ROOT, Program, all_gone
from tests.support.waiting import eventually

BUILD, FINAL = dockerfile()


def instruction(name: str) -> str:
    """What the image is told last under this name."""
    return [step.text for step in FINAL if step.name == name][-1]


def words(name: str) -> list[str]:
    return [step.words() for step in FINAL if step.name == name][-1]


def test_hadolint_has_nothing_to_say():
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "Dockerfile"], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"")


def test_the_base_is_pinned():
    text = (ROOT / "Dockerfile").read_text()
    [base] = [line for line in text.splitlines() if line.startswith("ARG BASE=")]
    tag, _, digest = base.partition("@sha256:")
    assert tag.startswith("ARG BASE=python:3.12.")
    assert len(digest) == 64
    assert [stage[0].text for stage in (BUILD, FINAL)] == ["${BASE} AS build", "${BASE}"]


def test_packages_are_installed_by_their_hashes_and_never_compiled():
    [install] = [step.text for step in BUILD if "pip" in step.text and step.name == "RUN"]
    assert "--require-hashes" in install
    assert "--only-binary=:all:" in install


def test_the_image_runs_as_a_user_that_kubernetes_can_see_is_not_root():
    assert instruction("USER") == "10001:10001"


def test_all_that_is_copied_is_let_in_and_nothing_else():
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    assert rules[1] == "*"
    assert let_in == {step.text.split()[0] for step in BUILD if step.name == "COPY"}


def test_the_product_does_not_import_the_demo_which_the_image_lacks():
    product = [
        path
        for folder in ("bucketwatch", "buckets", "scanning")
        for path in (ROOT / folder).rglob("*.py")
        if not ignored(path)
    ]
    kept_out = re.compile(r"bucketwatch\.(demo|local)\b")
    assert [path for path in product if kept_out.search(path.read_text())] == []


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    """What the build stage leaves in /app."""
    directory: Path = tmp_path_factory.mktemp("image")
    build(directory)
    return directory


def test_static_files_and_bytecode_are_there(image):
    assert (image / "staticfiles/admin/css/base.css").is_file()
    assert (image / "staticfiles/buckets/admin.css").is_file()
    assert list(image.glob("scanning/__pycache__/scanner.cpython-*.pyc"))


def test_no_secret_tests_or_demo_get_in(image):
    there = {path.name for path in image.iterdir()}
    folders = {"bucketwatch", "buckets", "scanning", "templates", "staticfiles", "requirements"}
    assert there == folders | {"manage.py", "__pycache__", ".venv"}
    assert not (image / "bucketwatch/demo").exists()
    assert not (image / "bucketwatch/local").exists()


class Container(Program):
    """The command of the image, run in what the build stage has left."""

    def __init__(self, image: Path, log: Path, environ: dict[str, str]) -> None:
        self._image, self._environ = image, {**os.environ, **environ}
        migrated = self.run_beside(["manage.py", "migrate", "--verbosity=0"])
        assert migrated.returncode == 0, migrated.stderr
        python, *arguments = words("CMD")
        assert python == "python"
        super().__init__(arguments, log=log, environ=environ, directory=image, python=self._python)

    @property
    def _python(self) -> Path:
        return self._image / ".venv/bin/python"

    def run_beside(self, arguments: list[str]) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [self._python, *arguments],
            cwd=self._image,
            env=self._environ,
            capture_output=True,
            timeout=60,
            check=False,
        )


@pytest.fixture
def container(image, tmp_path, redis_server) -> Iterator[Container]:
    environ = {
        "DATA_DIR": str(tmp_path / "data"),
        "DJANGO_SETTINGS_MODULE": "bucketwatch.settings",
        "HOME": "/nonexistent",  # as in the image
        "HOST": "127.0.0.1",
        "PORT": str(free_port()),
        "REDIS_URL": redis_server.url,
        "LOG_LEVEL": "INFO",
    }
    container = Container(image, tmp_path / "log", environ)
    yield container
    container.clear_away()


@pytest.mark.processes
@pytest.mark.timeout(180)
def test_its_command_runs_its_health_check_says_so_and_its_stop_signal_ends_it(container):
    python, *arguments = words("HEALTHCHECK")
    assert python == "python"

    def is_healthy() -> bool:
        return bool(container.run_beside(arguments).returncode == 0)

    eventually(is_healthy, timeout=90, interval=0.5)
    tree = container.tree()
    assert container.signal(signal.Signals[instruction("STOPSIGNAL")]) == 0
    all_gone(tree, timeout=STOP_S)
    assert "ERROR" not in container.output()
    assert not is_healthy()
