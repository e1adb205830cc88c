"""The commands of the documentation are run as they stand, in a copy of the repository.

Each page that has some is read in a *room*: what the page says is there before its first command.
Ports 8080 and 6379 become others; everything else is taken literally.
"""

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from bucketwatch.local.servers import LOOPBACK, RedisServer, free_port
from tests.support import notifications
from tests.support.doc_blocks import ALL, Block
from tests.support.older_monitor import OlderMonitor
from tests.support.processes import ROOT, all_gone, descendants
from tests.support.redis_topology import RedisTopology
from tests.support.waiting import eventually

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]

RUN_WITHIN_S = 120
MANAGE = ".venv/bin/python manage.py"
SERVES = re.compile(r"make (demo|run)|manage\.py runmonitor")
NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv", ".env", "var", "site", ".*_cache", "__pycache__"
)
# Only `curl` with this says that it was refused.
PRELUDE = 'curl() { command curl --no-progress-meter --fail-with-body "$@"; }\n'


class Terminal:
    """A shell in ``directory``; what stays is run in one of its own, and ended by Ctrl-C.

    A server is ended before the next one is started.
    """

    def __init__(self, directory: Path) -> None:
        self.directory, self.port, self.redis_port = directory, free_port(), 0
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "HOST": LOOPBACK,
            "PORT": str(self.port),
            "PYTHONUNBUFFERED": "1",
        }
        self.output = directory / "typed.log"
        self._staying: list[subprocess.Popen[bytes]] = []
        self._shell = self._bash("-s", stdin=subprocess.PIPE)
        self._typed = 0
        self.type(PRELUDE)

    def run(self, block: Block) -> None:
        """Run a block to its end, or until what stays is up."""
        self._say(f"--- {block}\n")
        text = block.text.replace("8080", str(self.port)).replace("6379", str(self.redis_port))
        if block.stops or (block.stays and SERVES.search(text)):
            self.interrupt()  # there is one port
        if block.stays:
            self._start(block, text)
        else:
            self.type(text)

    def set(self, **settings: str) -> None:
        """Add lines to `.env`."""
        with (self.directory / ".env").open("a") as env:
            env.writelines(f"{name}={value}\n" for name, value in settings.items())

    def interrupt(self) -> None:
        """Ctrl-C for all that stays."""
        while self._staying:
            process = self._staying.pop()
            tree = descendants(process.pid)
            os.killpg(process.pid, signal.SIGINT)
            all_gone(tree)
            process.wait()

    def close(self) -> None:
        self.interrupt()
        assert self._shell.stdin
        self._shell.stdin.close()
        self._shell.wait(10)

    def _bash(self, *arguments: str, stdin: int) -> subprocess.Popen[bytes]:
        with self.output.open("ab") as output:
            return subprocess.Popen(
                ["bash", "-eu", "-o", "pipefail", *arguments],
                cwd=self.directory,
                env=self.environ,
                stdin=stdin,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def type(self, text: str) -> None:
        """Run this in the shell, which keeps its variables, and wait for its end."""
        self._typed += 1
        script = self.directory / f"typed-{self._typed}.sh"
        script.write_text(text)
        assert self._shell.stdin
        self._shell.stdin.write(f"source {script} </dev/null; touch {script}.done\n".encode())
        self._shell.stdin.flush()
        done = script.with_name(f"{script.name}.done")
        eventually(lambda: done.exists() or self._shell.poll() is not None, RUN_WITHIN_S)
        assert done.exists(), self._said()

    def _start(self, block: Block, text: str) -> None:
        before = self.output.stat().st_size
        process = self._bash("-c", text, stdin=subprocess.DEVNULL)
        self._staying.append(process)

        def is_up() -> bool:
            if process.poll() is not None:
                pytest.fail(self._said())
            if not SERVES.search(block.text):
                return self.output.stat().st_size > before
            with suppress(OSError), urllib.request.urlopen(f"http://{LOOPBACK}:{self.port}/ready"):
                return True
            return False

        eventually(is_up, RUN_WITHIN_S)

    def _say(self, line: str) -> None:
        with self.output.open("a") as output:
            output.write(line)

    def _said(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace")


Open = Callable[[], Terminal]


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Open]:
    """Open a terminal in a copy of the repository in which everything is installed already."""
    opened: list[Terminal] = []
    copy = tmp_path / "bucketwatch"
    shutil.copytree(ROOT, copy, ignore=NOT_COPIED)
    install(copy / ".venv")

    def open_() -> Terminal:
        opened.append(Terminal(copy))
        return opened[-1]

    yield open_
    for each in opened:
        each.close()


def install(venv: Path) -> None:
    """Make this virtual environment another name of the one that runs the tests."""
    venv.mkdir()
    for entry in Path(sys.prefix).iterdir():
        (venv / entry.name).symlink_to(entry)
    for verb in ("created", "base", "demo", "dev", "docs"):
        stamp = venv / f".{verb}"
        stamp.unlink(missing_ok=True)
        stamp.touch()


@pytest.fixture
def with_token(demo: Terminal) -> Terminal:
    """The page of the API was read as far as its tokens."""
    demo.run(block_with("demo()", "docs/api.md"))
    demo.run(block_with("TOKEN=", "docs/api.md"))
    return demo


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis as the documentation wants it."""
    server = RedisServer(tmp_path / "redis", appendonly=True)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def clone(terminal: Open, store) -> Terminal:
    """A fresh clone beside a Redis in whose queue a message waits; S3 servers are on this host."""
    opened = terminal()
    opened.redis_port = store.port
    example = opened.directory / ".env.example"
    settings = f"REDIS_PORT={store.port}\nSECURITY_ALLOW_PRIVATE_ENDPOINTS=true\n"
    example.write_text(example.read_text() + settings)
    waiting = notifications.example(detection_time=time.time())
    with store.client() as client:
        client.rpush(notifications.QUEUE, json.dumps(waiting))
    return opened


@pytest.fixture
def demo(terminal: Open) -> Terminal:
    """`make demo` runs in another terminal."""
    opened = terminal()
    opened.run(block_with("make demo", "README.md"))
    return opened


@pytest.fixture
def configured(clone: Terminal) -> Terminal:
    """`.env` names that Redis, and the database has its tables; nothing runs yet."""
    example = (clone.directory / ".env.example").read_text()
    (clone.directory / ".env").write_text(example)
    clone.set(SECRET_KEY=secrets.token_urlsafe(50))
    clone.type(f"{MANAGE} migrate --verbosity 0")
    return clone


@pytest.fixture
def with_infisical(configured: Terminal, infisical_server) -> Terminal:
    """`.env` names an Infisical as well."""
    configured.set(
        INFISICAL_API_URL=infisical_server.url,
        INFISICAL_PROJECT_ID=infisical_server.project_id,
        INFISICAL_CLIENT_ID=infisical_server.client_id,
        INFISICAL_CLIENT_SECRET=infisical_server.client_secret,
    )
    return configured


@pytest.fixture
def moving_to_infisical(watching: Terminal, with_infisical: Terminal) -> Terminal:
    """There are keys in the embedded vault, and from now on `.env` names an Infisical."""
    return with_infisical


@pytest.fixture
def with_sentinels(configured: Terminal, tmp_path) -> Iterator[Terminal]:
    """`.env` names the sentinels of a master with two replicas."""
    with RedisTopology(tmp_path / "topology") as topology:
        configured.set(**topology.environ())
        yield configured
        configured.interrupt()


@pytest.fixture
def watching(configured: Terminal, s3_server) -> Terminal:
    """A bucket `media-in` is known; nothing runs yet."""
    s3_server.put(s3_server.bucket("media-in"), "a.txt")
    bucket = {
        "name": "media-in",
        "endpoint": s3_server.url,
        "access_key": s3_server.access_key,
        "secret_key": s3_server.secret_key,
        "webhook_url": "https://api.example.com/hook",
    }
    file = configured.directory / "bucket.yaml"
    file.write_text(yaml.safe_dump({"buckets": [bucket]}))
    configured.type(f"{MANAGE} importbuckets bucket.yaml; rm bucket.yaml")
    return configured


@pytest.fixture
def installation(watching: Terminal) -> Terminal:
    """`make run` runs in another terminal."""
    watching.run(block_with("make run", "docs/tutorial.md"))
    return watching


@pytest.fixture
def beside_the_older_monitor(
    with_infisical: Terminal, store, s3_server, infisical_server
) -> Terminal:
    """The older monitor was stopped just now; its Redis and its vault are those of `.env`."""
    with store.client() as client:
        older = OlderMonitor(client, infisical_server, batch=1000)
        s3_server.put(s3_server.bucket("media-in"), "a.txt")
        keys = (s3_server.access_key, s3_server.secret_key)
        older.add("media-in", s3_server.url, keys=keys)
        older.scan()
    return with_infisical


def block_with(command: str, page: str) -> Block:
    [block] = [block for block in ALL if block.page == page and command in block.text]
    return block


ROOMS = {
    "README.md": "clone",
    "docs/api.md": "demo",
    "docs/consuming.md": "demo",
    "docs/how-to/backup.md": "installation",
    "docs/how-to/infisical.md": "moving_to_infisical",
    "docs/how-to/sentinel.md": "with_sentinels",
    "docs/how-to/several-hosts.md": "configured",
    "docs/how-to/upgrading.md": "configured",
    "docs/redis.md": "with_token",
    "docs/taking-over.md": "beside_the_older_monitor",
    "docs/tutorial.md": "clone",
    "docs/vault.md": "installation",
}


def test_every_page_with_commands_has_a_room():
    assert sorted({block.page for block in ALL if block.is_run}) == sorted(ROOMS)


@pytest.mark.parametrize("page", ROOMS)
def test_the_commands_of_a_page_can_be_typed_as_they_stand(page, request):
    terminal: Terminal = request.getfixturevalue(ROOMS[page])
    for block in ALL:
        if block.page == page and block.is_run:
            terminal.run(block)
