#!/usr/bin/env python
"""Run one of bucketwatch's commands; `manage.py help` lists them."""

import os
import sys

from bucketwatch import __version__
from scanning.core.errors import ConfigurationError


def main() -> None:
    if sys.argv[1:] in (["version"], ["--version"]):  # Django would tell its own
        sys.stdout.write(f"bucketwatch {__version__}\n")
        return
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bucketwatch.settings")
    from django.core.management import execute_from_command_line  # noqa: PLC0415
    from django.db import Error as DatabaseError  # noqa: PLC0415

    from scanning.runtime.database import UNMIGRATED, is_unmigrated  # noqa: PLC0415

    try:
        execute_from_command_line(sys.argv)
    except ConfigurationError as exc:
        sys.exit(f"bucketwatch cannot start: {exc}")
    except DatabaseError as exc:
        if not is_unmigrated(exc) or "--traceback" in sys.argv:
            raise
        sys.exit(f"{UNMIGRATED} ({str(exc).splitlines()[0]})")


if __name__ == "__main__":
    main()
