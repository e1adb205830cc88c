"""An HTTP server that sends the answers of a test, and remembers the requests."""

import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Answer:
    """One answer; ``cut`` bytes of the body are announced and never sent."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = 0


class Reset:
    """Break the connection instead of answering."""


class Stall:
    """Never answer (until the server is closed)."""


Act = Answer | Reset | Stall


class CannedServer:
    """Gives ``answers`` one after the other, the last one for ever; `.asked` are the queries.

    `.lines` are the request lines, `.peers` the connections that requests came by.
    """

    def __init__(self, *answers: Act, tls: ssl.SSLContext | None = None) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, str]] = []
        self.lines: list[str] = []
        self.peers: set[tuple[str, int]] = set()
        self.closing = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server._answer(self)

            def do_HEAD(self) -> None:
                server._answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._httpd.daemon_threads = True
        self.port: int = self._httpd.server_address[1]
        if tls:
            self._httpd.socket = tls.wrap_socket(self._httpd.socket, server_side=True)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._httpd.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._httpd.shutdown()
        self._thread.join()
        self._httpd.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        query = parse_qs(urlsplit(handler.path).query, keep_blank_values=True)
        self.asked.append({name: values[0] for name, values in query.items()})
        self.peers.add(handler.client_address)
        self.lines.append(f"{handler.command} {handler.path}")
        act = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(act, Answer):
            self._send(handler, act)
            return
        if isinstance(act, Stall):
            self.closing.wait(30)
        linger = struct.pack("ii", 1, 0)  # close with RST
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        handler.close_connection = True
        handler.connection.close()

    def _send(self, handler: BaseHTTPRequestHandler, answer: Answer) -> None:
        handler.send_response(answer.status)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        if "Content-Length" not in answer.headers:
            handler.send_header("Content-Length", str(len(answer.body)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(answer.body[: len(answer.body) - answer.cut])
        handler.close_connection = handler.close_connection or bool(answer.cut)


@contextmanager
def never_listening() -> Iterator[str]:
    """Give the URL of a port that refuses connections."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def error(code: str, *, status: int, more: str = "", **headers: str) -> Answer:
    """Write S3's error answer; RGW leaves Message empty."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message></Message>{more}</Error>"
    return Answer(status, body.encode(), {k.replace("_", "-"): v for k, v in headers.items()})
