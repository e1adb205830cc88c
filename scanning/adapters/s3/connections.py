"""The connections to S3 endpoints, shared by all clients of an endpoint whatever their keys.

botocore makes, signs, retries and reads requests; only their way over the network is ours: with
http.client it costs a third of botocore's own, which is most of what an unchanged page costs.
Signatures are per request, so nothing ties a connection to a key pair, and all endpoints share one
copy of the CA certificates (670 KiB) for each choice of authorities. Under virtual-host addressing
a bucket has a host of its own, and connections of its own.

Each new connection resolves the endpoint's name, looks at every address that it gives
(`core/addresses.py`), and connects to what it looked at: a name that meant another address when
the bucket was saved does not get past this.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import math
import select
import socket
import ssl
import threading
import time
import weakref
import zlib
from collections import deque
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, BinaryIO, Final
from urllib.parse import SplitResult, urlsplit

from botocore.awsrequest import AWSResponse
from botocore.exceptions import (
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ReadTimeoutError,
    SSLError,
)
from botocore.httpsession import get_cert_path
from botocore.parsers import ResponseParserError

from scanning.adapters.s3.errors import AnswerTooSlow, AuthoritiesUnreadable
from scanning.adapters.s3.name_lookups import NameLookups
from scanning.core.addresses import how_to_allow
from scanning.core.endpoint_profile import BUNDLED, SYSTEM
from scanning.core.endpoints import endpoint_name
from scanning.core.errors import AddressRefused
from scanning.core.listing.body import UnreadableListing
from scanning.core.texts import header_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from botocore.awsrequest import AWSPreparedRequest
    from mypy_boto3_s3 import S3Client

    from scanning.config.settings import EngineSettings

LEAST_IDLE: Final = 10
# A page of a thousand of the longest keys is a few megabytes; what is longer is cut off.
MOST_BYTES: Final = 8 * 1024 * 1024
# Of what http.client says: no answer came, or none that ever was HTTP.
_CLOSED: Final = (OSError, http.client.IncompleteRead, http.client.BadStatusLine)
_COMPRESSED: Final = {"gzip", "x-gzip", "deflate"}
_GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS
_METADATA: Final = b"x-amz-meta-"
# S3 takes 2 KiB for an object, and some servers more.
MOST_METADATA_BYTES: Final = 64 * 1024
# An answer that is still coming so long after the read time-out may do so for ever, byte by byte.
LONGEST_ANSWER_S: Final = 120.0


class Connections:
    """Connection pools by endpoint URL; a pool lives as long as a client that uses it."""

    def __init__(self, conf: EngineSettings) -> None:
        self._conf = conf
        self._lock = threading.Lock()
        self._hosts: weakref.WeakValueDictionary[tuple[str, str], _Host] = (
            weakref.WeakValueDictionary()
        )
        self._names = NameLookups()

    def attach(self, client: S3Client, url: str, authorities: str = "") -> None:
        """Send the client's requests through the endpoint's connections.

        ``authorities`` is of `EndpointSettings`.
        """
        # A before-send handler: botocore takes its answers and errors as its own.
        client.meta.events.register("before-send.s3", self.sender(url, authorities))

    def sender(self, url: str, authorities: str = "") -> Callable[..., Any]:
        """Return what sends requests through the endpoint's connections, and keeps those open."""
        hosts: dict[str, _Host] = {}

        def send(request: AWSPreparedRequest, **_: object) -> AWSResponse:
            parts = urlsplit(request.url)
            host = hosts.get(parts.netloc)
            if host is None:
                at = f"{parts.scheme}://{parts.netloc}"
                host = hosts[parts.netloc] = self._host(at, url, authorities)
            return host.send(request)

        return send

    def _host(self, url: str, endpoint: str, authorities: str) -> _Host:
        with self._lock:
            host = self._hosts.get((url, authorities))
            if host is None:
                host = _Host(url, endpoint, authorities, self._conf, self._names)
                self._hosts[url, authorities] = host
            return host

    def close(self) -> None:
        """Close what is idle; requests under way go on, and later ones connect again."""
        with self._lock:
            endpoints = list(self._hosts.values())
        for endpoint in endpoints:
            endpoint.close()

    def break_off(self) -> None:
        """End the requests that are under way: nobody waits for their answers any more."""
        with self._lock:
            endpoints = list(self._hosts.values())
        for endpoint in endpoints:
            endpoint.break_off()

    def end_overdue(self) -> None:
        """End the requests whose answers take too long; call it now and then."""
        now = time.monotonic()
        with self._lock:
            endpoints = list(self._hosts.values())
        for endpoint in endpoints:
            endpoint.break_off(now)

    def trim(self, endpoint: str, limit: int) -> None:
        with self._lock:
            endpoints = [e for e in self._hosts.values() if e.endpoint == endpoint]
        for idle in endpoints:
            idle.trim(limit)


