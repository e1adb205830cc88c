"""Write licences.md: under which licence everything is that is deployed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_PAGE = """\
# Licences

What `requirements/base.txt` installs, and with it the image, as the packages themselves say it.
`make licences` writes this page.

{table}

`infisical-python` names no licence in its package. `psycopg` is under the LGPL: it may be used from
here as it is; whoever changes psycopg itself and passes it on passes on its source too.
"""


def deployed() -> list[str]:
    """The names of all packages in requirements/base.txt."""
    pins = (ROOT / "requirements/base.txt").read_text(encoding="utf-8")
    return re.findall(r"^([\w.-]+)(?:\[.*?\])?==", pins, flags=re.MULTILINE)


def main() -> None:
    options = ["--from=mixed", "--format=markdown", "--no-version"]
    table = subprocess.run(
        [sys.executable, "-m", "piplicenses", *options, "--packages", *deployed()],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (ROOT / "docs/licences.md").write_text(_PAGE.format(table=table.strip()), encoding="utf-8")


if __name__ == "__main__":
    main()
