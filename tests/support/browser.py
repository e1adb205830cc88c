"""A real Chromium, driven by Playwright, which downloads none."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from playwright.sync_api import Error, Page, expect, sync_playwright

PATIENCE_MS = 60_000  # a busy machine; what is as it should be waits for nothing
expect.set_options(timeout=PATIENCE_MS)

ARGUMENTS = [
    "--no-sandbox",  # root in a container may not make one
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium() -> str | None:
    """Find a Chromium of this machine that runs; None without one (Ubuntu's is a snap's stub)."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found and subprocess.run([found, "--version"], capture_output=True).returncode == 0:  # noqa: PLW1510
            return found
    return None


@contextmanager
def new_page(
    executable: str,
    *,
    width: int = 1280,
    height: int = 800,
    theme: Literal["light", "dark"] = "light",
) -> Iterator[Page]:
    """Open a page of a new browser with an empty profile."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)
        page.set_default_timeout(PATIENCE_MS)
        yield page
        browser.close()


def log_in(page: Page, url: str, username: str, password: str) -> None:
    page.goto(f"{url}/admin/")
    page.fill("#id_username", username)
    page.fill("#id_password", password)
    page.click("input[type=submit]")
    try:
        page.wait_for_selector("#user-tools .menu")
    except Error as exc:
        raise AssertionError(f"{page.url} shows: {page.inner_text('body')}") from exc
