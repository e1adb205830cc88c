"""`make demo`: start everything, print the way in, then one line for each notification.

Ctrl-C (or SIGTERM) stops everything in order; a second one at once.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import time
import urllib.request
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from http import HTTPStatus
from json import JSONDecodeError
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from bucketwatch.demo.changes import Changer
from bucketwatch.demo.follow import Follower, line
from bucketwatch.demo.home import Home
from bucketwatch.demo.registration import prepare
from bucketwatch.demo.world import BUCKETS, seed
from bucketwatch.local.environment import product_variables, without_product_variables
from bucketwatch.local.s3_memory import Memory
from bucketwatch.local.servers import (
    LOOPBACK,
    RedisServer,
    S3Server,
    ServerError,
    ServerProcess,
    free_port,
    other_redis_server,
)
from scanning.runtime.processes import StopSignal, die_with_parent

if TYPE_CHECKING:
    from collections.abc import Sequence
    from http.client import HTTPResponse
    from types import FrameType

    from bucketwatch.demo.home import Secrets

ROOT = Path(__file__).resolve().parents[2]
READY_WITHIN_S = 90.0
MONITOR_STOPS_WITHIN_S = 17.0
LOOK_EVERY_S = 0.5
# Where and how loudly to serve is the caller's choice; everything else is the demo's own.
PASSED_ON = ("PORT", "HOST", "ALLOWED_HOSTS", "CSRF_TRUSTED_ORIGINS", "LOG_LEVEL", "LOG_FORMAT")
START_OVER = "rm -r var/demo* starts over"
QUEUE = "linode:notifications:queue"


class DemoError(Exception):
    """The demo cannot go on; the message is for a person."""


class Signals:
    """The first SIGINT, SIGTERM or SIGHUP sets ``stopping``; the second ends everything at once."""

    def __init__(self) -> None:
        self.stopping = StopSignal()
        self.monitor: ServerProcess | None = None  # the other children die with us
        # A script's background job is born with SIGINT ignored; whoever sends it means it.
        signal.signal(signal.SIGINT, self._received)
        signal.signal(signal.SIGTERM, self._received)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup asked
            signal.signal(signal.SIGHUP, self._received)

    def _received(self, number: int, _frame: FrameType | None) -> None:
        if self.stopping.is_set():
            if self.monitor is not None:
                self.monitor.send_kill()
            os._exit(128 + number)
        self.stopping.set()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--var", type=Path, default=ROOT / "var", help="where its files go")
    parser.add_argument("--with-parent", action="store_true", help="stop when the caller ends")
    options = parser.parse_args(arguments)
    if options.with_parent:  # `make` killed with SIGKILL could not pass anything on
        die_with_parent(os.getppid(), signal.SIGTERM)
    if isinstance(sys.stdout, io.TextIOWrapper):  # one line at a time, whatever the terminal
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    try:
        run(Home(options.var), Signals())
    except (DemoError, ServerError) as exc:
        sys.stderr.write(f"make demo: {exc}\n")
        return 1
    except BrokenPipeError:  # whoever read our output has left, and so do we
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as exc:  # a disk that is full, a file of root's
        sys.stderr.write(f"make demo: {exc.filename or 'a file'}: {exc.strerror}\n")
        return 1
    except JSONDecodeError:
        sys.stderr.write(f"make demo: a file in {options.var} is damaged; {START_OVER}\n")
        return 1
    return 0


def run(home: Home, signals: Signals) -> None:
    """Start the servers, the product and the changes; follow the queue until a signal comes."""
    with ExitStack() as stack:
        if not stack.enter_context(home.locked()):
            raise DemoError(f"a demo is running already in {home.var}; stop that one first")
        made = home.secrets()
        serving = {name: os.environ[name] for name in PASSED_ON if os.environ.get(name)}
        site = DemoSite(
            serving.setdefault("HOST", LOOPBACK), _port(serving.setdefault("PORT", "8080"))
        )
        _check_free(site.port, "choose another one: PORT=8081 make demo")
        _check_free(made.s3_port, f"the demo's S3 server needs it; {START_OVER}")
        home.json_file.unlink(missing_ok=True)
        say(f"Starting the demo (logs in {home.directory}) …")
        _say_ignored()
        if other := other_redis_server():
            say(f"{other}.")

        redis_server = _start_redis(home, made)
        stack.callback(redis_server.stop)
        s3 = _start_s3(home, made)
        stack.callback(s3.stop)
        home.write_env(made, serving | {"REDIS_URL": redis_server.url})
        _enter_environment(home)
        prepare(home, made, s3)
        signals.monitor = monitor = _start_monitor(home)
        stack.callback(monitor.stop, timeout_s=MONITOR_STOPS_WITHIN_S)
        _wait_until_ready(site, monitor, signals)
        if signals.stopping.is_set():
            return

        home.write_json(_way_in(made, site, redis_server, s3))
        _say_welcome(home, made, site)
        changer = Changer(s3)
        changer.start()
        stack.callback(changer.stop)
        stack.callback(say, "Stopping …")
        _follow(home, redis_server, monitor, signals)
    say("Stopped. The next `make demo` goes on from here.")


@dataclass(frozen=True, slots=True)
class DemoSite:
    """Where the product's page is."""

    host: str
    port: int

    @property
    def url(self) -> str:
        host = LOOPBACK if self.host in {"0.0.0.0", "::"} else self.host  # noqa: S104
        return f"http://{host}:{self.port}"

    def get(self, path: str) -> HTTPResponse:
        """Raises OSError for anything but a 2xx answer."""
        answer: HTTPResponse = urllib.request.urlopen(f"{self.url}{path}", timeout=5)  # noqa: S310
        return answer


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _port(text: str) -> int:
    if text.isdecimal() and 1 <= int(text) <= 65535:
        return int(text)
    raise DemoError("PORT must be a number from 1 to 65535")


