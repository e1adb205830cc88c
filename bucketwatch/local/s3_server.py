"""Moto's S3 server over HTTP, with keys that must be right and, on request, a memory.

Started by ``servers.S3Server`` as ``python -m bucketwatch.local.s3_server``. Moto by itself takes
any access key and forgets everything when it ends. Here a request must be signed with the
configured key pair (a wrong one gets S3's own answer), and with ``--keep`` buckets and objects,
``last_modified`` included, are in SQLite before a request that changed them is answered.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

from bucketwatch.local.s3_keeper import Keeper
from bucketwatch.local.s3_memory import Memory
from bucketwatch.local.s3_signature import KeyCheck

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from _typeshed.wsgi import WSGIApplication


class QuietHandler(MotoRequestHandler):
    """No line for each request: the log is for what went wrong."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="bucketwatch.local.s3_server", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="inherited listening socket")
    parser.add_argument("--keep", type=Path, help="SQLite file that remembers buckets and objects")
    options = parser.parse_args(arguments)

    signal.signal(signal.SIGTERM, _leave)
    app: WSGIApplication = DomainDispatcherApplication(create_backend_app)
    if options.keep:
        keeper = Keeper(Memory(options.keep))
        keeper.restore()
        app = keeper.wrap(app)
    app = KeyCheck(app, os.environ["S3_ACCESS_KEY"], os.environ["S3_SECRET_KEY"])
    listener = socket.socket(fileno=options.fd)
    host, port = listener.getsockname()
    server = make_server(
        host, port, app, threaded=True, request_handler=QuietHandler, fd=listener.fileno()
    )
    server.serve_forever()


def _leave(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    main()
