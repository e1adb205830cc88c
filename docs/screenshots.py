"""Make the pictures of the documentation anew: `make screenshots`.

Runs a demo of its own, in a directory that is thrown away, for some minutes, so that there is
something in the charts; one bucket gets a wrong key, so that something needs attention.
"""

from __future__ import annotations

import json
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bucketwatch.local.servers import free_port
from tests.support.browser import chromium, log_in, new_page
from tests.support.processes import Program
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from playwright.sync_api import Page

IMAGES = Path(__file__).parent / "images"
UPDATES = 25  # seen in the terminal: that takes some minutes
LIST = "/admin/buckets/bucket/"
BUCKET = "media-in"


@dataclass(frozen=True, slots=True)
class Picture:
    """``page`` is an address, or the name of a bucket."""

    name: str
    page: str
    width: int = 1280
    height: int = 800
    theme: Literal["light", "dark"] = "light"


PICTURES = (
    Picture("dashboard", "/admin/", height=900),
    Picture("dashboard-dark", "/admin/", height=900, theme="dark"),
    Picture("buckets", LIST, height=640),
    Picture("bucket-dark", BUCKET, height=900, theme="dark"),
    Picture("phone-dashboard", "/admin/", 390, 844),
    Picture("phone-buckets-dark", LIST, 390, 844, "dark"),
)


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
            eventually(lambda: " updated " in demo.output(), timeout=120)
            way_in = json.loads((Path(directory) / "demo.json").read_text(encoding="utf-8"))
            add_trouble(executable, way_in)
            eventually(lambda: demo.output().count(" updated ") >= UPDATES, timeout=900)
            for picture in PICTURES:
                take(executable, way_in, picture)
        finally:
            demo.signal(signal.SIGTERM)


def add_trouble(executable: str, way_in: dict[str, Any]) -> None:
    """Add a bucket whose keys were mistyped, and wait until its scan has failed."""
    with new_page(executable) as page:
        _log_in(page, way_in)
        page.goto(f"{way_in['url']}{LIST}add/")
        page.fill("#id_name", "partner-uploads")
        page.fill("#id_region", "us-iad-1")
        page.fill("#id_endpoint", way_in["s3"]["endpoint"])
        page.fill("#id_access_key", way_in["s3"]["access_key"])
        page.fill("#id_secret_key", "mistyped")
        page.click("input[name=_save]")
        page.wait_for_selector(".callout.is-failing", timeout=60_000)


def take(executable: str, way_in: dict[str, Any], picture: Picture) -> None:
    IMAGES.mkdir(exist_ok=True)
    size = {"width": picture.width, "height": picture.height}
    with new_page(executable, **size, theme=picture.theme) as page:
        _log_in(page, way_in)
        if picture.page.startswith("/"):
            page.goto(f"{way_in['url']}{picture.page}")
        else:
            page.goto(f"{way_in['url']}{LIST}?q={picture.page}")
            page.click(f"#result_list >> text={picture.page}")
        page.wait_for_selector(".live:visible")
        page.screenshot(path=IMAGES / f"{picture.name}.png")


def _log_in(page: Page, way_in: dict[str, Any]) -> None:
    log_in(page, way_in["url"], **way_in["operator"])


if __name__ == "__main__":
    main()
