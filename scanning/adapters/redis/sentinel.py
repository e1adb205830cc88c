"""Finding the master: the sentinels are asked, at every connect and every few seconds.

redis-py's own Sentinel support goes back to the same dead address at each retry and never asks
again (redis-py issue 3874), and a connection that it made to a master stays there whatever becomes
of that. Here every connection asks when it connects, and before a command once it has heard that
the master is elsewhere now.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    RedisError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Callable

    from scanning.config import settings as engine_settings

    Address = tuple[str, int]

RECHECK_S = 5.0
_ANSWER_S = 0.5
# Of redis-py's connection errors these do not go away by asking again.
REFUSED = (AuthenticationError, AuthorizationError, NoPermissionError)


class NoSentinelAnswers(Exception):
    """Not one of the configured sentinels could be asked."""


class SentinelRefuses(AuthenticationError):
    """The sentinels answer, and do not take our password."""


class Sentinels:
    """What the configured sentinels say of one master; shared by a process's connections.

    The one that answered last is asked first: one that hangs costs its time-out once, not at
    every connect. ``named`` is where the master was said to be last; None where no sentinel
    answers, and the configured address is taken instead.
    """

    def __init__(
        self, settings: engine_settings.RedisSection, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._addresses = settings.sentinels
        self._first = 0
        self._clock = clock
        self._asking = threading.Lock()
        self._ask_again_at = 0.0
        self.named: Address | None = None

    def __bool__(self) -> bool:
        return bool(self._addresses)

    def find(self) -> Address | None:
        """Find the master's address; None if sentinels answer but know no master now.

        Raises NoSentinelAnswers, and SentinelRefuses if those that answer refuse us.
        """
        refused: RedisError | None = None
        knows_none = False
        for number in self._in_turn():
            try:
                address = self._ask(number)
            except REFUSED as exc:
                refused = exc
            except RedisError:
                continue
            else:
                if address is not None:
                    self._first, self.named = number, address
                    self._ask_again_at = self._clock() + RECHECK_S
                    return address
                knows_none = True
        self.named = None
        if knows_none:
            return None
        if refused is not None:
            raise SentinelRefuses(str(refused))
        raise NoSentinelAnswers

    def doubt(self) -> None:
        """Ask another sentinel first from now on: where the last one sent us there is no master."""
        self._first = (self._first + 1) % len(self._addresses)

    def say_elsewhere(self, address: Address) -> bool:
        """Tell whether sentinels name another address than ``address`` as the master's.

        Asks one sentinel, in one of the process's threads, if none was asked for ``RECHECK_S``; so
        this costs next to nothing before every command, and half a second if that sentinel hangs.
        """
        if self._clock() >= self._ask_again_at and self._asking.acquire(blocking=False):
            try:
                self._ask_again_at = self._clock() + RECHECK_S
                self._ask_one()
            finally:
                self._asking.release()
        return self.named is not None and self.named != address

    def view(self) -> dict[str, Any]:
        """Show ``/metrics`` the master and the replicas as a sentinel sees them; never raises."""
        if not self:
            return {"status": "disabled", "master": None, "slaves": [], "slave_count": 0}
        for number in self._in_turn():
            try:
                with self._client(number) as sentinel:
                    host, port = sentinel.sentinel_get_master_addr_by_name(self.name)
                    slaves = [slave["name"] for slave in sentinel.sentinel_slaves(self.name)]
            except (RedisError, TypeError):
                continue
            master = f"{host}:{port}"
            return {"status": "ok", "master": master, "slaves": slaves, "slave_count": len(slaves)}
        return {"status": "error", "master": None, "slaves": [], "slave_count": 0}

    @property
    def name(self) -> str:
        """What the sentinels call the master."""
        return self._settings.master_name

    def _in_turn(self) -> list[int]:
        number = len(self._addresses)
        return [(self._first + at) % number for at in range(number)]

    def _ask_one(self) -> None:
        number = self._first
        try:
            address = self._ask(number)
        except RedisError:
            self.doubt()  # the next time another one
        else:
            # That it knows no master now is no reason to leave one that answers.
            self.named = address or self.named

    def _ask(self, number: int) -> Address | None:
        with self._client(number) as sentinel:
            address = sentinel.sentinel_get_master_addr_by_name(self.name)
        return (str(address[0]), int(address[1])) if address else None

    def _client(self, number: int) -> Any:
        """Connect to one sentinel; the caller closes the client after use."""
        settings = self._settings
        host, port = self._addresses[number]
        uses_tls = settings.tls if settings.sentinel_tls is None else settings.sentinel_tls
        return redis.Redis(
            host=host,
            port=port,
            username=settings.sentinel_username or None,
            password=secret(settings.sentinel_password),
            decode_responses=True,
            socket_connect_timeout=_ANSWER_S,
            socket_timeout=_ANSWER_S,
            retry=Retry(NoBackoff(), 0),
            ssl=uses_tls,
            **(tls_options(settings) if uses_tls else {}),
        )


def secret(value: Any) -> str | None:
    """Convert a secret setting to what redis-py wants; None if it is empty."""
    return (value.get_secret_value() or None) if value else None


def tls_options(settings: engine_settings.RedisSection) -> dict[str, Any]:
    return {
        "ssl_ca_certs": settings.tls_ca or None,
        "ssl_certfile": settings.tls_cert or None,
        "ssl_keyfile": settings.tls_key or None,
        "ssl_check_hostname": settings.tls_check_hostname,
    }


class MasterConnection(redis.Connection):
    """A connection that goes where the sentinels say, and takes only a node that is a master.

    When no sentinel answers it goes to the configured address. A sentinel that answers "no master
    now" wins over that.
    """

    def __init__(self, *, sentinels: Sentinels, direct: Address, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self._sentinels, self._direct = sentinels, direct
        self._is_settled = False

    def _connect(self) -> Any:
        self._is_settled = False
        try:
            address = self._sentinels.find()
        except NoSentinelAnswers:
            address = self._direct
        if address is None:
            name = self._sentinels.name
            raise RedisConnectionError(f"Sentinel knows no master named {name} now")
        self.host, self.port = address
        try:
            return super()._connect()  # type: ignore[no-untyped-call]
        except OSError:
            self._sentinels.doubt()
            raise

    def on_connect_check_health(self, check_health: bool = True) -> None:  # noqa: FBT001, FBT002
        super().on_connect_check_health(check_health=check_health)
        self.send_command("ROLE", check_health=False)  # type: ignore[no-untyped-call]
        role = self.read_response()
        if not isinstance(role, list) or role[0] not in {"master", b"master"}:
            self._sentinels.doubt()
            self.disconnect()  # type: ignore[no-untyped-call]
            raise RedisConnectionError(f"{self.host}:{self.port} is not a master")
        self._is_settled = True

    def check_health(self) -> None:
        """Follow the master; redis-py calls this before each command, never within one."""
        if self._is_settled and self._sentinels.say_elsewhere((self.host, self.port)):
            self.disconnect()  # type: ignore[no-untyped-call]
            self.connect_check_health(check_health=False)
        super().check_health()  # type: ignore[no-untyped-call]


class MasterTlsConnection(MasterConnection, redis.SSLConnection):
    """The same over TLS."""