class _Host:
    """The idle connections to a host of an endpoint, and how to make more. Safe for threads."""

    def __init__(
        self,
        url: str,
        endpoint: str,
        authorities: str,
        conf: EngineSettings,
        names: NameLookups,
    ) -> None:
        self.endpoint = endpoint_name(endpoint)
        self._url, self._authorities = url, authorities
        self._names = names
        self._conf = conf.storage
        self._rules = conf.address_rules
        limit = max(LEAST_IDLE, conf.parallel.max_workers)
        self._idle: deque[http.client.HTTPConnection] = deque(maxlen=limit)
        # Requests under way, and until when (monotonic).
        self._busy: dict[http.client.HTTPConnection, float] = {}
        self._overdue: set[http.client.HTTPConnection] = set()
        weakref.finalize(self, _close_all, self._idle)

    def send(self, request: AWSPreparedRequest) -> AWSResponse:
        """Send one request and read the whole answer. Raises botocore's errors."""
        connection = self._take() or self._connected()
        self._overdue.discard(connection)
        self._busy[connection] = time.monotonic() + self._conf.read_timeout + LONGEST_ANSWER_S
        try:
            with self._botocore_errors(request):
                answer = self._exchange_in_time(connection, request)
        except BaseException as exc:
            connection.close()
            if connection in self._overdue:
                raise AnswerTooSlow(endpoint_url=self._url, error=exc) from exc
            raise
        finally:
            del self._busy[connection]
            self._overdue.discard(connection)
        if connection.sock is not None:  # the server keeps it open
            self._give_back(connection)
        return answer

    def _exchange_in_time(
        self, connection: http.client.HTTPConnection, request: AWSPreparedRequest
    ) -> AWSResponse:
        answer = _exchange(connection, request)
        if connection in self._overdue:
            raise TimeoutError("this is half of an answer")
        return answer

    def close(self) -> None:
        self.trim(0)

    def break_off(self, now: float = math.inf) -> None:
        """End the requests whose time is over ``now``."""
        for connection in [c for c, until in list(self._busy.items()) if until < now]:
            if now < math.inf:
                self._overdue.add(connection)
            with contextlib.suppress(OSError, AttributeError):  # it has just ended by itself
                connection.sock.shutdown(socket.SHUT_RDWR)

    def trim(self, limit: int) -> None:
        _close_all(self._idle, but=limit)

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
            return http.client.HTTPSConnection(
                host, parts.port, timeout=timeout, context=self._trust()
            )
        return http.client.HTTPConnection(host, parts.port, timeout=timeout)

    def _trust(self) -> ssl.SSLContext:
        try:
            return trust_of(self._authorities)
        except OSError as exc:  # ssl.SSLError is one: of what is no certificate
            raise AuthoritiesUnreadable(endpoint_url=self._url, error=exc) from exc

    def _create_connection(
        self, address: tuple[str, int], timeout: float, *_: object
    ) -> socket.socket:
        """Connect to one of the host's addresses. Raises AddressRefused if any is not allowed."""
        host, port = address
        texts = self._names.addresses(host, timeout_s=timeout)
        for text in texts:
            if problem := self._rules.problem_with(ip_address(text.partition("%")[0])):
                raise AddressRefused(
                    f"the endpoint {host} is at {text}, {problem}: correct the endpoint, "
                    + how_to_allow(problem)
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
        except _CLOSED as exc:
            raise ConnectionClosedError(endpoint_url=self._url, request=request, error=exc) from exc
        except http.client.HTTPException as exc:  # it answers, and not as HTTP servers do
            raise ResponseParserError(str(exc)) from exc


class _Body:
    """A body that was read, as botocore wants to read it."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self) -> Iterator[bytes]:
        yield self._body


def _exchange(connection: http.client.HTTPConnection, request: AWSPreparedRequest) -> AWSResponse:
    connection.send(_written(request))
    response = http.client.HTTPResponse(connection.sock, method=request.method)
    try:
        head = _begin(response)
        body, is_whole = _read(response)
    finally:
        response.close()
    if response.will_close or not is_whole:
        connection.close()
    body = _unpacked(body, response.getheader("Content-Encoding", ""))
    headers: Any = {}
    for name, value in head:
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return AWSResponse(request.url, response.status, headers, _Body(body))


class _Head:
    """The lines of a head for http.client, without those of user metadata, which stay as they came.

    http.client takes a hundred headers, and an object may have more; it reads them as Latin-1, and
    servers send UTF-8.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._bytes_left = MOST_METADATA_BYTES
        self._metadata: list[bytes] = []

    def readline(self, limit: int) -> bytes:
        line, is_last = self._file.readline(limit), False
        while (is_last and line[:1] in {b" ", b"\t"}) or _is_metadata(line):
            self._bytes_left -= len(line)
            if self._bytes_left < 0:
                raise http.client.HTTPException("more user metadata than S3 takes")
            if _is_metadata(line):
                self._metadata.append(line)
            else:
                self._metadata[-1] += line
            line, is_last = self._file.readline(limit), True
        return line

    def metadata(self) -> list[tuple[str, str]]:
        """Decode the headers of user metadata."""
        named = (line.partition(b":") for line in self._metadata)
        return [(name.decode("latin-1").strip(), header_text(text)) for name, _, text in named]


def _is_metadata(line: bytes) -> bool:
    return line[: len(_METADATA)].lower() == _METADATA


def _begin(response: http.client.HTTPResponse) -> list[tuple[str, str]]:
    """Read the head of an answer, and say its headers."""
    if response._method != "HEAD":  # type: ignore[attr-defined]  # noqa: SLF001
        response.begin()
        return response.getheaders()
    file = response.fp
    head = _Head(file)
    response.fp = head  # type: ignore[assignment]
    try:
        response.begin()
    finally:
        response.fp = file
    return [*response.getheaders(), *head.metadata()]


def _read(response: http.client.HTTPResponse) -> tuple[bytes, bool]:
    """Read the body, and whether it is whole; who reads it decides what half of it is worth."""
    try:
        body = response.read(MOST_BYTES)
    except http.client.IncompleteRead as exc:
        return exc.partial, False
    return body, len(body) < MOST_BYTES and not response.length


def _unpacked(body: bytes, coding: str) -> bytes:
    """Undo a compression that was not asked for; half a body gives half.

    Raises UnreadableListing for a body that is longer than MOST_BYTES then.
    """
    if coding.strip().lower() not in _COMPRESSED:
        return body
    for wbits in (_GZIP_OR_ZLIB, -zlib.MAX_WBITS):  # "deflate" is often without zlib's header
        unpacking = zlib.decompressobj(wbits)
        with contextlib.suppress(zlib.error):
            unpacked = unpacking.decompress(body, MOST_BYTES)
            if unpacking.unconsumed_tail:
                raise UnreadableListing("unpacked, it is longer than any listing")
            return unpacked
    return body


def _written(request: AWSPreparedRequest) -> bytes:
    """Write a request without a body, as listings and HEAD are; http.client takes longer."""
    parts = urlsplit(request.url)
    target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    lines = [f"{request.method} {target} HTTP/1.1", f"Host: {_host(parts)}"]
    lines.append("Accept-Encoding: identity")
    for name, value in request.headers.items():
        text: Any = value
        lines.append(f"{name}: {text.decode('latin-1') if isinstance(text, bytes) else text}")
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a request's header holds a line break")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _host(parts: SplitResult) -> str:
    """Write the host as botocore signed it: with its port only where that is not the usual one."""
    usual = {"http": ":80", "https": ":443"}[parts.scheme]
    return parts.netloc.removesuffix(usual)


def _is_dropped(connection: http.client.HTTPConnection) -> bool:
    """Tell whether the server closed an idle connection: nothing else can be there to be read."""
    if connection.sock is None:
        return True
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))


def _close_all(idle: deque[http.client.HTTPConnection], *, but: int = 0) -> None:
    while len(idle) > but:
        try:
            idle.popleft().close()  # the longest idle first
        except IndexError:
            return


@functools.cache
def trust_of(authorities: str) -> ssl.SSLContext:
    """Make what is trusted, for all endpoints of this process with the same choice.

    Raises OSError for a file that cannot be read, or holds no certificates.
    """
    if authorities == SYSTEM:
        return ssl.create_default_context()
    if authorities not in {"", BUNDLED}:
        return ssl.create_default_context(cafile=authorities)
    context = ssl.create_default_context(cafile=get_cert_path(verify=True))
    if not authorities:  # an authority of a site's own is in the system's store
        context.load_default_certs()
    return context
