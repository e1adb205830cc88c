#!/usr/bin/env python
"""Run one of bucketwatch's commands; `manage.py help` lists them."""

import os
import sys

from scanning.core.errors import ConfigurationError


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bucketwatch.settings")
    from django.core.management import execute_from_command_line  # noqa: PLC0415

    try:
        execute_from_command_line(sys.argv)
    except ConfigurationError as exc:
        sys.exit(f"bucketwatch cannot start: {exc}")


if __name__ == "__main__":
    main()
