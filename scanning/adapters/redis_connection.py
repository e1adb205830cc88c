"""The connection to Redis: direct, or to the master that Sentinel names.

Retries stand around whole operations here, not inside redis-py: its own retry goes back to the
same dead address and never asks Sentinel again (redis-py issue 3874). An operation may therefore
run twice, so every operation given to ``RedisConnection.run`` must be safe to repeat.
"""

from __future__ import annotations

import logging
import random
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    MasterDownError,
    NoPermissionError,
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

from scanning.core.errors import RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from scanning import conf

logger = logging.getLogger(__name__)

T = TypeVar("T")

_AWAY = (
    RedisConnectionError,
    RedisTimeoutError,
    BusyLoadingError,
    ReadOnlyError,
    MasterDownError,
)
# Of redis-py's connection errors these two do not go away by asking again.
_REFUSED = (AuthenticationError, AuthorizationError, NoPermissionError)
# Answers without a class of their own from a server that cannot serve now but will: a master that
# waits for its replicas, a script that runs too long. A pipeline puts its own words before them.
_AWAY_TEXT = re.compile(r"\b(NOREPLICAS|BUSY) ")
_CONNECT_S = 2.0
_ANSWER_S = 5.0


@dataclass(frozen=True, slots=True)
class RedisHealth:
    """For ``/ready``: whether Redis answers, and whether a sentinel named the master."""

    redis: Literal["ok", "error"]
    sentinel: Literal["ok", "error", "disabled"]


class RedisConnection:
    """Runs operations against the master, again and again for ``patience_s`` seconds.

    ``answer_s`` is how long a server may take to answer one command.
    """

    def __init__(
        self,
        settings: conf.Redis,
        *,
        patience_s: float = 8.0,
        answer_s: float = _ANSWER_S,
        client: redis.Redis | None = None,
    ) -> None:
        self._settings = settings
        self._patience_s = patience_s
        self.client = client or _client(settings, answer_s)
        self._bytes_client: redis.Redis | None = None

    @classmethod
    def over(cls, client: redis.Redis, settings: conf.Redis) -> RedisConnection:
        """A connection to where somebody's own client goes; their client is left as it is."""
        pool = client.connection_pool
        options = pool.connection_kwargs | _TEXT
        own = redis.ConnectionPool(connection_class=pool.connection_class, **options)
        return cls(settings, client=redis.Redis(connection_pool=own))

    def script(self, source: str) -> Callable[[Sequence[str], Sequence[object]], Any]:
        """A Lua script as a function of its KEYS and ARGV; it too may run more than once."""
        registered = self.client.register_script(source)

        def call(keys: Sequence[str], args: Sequence[Any]) -> Any:
            return self.run(lambda r: registered(keys=keys, args=args, client=r))

        return call

    # The client is Any to operations: redis-py's types cannot tell that answers are decoded here.
    def run(self, operation: Callable[[Any], T]) -> T:
        """The operation's result. Raises RedisUnavailable when patience ends.

        ``operation`` may run more than once.
        """
        return self._run(operation, self.client)

    def run_bytes(self, operation: Callable[[Any], T]) -> T:
        """The same with a client whose answers are bytes, for values that are not text."""
        if self._bytes_client is None:
            pool = self.client.connection_pool
            options = pool.connection_kwargs | {"decode_responses": False}
            own = redis.ConnectionPool(connection_class=pool.connection_class, **options)
            self._bytes_client = redis.Redis(connection_pool=own)
        return self._run(operation, self._bytes_client)

    def _run(self, operation: Callable[[Any], T], client: redis.Redis) -> T:
        give_up_at = time.monotonic() + self._patience_s
        pause_s = 0.05
        while True:
            try:
                return operation(client)
            except RedisError as exc:
                if not _goes_away(exc):
                    raise RedisUnavailable(_refusal(exc)) from exc
                problem = exc
            if isinstance(problem, ReadOnlyError | MasterDownError):
                # The master has become a replica: the next connection asks who is master now.
                client.connection_pool.disconnect(inuse_connections=False)
            if time.monotonic() + pause_s > give_up_at:
                raise RedisUnavailable(f"Redis does not answer: {short(problem)}") from problem
            time.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads reconnects
            pause_s = min(pause_s * 2, 1.0)

    def health(self) -> RedisHealth:
        """Ask once, without patience; never raises."""
        try:
            self.client.ping()
            answer: Literal["ok", "error"] = "ok"
        except RedisError:
            answer = "error"
        if not self._settings.sentinel_host or self._settings.url:
            return RedisHealth(answer, "disabled")
        try:
            named = ask_sentinel(self._settings) is not None
        except NoSentinelAnswers:
            named = False
        return RedisHealth(answer, "ok" if named else "error")

    def sentinel_view(self) -> dict[str, Any]:
        """For ``/metrics``: the master and the replicas as a sentinel sees them; never raises."""
        settings = self._settings
        if not settings.sentinel_host or settings.url:
            return {"status": "disabled", "master": None, "slaves": [], "slave_count": 0}
        for sentinel in _sentinels(settings):
            try:
                host, port = sentinel.sentinel_get_master_addr_by_name(settings.master_name)
                slaves = [s["name"] for s in sentinel.sentinel_slaves(settings.master_name)]
            except (RedisError, TypeError):
                continue
            master = f"{host}:{port}"
            return {"status": "ok", "master": master, "slaves": slaves, "slave_count": len(slaves)}
        return {"status": "error", "master": None, "slaves": [], "slave_count": 0}


