"""Make the pictures of the documentation anew: `make screenshots`.

Runs a demo of its own, in a directory that is thrown away, until each bucket was scanned.
"""

from __future__ import annotations

import json
import signal
import tempfile
from pathlib import Path

from bucketwatch.demo.servers import free_port
from tests.browser import chromium, log_in, new_page
from tests.processes import Program
from tests.waiting import eventually

IMAGES = Path(__file__).parent / "images"
UPDATES = 3  # seen in the terminal, so that the page has something to show


def main() -> None:
    executable = chromium()
    if executable is None:
        raise SystemExit("no chromium runs here: apt-get install chromium")
    with tempfile.TemporaryDirectory(prefix="bucketwatch-") as directory:
        demo = Program(
            ["-m", "bucketwatch.demo", "--var", directory],
            log=Path(directory) / "output",
            environ={"PORT": str(free_port())},
        )
        try:
            eventually(lambda: demo.output().count(" updated ") >= UPDATES, timeout=120)
            way_in = json.loads((Path(directory) / "demo.json").read_text(encoding="utf-8"))
            take(executable, way_in["url"], **way_in["operator"])
        finally:
            demo.signal(signal.SIGTERM)


def take(executable: str, url: str, username: str, password: str) -> None:
    IMAGES.mkdir(exist_ok=True)
    with new_page(executable, width=1440, height=640) as page:
        log_in(page, url, username, password)
        page.goto(f"{url}/admin/buckets/bucket/")
        page.screenshot(path=IMAGES / "buckets.png")


if __name__ == "__main__":
    main()
