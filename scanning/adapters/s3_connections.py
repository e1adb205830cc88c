"""The connections to S3 endpoints, shared by all clients of an endpoint whatever their keys.

botocore makes, signs, retries and reads requests; only their way over the network is ours: with
http.client it costs a third of botocore's own, which is most of what an unchanged page costs.
Signatures are per request, so nothing ties a connection to a key pair, and all endpoints share one
copy of the CA certificates (670 KiB).

Each new connection resolves the endpoint's name, looks at every address that it gives
(`core/addresses.py`), and connects to what it looked at: a name that meant another address when
the bucket was saved does not get past this.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import select
import socket
import ssl
import threading
import weakref
from collections import deque
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from botocore.awsrequest import AWSResponse
from botocore.exceptions import (
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ReadTimeoutError,
    SSLError,
)
from botocore.httpsession import get_cert_path

from scanning.core.addresses import HOW_TO_ALLOW
from scanning.core.errors import AddressRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from botocore.awsrequest import AWSPreparedRequest
    from mypy_boto3_s3 import S3Client

    from scanning.conf import ScanningConf

LEAST_IDLE: Final = 10


class Connections:
    """Connection pools by endpoint URL; a pool lives as long as a client that uses it."""

    def __init__(self, conf: ScanningConf) -> None:
        self._conf = conf
        self._lock = threading.Lock()
        self._by_url: weakref.WeakValueDictionary[str, _Endpoint] = weakref.WeakValueDictionary()

    def attach(self, client: S3Client, url: str) -> None:
        """Send the client's requests through the endpoint's connections."""
        with self._lock:
            endpoint = self._by_url.get(url)
            if endpoint is None:
                endpoint = self._by_url[url] = _Endpoint(url, self._conf)
        client.meta.events.register("before-send.s3", _sender(endpoint))

    def close(self) -> None:
        """Close what is idle; requests under way go on, and later ones connect again."""
        with self._lock:
            endpoints = list(self._by_url.values())
        for endpoint in endpoints:
            endpoint.close()


def _sender(endpoint: _Endpoint) -> Callable[..., Any]:
    """Make a before-send handler: botocore takes its answers and errors as its own."""

    def send(request: AWSPreparedRequest, **_: object) -> AWSResponse:
        return endpoint.send(request)

    return send


class _Endpoint:
    """The idle connections to one endpoint, and how to make more. Safe for threads."""

    def __init__(self, url: str, conf: ScanningConf) -> None:
        self._url = url
        self._conf = conf.storage
        self._rules = conf.address_rules
        most = max(LEAST_IDLE, conf.parallel.max_workers)
        self._idle: deque[http.client.HTTPConnection] = deque(maxlen=most)
        weakref.finalize(self, _close_all, self._idle)

    def send(self, request: AWSPreparedRequest) -> AWSResponse:
        """Send one request and read the whole answer. Raises botocore's errors."""
        connection = self._take() or self._connected()
        try:
            with self._botocore_errors(request):
                answer = _exchange(connection, request)
        except BaseException:
            connection.close()
            raise
        if connection.sock is not None:  # the server keeps it open
            self._give_back(connection)
        return answer

    def close(self) -> None:
        _close_all(self._idle)

    def _take(self) -> http.client.HTTPConnection | None:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if not _is_dropped(connection):
                return connection
            connection.close()

    def _give_back(self, connection: http.client.HTTPConnection) -> None:
        if len(self._idle) == self._idle.maxlen:
            connection.close()
        else:
            self._idle.append(connection)

    def _connected(self) -> http.client.HTTPConnection:
        connection = self._open()
        # What http.client connects with: its only door for choosing the address.
        connection._create_connection = self._create_connection  # type: ignore[attr-defined]  # noqa: SLF001
        try:
            connection.connect()
        except BaseException as exc:
            connection.close()
            if isinstance(exc, ssl.SSLError):
                raise SSLError(endpoint_url=self._url, error=exc) from exc
            if isinstance(exc, TimeoutError):
                raise ConnectTimeoutError(endpoint_url=self._url, error=exc) from exc
            if isinstance(exc, OSError):
                raise EndpointConnectionError(endpoint_url=self._url, error=exc) from exc
            raise
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.sock.settimeout(self._conf.read_timeout)
        return connection

    def _open(self) -> http.client.HTTPConnection:
        parts = urlsplit(self._url)
        timeout = self._conf.connect_timeout
        host = parts.hostname or ""
        if parts.scheme == "https":
            return http.client.HTTPSConnection(host, parts.port, timeout=timeout, context=_trust())
        return http.client.HTTPConnection(host, parts.port, timeout=timeout)

    def _create_connection(
        self, address: tuple[str, int], timeout: float, *_: object
    ) -> socket.socket:
        """Connect to one of the host's addresses. Raises AddressRefused if any is not allowed."""
        host, port = address
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except UnicodeError as exc:  # a label that is no name
            raise socket.gaierror(socket.EAI_NONAME, str(exc)) from exc
        texts = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
        for text in texts:
            if problem := self._rules.problem_with(ip_address(text.partition("%")[0])):
                raise AddressRefused(
                    f"the endpoint {host} is at {text}, {problem}: correct the endpoint, "
                    + HOW_TO_ALLOW
                )
        failure: OSError = OSError("it has no address")
        for text in texts:
            try:
                return socket.create_connection((text, port), timeout)
            except OSError as exc:
                failure = exc
        raise failure

    @contextlib.contextmanager
    def _botocore_errors(self, request: AWSPreparedRequest) -> Iterator[None]:
        try:
            yield
        except ssl.SSLError as exc:
            raise SSLError(endpoint_url=self._url, error=exc) from exc
        except TimeoutError as exc:
            raise ReadTimeoutError(endpoint_url=self._url, error=exc) from exc
        except (http.client.HTTPException, OSError) as exc:
            raise ConnectionClosedError(endpoint_url=self._url, request=request, error=exc) from exc


class _Body:
    """A body that was read, as botocore wants to read it."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self) -> Iterator[bytes]:
        yield self._body


def _exchange(connection: http.client.HTTPConnection, request: AWSPreparedRequest) -> AWSResponse:
    parts = urlsplit(request.url)
    target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    sent: dict[str, Any] = dict(request.headers.items())
    connection.request(request.method, target, None, sent)  # listings and HEAD have no body
    response = connection.getresponse()
    try:
        body = response.read()
    except http.client.IncompleteRead as exc:
        # What to make of half a body is decided where bodies are read, and botocore asks again.
        body = exc.partial
        connection.close()
    headers: Any = {}
    for name, value in response.getheaders():
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return AWSResponse(request.url, response.status, headers, _Body(body))


def _is_dropped(connection: http.client.HTTPConnection) -> bool:
    """Whether the server closed an idle connection: nothing else can be there to be read."""
    if connection.sock is None:
        return True
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))


def _close_all(idle: deque[http.client.HTTPConnection]) -> None:
    while True:
        try:
            idle.pop().close()
        except IndexError:
            return


@functools.cache
def _trust() -> ssl.SSLContext:
    """The CA certificates that botocore would trust, for all endpoints of this process."""
    return ssl.create_default_context(cafile=get_cert_path(verify=True))
