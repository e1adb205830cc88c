"""The connection to Redis: direct, or to the master that Sentinel names (`sentinel.py`).

Retries stand around whole operations here, not inside redis-py, whose own would go back to the
same dead address. An operation may therefore run twice, so every operation given to
``RedisConnection.run`` must be safe to repeat: the second run does no harm, and what the first one
did without its answer arriving is found or undone by somebody. A claim whose answer is lost costs
most: its buckets are nobody's and keep their slots of the region until the leases expire (15 s,
`leases.py`), since the second run finds them claimed.
"""

from __future__ import annotations

import re
import time
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterCrossSlotError,
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)
from redis.retry import Retry

from scanning.adapters.redis import scripts
from scanning.adapters.redis.risks import NO_CLUSTER, RedisWarning, warnings_of
from scanning.adapters.redis.sentinel import (
    REFUSED,
    MasterConnection,
    MasterTlsConnection,
    NoSentinelAnswers,
    SentinelRefuses,
    Sentinels,
    secret,
    tls_options,
)
from scanning.core import pacing
from scanning.core.errors import ConfigurationError, RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from scanning.config import settings as engine_settings

T = TypeVar("T")

_AWAY = (
    RedisConnectionError,
    RedisTimeoutError,
    BusyLoadingError,
    ReadOnlyError,
    MasterDownError,
)
# Answers without a class of their own from a server that cannot serve now but will: a master that
# waits for its replicas, one that became a replica while we waited for an answer, a script that
# runs too long. A pipeline puts its own words before them.
_AWAY_TEXT = re.compile(r"\b(NOREPLICAS|UNBLOCKED|BUSY) ")
_CONNECT_S = 2.0
_ANSWER_S = 5.0
_WARNINGS_LAST_S = 10.0
KEYS_AT_ONCE = 1000  # in one step through the keyspace


@dataclass(slots=True)
class _Wait:
    """What the first time-out said; "" before there was one."""

    timed_out: str = ""


_wait: ContextVar[_Wait | None] = ContextVar("_wait", default=None)


@contextmanager
def one_wait() -> Iterator[None]:
    """Have operations of this thread fail at once, within the context, after one has timed out.

    A page asks Redis several times, and shows what it can without an answer: whoever waits for
    the page waits for a Redis that hangs once, not once a question.
    """
    token = _wait.set(_Wait())
    try:
        yield
    finally:
        _wait.reset(token)


def _in_one_wait(operation: Callable[[Any], T], client: redis.Redis) -> T:
    wait = _wait.get()
    if wait is None:
        return operation(client)
    if wait.timed_out:
        raise RedisTimeoutError(wait.timed_out)
    try:
        return operation(client)
    except RedisTimeoutError as exc:
        wait.timed_out = str(exc)
        raise


@dataclass(frozen=True, slots=True)
class RedisHealth:
    """For ``/ready``: whether Redis answers, and whether a sentinel named the master.

    ``problem`` and ``sentinel_problem`` say what an error is, "" without one.
    """

    redis: Literal["ok", "error"]
    sentinel: Literal["ok", "error", "disabled"]
    warnings: tuple[RedisWarning, ...] = ()
    problem: str = ""
    sentinel_problem: str = ""


