"""Management commands, run in the test's process as `manage.py` runs them."""

from typing import Any, NamedTuple

from django.core.management import execute_from_command_line


class Ran(NamedTuple):
    status: int
    out: str
    err: str


def manage(capsys: Any, *arguments: str) -> Ran:
    """Run a command, and return its exit status with all that it printed."""
    capsys.readouterr()
    status = 0
    try:
        execute_from_command_line(["manage.py", *arguments, "--no-color"])
    except SystemExit as exc:
        status = exc.code if isinstance(exc.code, int) else 1
    return Ran(status, *capsys.readouterr())
