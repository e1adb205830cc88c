"""The connections to S3 endpoints, shared by all clients of an endpoint whatever their keys.

botocore gives each client connections of its own, and with them, for https, its own copy of all
CA certificates (670 KiB). Signatures are per request, so nothing ties a connection to a key pair.
"""

from __future__ import annotations

import socket
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

from botocore.httpsession import URLLib3Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from botocore.awsrequest import AWSPreparedRequest, AWSResponse
    from mypy_boto3_s3 import S3Client

    from scanning.conf import ScanningConf

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
        return URLLib3Session(**options)


def _sender(session: URLLib3Session) -> Callable[..., Any]:
    """Make a before-send handler: botocore takes its answers and errors as its own."""

    def send(request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        return session.send(request)

    return send
