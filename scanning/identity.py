"""The name of this process among all processes of all hosts."""

from __future__ import annotations

import os
import socket


def this_process() -> str:
    """Name this process as no other running process is named, on any host."""
    return f"{socket.gethostname()}:{os.getpid()}"