def short(problem: RedisError) -> str:
    """The first line of an error, cut: redis-py puts long reprs into its messages."""
    lines = str(problem).splitlines() or [type(problem).__name__]
    return lines[0][:200]


def _goes_away(exc: RedisError) -> bool:
    is_away = isinstance(exc, _AWAY) or _AWAY_TEXT.search(str(exc)) is not None
    return is_away and not isinstance(exc, _REFUSED)


def _refusal(exc: RedisError) -> str:
    match exc:
        case AuthenticationError() | AuthorizationError() | NoPermissionError():
            return f"Redis refuses us: {short(exc)}; check REDIS_PASSWORD or REDIS_URL"
        case AskError() | ClusterCrossSlotError():  # MOVED is an AskError
            return "Redis Cluster is not supported: a commit needs one keyspace"
        case OutOfMemoryError():
            return "Redis is out of memory (maxmemory): nothing was written"
    return f"Redis answered with an error: {short(exc)}"


# What is not UTF-8 was not written by us: it must neither break reading nor be changed by it.
_TEXT = {"decode_responses": True, "encoding_errors": "surrogateescape"}


def _client(settings: conf.Redis, answer_s: float) -> redis.Redis:
    options: dict[str, Any] = {
        **_TEXT,
        "socket_connect_timeout": min(_CONNECT_S, answer_s),
        "socket_timeout": answer_s,
        "health_check_interval": 30,
        "retry": Retry(NoBackoff(), 0),
        "client_name": "bucketwatch",
    }
    if settings.url:
        return redis.Redis.from_url(settings.url.get_secret_value(), **options)
    options |= {"db": settings.db, "password": _secret(settings)}
    if settings.sentinel_host:
        pool = redis.ConnectionPool(connection_class=MasterConnection, settings=settings, **options)
        return redis.Redis(connection_pool=pool)
    return redis.Redis(host=settings.host, port=settings.port, **options)


def _secret(settings: conf.Redis) -> str | None:
    return settings.password.get_secret_value() if settings.password else None


class NoSentinelAnswers(Exception):
    """Not one of the configured sentinels could be asked."""


def _sentinels(settings: conf.Redis) -> Iterator[Any]:
    """A client for each configured sentinel, closed after use."""
    for host in filter(None, map(str.strip, settings.sentinel_host.split(","))):
        name, _, port = host.partition(":")
        with redis.Redis(
            host=name,
            port=int(port or settings.sentinel_port),
            decode_responses=True,
            socket_connect_timeout=0.5,
            socket_timeout=0.5,
            retry=Retry(NoBackoff(), 0),
        ) as sentinel:
            yield sentinel


def ask_sentinel(settings: conf.Redis) -> tuple[str, int] | None:
    """The master's address; None if sentinels answer but know no master now."""
    answered = False
    for sentinel in _sentinels(settings):
        try:
            address = sentinel.sentinel_get_master_addr_by_name(settings.master_name)
        except RedisError:
            continue
        answered = True
        if address:
            return str(address[0]), int(address[1])
    if answered:
        return None
    raise NoSentinelAnswers


class MasterConnection(redis.Connection):
    """Asks Sentinel at every connect, so that a reconnect after a failover finds the new master.

    When no sentinel answers it goes to the configured host, and takes it only if that node says
    that it is the master. A sentinel that answers "no master now" wins over the direct address.
    """

    def __init__(self, *, settings: conf.Redis, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self._redis_settings = settings

    def _connect(self) -> Any:
        settings = self._redis_settings
        try:
            address = ask_sentinel(settings)
        except NoSentinelAnswers:
            address = (settings.host, settings.port)
        if address is None:
            raise RedisConnectionError(f"Sentinel knows no master named {settings.master_name} now")
        self.host, self.port = address
        return super()._connect()  # type: ignore[no-untyped-call]

    def on_connect_check_health(self, check_health: bool = True) -> None:  # noqa: FBT001, FBT002
        super().on_connect_check_health(check_health=check_health)
        self.send_command("ROLE", check_health=False)  # type: ignore[no-untyped-call]
        role = self.read_response()
        if not isinstance(role, list) or role[0] not in {"master", b"master"}:
            self.disconnect()  # type: ignore[no-untyped-call]
            raise RedisConnectionError(f"{self.host}:{self.port} is not a master")
