"""Which scan a log line is about, in every thread of it; and log lines as JSON."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scanning.core.types import Claim

_scan: ContextVar[Claim | None] = ContextVar("scan", default=None)


def this_scan() -> Claim | None:
    return _scan.get()


def adopt(scan: Claim | None) -> None:
    """Have all further lines of this thread tell of ``scan``: threads start without their own."""
    _scan.set(scan)


@contextmanager
def about(scan: Claim) -> Iterator[None]:
    """Have the lines of a block tell of ``scan``."""
    token = _scan.set(scan)
    try:
        yield
    finally:
        _scan.reset(token)


class ScanFilter(logging.Filter):
    """Adds to a record which scan it is about; keeps every record.

    ``scan`` is the fence of the claim, as it begins the ``sequencer`` of the scan's notifications.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        claim = _scan.get()
        record.in_scan = ""
        if claim is not None:
            scan = f"{claim.fence:016x}"
            record.bucket, record.scan = claim.bucket, scan
            record.in_scan = f" [{claim.bucket} {scan}]"
        return True


def json_formatter() -> logging.Formatter:
    """Write one object a line: time, level, logger, message, bucket and scan, and where it was."""
    return JsonFormatter(
        ["levelname", "name", "message", "process", "threadName"],
        rename_fields={"levelname": "level", "name": "logger", "threadName": "thread"},
        timestamp="time",
        # All other members of a record are written too; a request's address may hold a secret.
        reserved_attrs=[*RESERVED_ATTRS, "taskName", "in_scan", "request", "server_time"],
    )
