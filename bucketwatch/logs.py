"""What the log leaves out."""

from __future__ import annotations

import logging

_PROBES = frozenset({"/health", "/ready", "/metrics"})


class WithoutProbes(logging.Filter):
    """Drops Django's line for each refusal of a probe, which may be asked every second.

    What is wrong then is logged by whoever meets it, once when it begins.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        request = getattr(record, "request", None)
        return request is None or request.path_info.rstrip("/") not in _PROBES
