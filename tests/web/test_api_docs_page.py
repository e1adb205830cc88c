"""The page about the API, in a real browser."""

import pytest

from tests.support.browser import chromium, new_page

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_the_page_lists_every_route_and_asks_nobody_but_this_host(live_server):
    executable = chromium()
    if executable is None:
        pytest.skip("NO BROWSER TESTS: no chromium runs here (apt-get install chromium)")
    asked: list[str] = []
    complaints: list[str] = []
    with new_page(executable) as page:
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text))
        page.goto(f"{live_server.url}/api/docs/")
        page.wait_for_selector(".opblock")
        shown = page.locator(".opblock-summary-path").all_inner_texts()
        page.locator("#operations-buckets-v1_create_bucket").click()
        page.wait_for_selector(".opblock.is-open >> text=/shared-key/")
    assert "/api/v1/events/" in {path.replace("\u200b", "") for path in shown}
    assert [url for url in asked if not url.startswith((live_server.url, "data:"))] == []
    assert complaints == []


def test_the_page_is_dark_where_the_admin_is(live_server):
    executable = chromium()
    if executable is None:
        pytest.skip("NO BROWSER TESTS: no chromium runs here (apt-get install chromium)")
    with new_page(executable, theme="dark") as page:
        is_dark = "document.documentElement.classList.contains('dark-mode')"
        page.goto(f"{live_server.url}/api/docs/")
        assert page.evaluate(is_dark)
        page.evaluate("localStorage.setItem('theme', 'light')")
        page.reload()
        assert not page.evaluate(is_dark)