def _check_free(port: int, advice: str) -> None:
    try:
        free_port(port)
    except OSError as exc:
        raise DemoError(f"port {port} cannot be used ({exc.strerror}): {advice}") from None


def _say_ignored() -> None:
    ignored = sorted(set(os.environ) & product_variables() - {*PASSED_ON, "DJANGO_SETTINGS_MODULE"})
    if ignored:
        say(f"Not used here, the demo has its own: {', '.join(ignored)}")


def _enter_environment(home: Home) -> None:
    """Give this process and all that it starts the demo's settings, and no others."""
    environ = without_product_variables(os.environ)
    os.environ.clear()
    os.environ.update(environ)
    os.environ["ENV_FILE"] = str(home.env_file)
    os.environ["DJANGO_SETTINGS_MODULE"] = "bucketwatch.settings"


def _start_redis(home: Home, made: Secrets) -> RedisServer:
    try:
        port = free_port(made.redis_port)
    except OSError:
        port = 0  # any will do: only var/demo.env and var/demo.json name it
    server = RedisServer(home.redis_directory, port=port, appendonly=True)
    try:
        server.start()
    except ServerError as exc:  # another server may have written its files
        raise DemoError(f"{exc}; {START_OVER}") from exc
    return server


def _start_s3(home: Home, made: Secrets) -> S3Server:
    server = S3Server(
        home.s3_directory,
        port=made.s3_port,
        access_key=made.s3_access_key,
        secret_key=made.s3_secret_key,
        keep=True,
    )
    memory = Memory(server.memory_file)
    seed(memory, now=time.time())
    memory.close()
    server.start()
    return server


def _start_monitor(home: Home) -> ServerProcess:
    # SIGTERM if we die: it has children of its own to stop.
    return ServerProcess(
        [sys.executable, ROOT / "manage.py", "runmonitor"],
        log=home.directory / "monitor.log",
        death_signal=signal.SIGTERM,
    )


def _wait_until_ready(site: DemoSite, monitor: ServerProcess, signals: Signals) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    while not signals.stopping.wait(0.1):
        _check_running(monitor)
        with suppress(OSError), site.get("/ready") as answer:
            if answer.status == HTTPStatus.OK:
                return
        if time.monotonic() > deadline:
            raise DemoError(f"not ready in {READY_WITHIN_S:.0f} s; {_end_of(monitor)}")


def _check_running(monitor: ServerProcess) -> None:
    if not monitor.is_running:
        raise DemoError(f"the monitor ended; {_end_of(monitor)}")


def _end_of(child: ServerProcess) -> str:
    return f"{child.log} ends with: {child.last_words()}"


def _way_in(
    made: Secrets, site: DemoSite, redis_server: RedisServer, s3: S3Server
) -> dict[str, Any]:
    return {
        "url": site.url,
        "operator": {"username": made.username, "password": made.password},
        "api": {"client_id": made.client_id, "client_secret": made.client_secret},
        "redis": {"url": redis_server.url, "queue": QUEUE},
        "s3": {
            "endpoint": s3.url,
            "access_key": s3.access_key,
            "secret_key": s3.secret_key,
            "buckets": {bucket.name: bucket.region for bucket in BUCKETS},
        },
    }


def _say_welcome(home: Home, made: Secrets, site: DemoSite) -> None:
    say(
        f"""
  bucketwatch is ready and watches {len(BUCKETS)} buckets that keep changing.

    Page      {site.url}/admin/
    Log-in    {made.username} / {made.password}
    Programs  {home.json_file} (API client, Redis, S3)
    Stop      Ctrl-C

  One line for each notification in the queue:
"""
    )


def _follow(
    home: Home, redis_server: RedisServer, monitor: ServerProcess, signals: Signals
) -> None:
    with redis_server.client() as client:
        follower = Follower(client, QUEUE, home.cursor_file)
        while not signals.stopping.is_set():
            _check_running(monitor)
            if not redis_server.is_running:
                raise DemoError(f"Redis ended; see {home.redis_directory}")
            with suppress(RedisError):  # the next look will do
                for entry in follower.news():
                    say(line(entry))
            signals.stopping.wait(LOOK_EVERY_S)


if __name__ == "__main__":
    sys.exit(main())
