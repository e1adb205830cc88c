"""The connections to S3 endpoints, shared by all clients of an endpoint whatever their keys.

botocore gives each client connections of its own, and with them, for https, its own copy of all
CA certificates (670 KiB). Signatures are per request, so nothing ties a connection to a key pair.

Each new connection resolves the endpoint's name, looks at every address that it gives
(`core/addresses.py`), and connects to what it looked at: a name that meant another address when
the bucket was saved does not get past this.
"""

from __future__ import annotations

import socket
import threading
import weakref
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)
from botocore.exceptions import HTTPClientError
from botocore.httpsession import URLLib3Session
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from scanning.core.addresses import HOW_TO_ALLOW
from scanning.core.errors import AddressRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from botocore.awsrequest import AWSPreparedRequest, AWSResponse
    from mypy_boto3_s3 import S3Client

    from scanning.conf import ScanningConf
    from scanning.core.addresses import AddressRules

SOCKET_OPTIONS: Final = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
]


class Connections:
    """Connection pools by endpoint URL; a pool lives as long as a client that uses it."""

    def __init__(self, conf: ScanningConf) -> None:
        self._conf = conf
        self._lock = threading.Lock()
        self._by_url: weakref.WeakValueDictionary[str, URLLib3Session] = (
            weakref.WeakValueDictionary()
        )

    def attach(self, client: S3Client, url: str) -> None:
        """Send the client's requests through the endpoint's connections."""
        with self._lock:
            session = self._by_url.get(url)
            if session is None:
                session = self._by_url[url] = self._open()
        client.meta.events.register("before-send.s3", _sender(session))

    def close(self) -> None:
        """Close what is idle; requests under way go on, and later ones connect again."""
        with self._lock:
            sessions = list(self._by_url.values())
        for session in sessions:
            session.close()

    def _open(self) -> URLLib3Session:
        storage = self._conf.storage
        options: dict[str, Any] = {
            "verify": True,
            "proxies": {},
            "timeout": (storage.connect_timeout, storage.read_timeout),
            "max_pool_connections": max(10, self._conf.parallel.max_workers),
            "socket_options": SOCKET_OPTIONS,
        }
        session: Any = URLLib3Session(**options)
        session._manager.pool_classes_by_scheme = _pools(self._conf.address_rules)  # noqa: SLF001
        return session  # type: ignore[no-any-return]


def _sender(session: URLLib3Session) -> Callable[..., Any]:
    """Make a before-send handler: botocore takes its answers and errors as its own."""

    def send(request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        try:
            return session.send(request)
        except HTTPClientError as exc:
            refused = exc.kwargs.get("error")
            if isinstance(refused, AddressRefused):  # trying again would not help
                raise refused from None
            raise

    return send


def _pools(rules: AddressRules) -> dict[str, type[Any]]:
    """urllib3's pools by URL scheme, with connections that keep to the rules."""
    plain, secure = _guarded(AWSHTTPConnection, rules), _guarded(AWSHTTPSConnection, rules)
    return {
        "http": type("Pool", (AWSHTTPConnectionPool,), {"ConnectionCls": plain}),
        "https": type("SecurePool", (AWSHTTPSConnectionPool,), {"ConnectionCls": secure}),
    }


def _guarded(connection: type[Any], rules: AddressRules) -> type[Any]:
    """A class of connections that look at where they go; a connection has one thread at a time."""
    connect: Callable[[Any], socket.socket] = connection._new_conn  # noqa: SLF001

    def new_conn(self: Any) -> socket.socket:
        name = self._dns_host
        failure: Exception | None = None
        try:
            for address in _addresses(self, rules):
                self._dns_host = address
                try:
                    return connect(self)
                except (NewConnectionError, ConnectTimeoutError) as exc:
                    failure = exc
        finally:
            self._dns_host = name
        raise failure or NewConnectionError(self, "the name server gave no address")

    return type(f"Guarded{connection.__name__}", (connection,), {"_new_conn": new_conn})


def _addresses(connection: Any, rules: AddressRules) -> list[str]:
    """What the connection's host resolves to. Raises AddressRefused if any of it is not allowed."""
    host = connection._dns_host  # noqa: SLF001 - what urllib3 resolves; `host` is for people
    try:
        found = socket.getaddrinfo(host.strip("[]"), connection.port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as exc:
        reason = exc if isinstance(exc, socket.gaierror) else socket.gaierror(str(exc))
        raise NameResolutionError(connection.host, connection, reason) from reason
    texts = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
    for text in texts:
        if problem := rules.problem_with(ip_address(text.partition("%")[0])):
            raise AddressRefused(
                f"the endpoint {host} is at {text}, {problem}: correct the endpoint, "
                + HOW_TO_ALLOW
            )
    return texts
