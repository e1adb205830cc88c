"""A database whose tables are not those of this version: `manage.py migrate` was forgotten."""

from __future__ import annotations

from django.db import Error, ProgrammingError

UNMIGRATED = "The database lacks tables or columns of this version: run manage.py migrate."


def is_unmigrated(exc: Error) -> bool:
    """Tell by an error alone, without asking a database that may be away."""
    in_sqlite = str(exc).startswith(("no such table", "no such column"))
    return in_sqlite or isinstance(exc, ProgrammingError)  # PostgreSQL
