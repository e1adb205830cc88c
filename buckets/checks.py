"""Django system checks: what `manage.py check` and every start say about the configuration."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core import checks

CONFIGURATION = "configuration"  # the tag: what our commands check
FILE = "configuration_file"  # and what only `check` and `runmonitor` say, not each command again


@checks.register(FILE)
def configuration_is_known(**_: Any) -> list[checks.CheckMessage]:
    """Warn of the members of the configuration file that nothing reads."""
    advice = "Remove them, or correct their names: docs/configuration.md lists all"
    return [
        checks.Warning(f"{text}. {advice}.", id="bucketwatch.W001")
        for text in settings.CONFIGURATION_WARNINGS
    ]


@checks.register(CONFIGURATION)
def data_dir_is_writable(**_: Any) -> list[checks.CheckMessage]:
    """Require the place of the embedded vault, and of the SQLite database without DATABASE_URL."""
    path = Path(settings.DATA_DIR)
    if path.is_dir() and os.access(path, os.W_OK | os.X_OK):
        return []
    problem = "is not writable by this user" if path.exists() else "does not exist"
    return [
        checks.Error(
            f"DATA_DIR: {path} {problem}.",
            hint="Set DATA_DIR to a directory that this user may write, or change its owner.",
            id="bucketwatch.E001",
        )
    ]
