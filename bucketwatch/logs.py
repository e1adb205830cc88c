"""What the log leaves out."""

from __future__ import annotations

import logging

_PROBES = frozenset({"/health", "/ready", "/metrics"})


class RefusalsInOneLine(logging.Filter):
    """Leaves out the traceback of a request that was refused (4xx): anybody may send thousands."""

    def filter(self, record: logging.LogRecord) -> bool:
        if 400 <= getattr(record, "status_code", 0) < 500:
            record.exc_info = record.exc_text = None
        return True


class WithoutProbes(logging.Filter):
    """Drops Django's line for each refusal of a probe, which may be asked every second.

    What is wrong then is logged by whoever meets it, once when it begins.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        request = getattr(record, "request", None)
        return request is None or request.path_info.rstrip("/") not in _PROBES
