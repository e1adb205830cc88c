"""A second factor in a real browser, under the strict Content-Security-Policy."""

import time
from base64 import b32decode
from collections.abc import Iterator

import pytest
from django_otp.oath import TOTP
from playwright.sync_api import Page

from tests.support.browser import chromium, log_in, new_page

pytestmark = [pytest.mark.browser, pytest.mark.processes, pytest.mark.timeout(240)]


@pytest.fixture
def page() -> Iterator[Page]:
    executable = chromium()
    if executable is None:
        pytest.skip("NO BROWSER TESTS: no chromium runs here (apt-get install chromium)")
    with new_page(executable) as page:
        yield page


def code(key: str, *, steps: int = 0) -> str:
    totp = TOTP(b32decode(key.replace(" ", "")), drift=steps)
    totp.time = time.time()
    return f"{totp.token():06d}"


def test_an_operator_sets_up_a_second_factor_and_logs_in_with_it(page, product):
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    log_in(page, product.url, product.username, product.password)
    page.goto(f"{product.url}/admin/second-factor/")
    picture = page.locator(".qr svg").bounding_box()
    assert picture is not None
    assert picture["width"] > 150
    key = page.locator(".key").inner_text()
    page.fill("#id_code", code(key, steps=-1))
    page.click("input[type=submit]")
    page.wait_for_selector(".messagelist .success")

    page.context.clear_cookies()
    page.goto(f"{product.url}/admin/")
    page.fill("#id_username", product.username)
    page.fill("#id_password", product.password)
    page.click("input[type=submit]")
    page.wait_for_selector(".second-factor")
    page.fill("#id_code", code(key))
    page.click("input[type=submit]")
    page.wait_for_url(f"{product.url}/admin/")
    assert complaints == []