class RedisConnection:
    """Runs operations against the master, again and again for ``patience_s`` seconds.

    ``answer_s`` is how long a server may take to answer one command.
    """

    def __init__(
        self,
        settings: engine_settings.RedisSection,
        *,
        patience_s: float = 8.0,
        answer_s: float = _ANSWER_S,
        client: redis.Redis | None = None,
    ) -> None:
        self._settings = settings
        self._patience_s = patience_s
        self._sentinels = Sentinels(settings)
        self.client = client or _client(settings, self._sentinels, answer_s)
        self._bytes_client: redis.Redis | None = None
        self._warnings: tuple[RedisWarning, ...] = ()
        self._warnings_until = float("-inf")

    @classmethod
    def over(cls, client: redis.Redis, settings: engine_settings.RedisSection) -> RedisConnection:
        """Connect to where somebody's own client goes; their client is left as it is."""
        pool = client.connection_pool
        options = pool.connection_kwargs | _TEXT
        own = redis.ConnectionPool(connection_class=pool.connection_class, **options)
        return cls(settings, client=redis.Redis(connection_pool=own))

    def load_script(self, name: str) -> Script:
        """Make one of the scripts in `lua/` callable."""
        return Script(self, scripts.source(name))

    # The client is Any to operations: redis-py's types cannot tell that answers are decoded here.
    def run(self, operation: Callable[[Any], T]) -> T:
        """Return the operation's result. Raises RedisUnavailable when patience ends.

        ``operation`` may run more than once.
        """
        return self._run(operation, self.client)

    def run_bytes(self, operation: Callable[[Any], T]) -> T:
        """Run with a client whose answers are bytes, for values that are not text."""
        if self._bytes_client is None:
            pool = self.client.connection_pool
            options = pool.connection_kwargs | {"decode_responses": False}
            own = redis.ConnectionPool(connection_class=pool.connection_class, **options)
            self._bytes_client = redis.Redis(connection_pool=own)
        return self._run(operation, self._bytes_client)

    def keys_beginning(self, prefix: str, *, kind: str | None = None) -> Iterator[list[str]]:
        """Name all keys (of one type) that begin so, batch by batch; some may come twice.

        Looks through the whole keyspace.
        """
        match, cursor = _glob_escape(prefix) + "*", 0

        def step(r: Any) -> tuple[int, list[str]]:
            after, names = r.scan(cursor, match=match, count=KEYS_AT_ONCE, _type=kind)
            return int(after), list(names)

        while True:
            cursor, names = self.run(step)
            yield names
            if cursor == 0:
                return

    def reconnect(self) -> None:
        """Leave the server that idle connections lead to: it may be master no more."""
        for client in filter(None, (self.client, self._bytes_client)):
            client.connection_pool.disconnect(inuse_connections=False)

    def _run(self, operation: Callable[[Any], T], client: redis.Redis) -> T:
        give_up_at = time.monotonic() + self._patience_s
        pause_s = 0.05
        while True:
            try:
                return _in_one_wait(operation, client)
            except RedisError as exc:
                if not _goes_away(exc):
                    raise RedisUnavailable(_explain(exc)) from exc
                problem = exc
            if isinstance(problem, ReadOnlyError | MasterDownError):
                # The master has become a replica: the next connection asks who is master now.
                client.connection_pool.disconnect(inuse_connections=False)
            if time.monotonic() + pause_s > give_up_at:
                raise RedisUnavailable(_explain(problem)) from problem
            time.sleep(pacing.equal_jitter(pause_s, pacing.draw_jitter()))
            pause_s = min(pause_s * 2, 1.0)

    def refuse_cluster(self) -> None:
        """Raise ConfigurationError if what answers is a Redis Cluster; nothing need answer yet."""
        with suppress(RedisUnavailable):
            if self.run(lambda r: r.info("cluster")).get("cluster_enabled"):
                raise ConfigurationError(f"{NO_CLUSTER}; correct REDIS_URL or REDIS_HOST")

    def health(self) -> RedisHealth:
        """Ask once, without patience; never raises."""
        try:
            _in_one_wait(lambda r: r.ping(), self.client)
            problem = ""
        except RedisError as exc:
            problem = _explain(exc)
        sentinel, sentinel_problem = self._sentinel_health()
        warnings = () if problem else self._known_warnings(sentinel)
        answer: Literal["ok", "error"] = "error" if problem else "ok"
        return RedisHealth(answer, sentinel, warnings, problem, sentinel_problem)

    def _sentinel_health(self) -> tuple[Literal["ok", "error", "disabled"], str]:
        if not self._sentinels:
            return "disabled", ""
        try:
            if self._sentinels.find() is not None:
                return "ok", ""
        except NoSentinelAnswers:
            return "error", "No sentinel answers: start them, or correct REDIS_SENTINEL_HOST"
        except SentinelRefuses as exc:
            return "error", _explain(exc)
        name = self._settings.master_name
        return "error", f"No sentinel knows a master named {name}: correct REDIS_MASTER_NAME"

    def _known_warnings(self, sentinel: str) -> tuple[RedisWarning, ...]:
        now = time.monotonic()
        if now >= self._warnings_until:
            self._warnings = warnings_of(self.client, has_sentinel=sentinel != "disabled")
            self._warnings_until = now + _WARNINGS_LAST_S
        return self._warnings if sentinel != "error" else (_DIRECT, *self._warnings)

    def sentinel_view(self) -> dict[str, Any]:
        """Show ``/metrics`` the master and the replicas as a sentinel sees them; never raises."""
        return self._sentinels.view()


class Script:
    """A Lua script as a function of its KEYS and arguments (`scripts.py`); it may run twice."""

    def __init__(self, connection: RedisConnection, source: str) -> None:
        self._connection = connection
        self._script = connection.client.register_script(source)

    def __call__(self, keys: Sequence[str], args: Mapping[str, Any]) -> Any:
        return self._call(keys, [scripts.packed(args)])

    def begin(
        self, keys: Sequence[str], args: Mapping[str, Any], *lists: Sequence[str]
    ) -> Callable[[], Any]:
        """Send it without waiting; what is returned waits for the answer, and has to be called.

        Whatever goes wrong on the way, the answer is that of calling it anew. Long ``lists`` follow
        the arguments, each packed by itself: in one piece with them, it costs a tenth more.
        """
        pool = self._connection.client.connection_pool
        argv = [scripts.packed(args), *map(scripts.packed, lists)]
        with suppress(RedisError):
            sent: Any = pool.get_connection()
            try:
                sent.send_command("EVALSHA", self._script.sha, len(keys), *keys, *argv)
            except BaseException:
                sent.disconnect()
                pool.release(sent)
                raise
            return partial(self._answer, sent, keys, argv)
        return partial(self._call, keys, argv)

    def _call(self, keys: Sequence[str], argv: Sequence[Any]) -> Any:
        return self._connection.run(lambda r: self._script(keys=keys, args=argv, client=r))

    def _answer(self, sent: Any, keys: Sequence[str], argv: Sequence[Any]) -> Any:
        pool = self._connection.client.connection_pool
        try:
            return sent.read_response()
        except RedisError:
            pass
        except BaseException:
            sent.disconnect()  # what it answers later is nobody else's answer
            raise
        finally:
            pool.release(sent)
        return self._call(keys, argv)


_DIRECT = RedisWarning(
    "No sentinel answers: Redis is reached directly at REDIS_HOST, and when it fails no replica "
    "takes its place",
    "start the sentinels, or correct REDIS_SENTINEL_HOST",
)


def short(problem: RedisError) -> str:
    """Cut an error to its first line: redis-py puts long reprs into its messages."""
    lines = str(problem).splitlines() or [type(problem).__name__]
    return lines[0][:200]


def _glob_escape(text: str) -> str:
    return "".join(f"\\{c}" if c in r"*?[]^\\" else c for c in text)


def _goes_away(exc: RedisError) -> bool:
    is_away = isinstance(exc, _AWAY) or _AWAY_TEXT.search(str(exc)) is not None
    return is_away and not isinstance(exc, REFUSED)


_REPLICA = (
    "Redis is a replica and takes no writes; unless it is failing over, name the master in "
    "REDIS_URL or REDIS_HOST"
)
_MEANINGS: tuple[tuple[type[RedisError] | tuple[type[RedisError], ...], str], ...] = (
    (ReadOnlyError, _REPLICA),
    (OutOfMemoryError, "Redis is out of memory (maxmemory): nothing was written"),
    ((AskError, ClusterCrossSlotError), NO_CLUSTER),  # MOVED is an AskError
)


def _explain(exc: RedisError) -> str:
    """Explain an error, and where there is one, name the setting to look at."""
    for kinds, meaning in _MEANINGS:
        if isinstance(exc, kinds):
            return meaning
    if _goes_away(exc):
        return f"Redis does not answer: {short(exc)}"
    match exc:
        case SentinelRefuses():
            advice = "check REDIS_SENTINEL_USERNAME and REDIS_SENTINEL_PASSWORD"
            return f"Sentinel refuses us: {short(exc)}; {advice}"
        case _ if isinstance(exc, REFUSED):
            advice = "check REDIS_USERNAME and REDIS_PASSWORD, or REDIS_URL"
            return f"Redis refuses us: {short(exc)}; {advice}"
    return f"Redis answered with an error: {short(exc)}"


# What is not UTF-8 was not written by us: it must neither break reading nor be changed by it.
_TEXT = {"decode_responses": True, "encoding_errors": "surrogateescape"}


def _client(
    settings: engine_settings.RedisSection, sentinels: Sentinels, answer_s: float
) -> redis.Redis:
    options: dict[str, Any] = {
        **_TEXT,
        "socket_connect_timeout": min(_CONNECT_S, answer_s),
        "socket_timeout": answer_s,
        "health_check_interval": 30,
        "retry": Retry(NoBackoff(), 0),
        "client_name": "bucketwatch",
    }
    if settings.url:
        url = settings.url.get_secret_value()
        checks = tls_options(settings) if url.startswith("rediss://") else {}
        return redis.Redis.from_url(url, **options, **checks)
    options |= {
        "db": settings.db,
        "username": settings.username or None,
        "password": secret(settings.password),
        **(tls_options(settings) if settings.tls else {}),
    }
    if sentinels:
        options |= {"sentinels": sentinels, "direct": (settings.host, settings.port)}
        kind: type[redis.Connection] = MasterTlsConnection if settings.tls else MasterConnection
    else:
        options |= {"host": settings.host, "port": settings.port}
        kind = redis.SSLConnection if settings.tls else redis.Connection
    return redis.Redis.from_pool(redis.ConnectionPool(connection_class=kind, **options))
