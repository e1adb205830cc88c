"""What an operator does, in a real browser, with the product as it is deployed."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page

from tests.browser import chromium, log_in, new_page
from tests.product import Product
from tests.waiting import eventually

pytestmark = [pytest.mark.browser, pytest.mark.processes, pytest.mark.timeout(240)]

QUEUE = "linode:notifications:queue"


@pytest.fixture
def page() -> Iterator[Page]:
    executable = chromium()
    if executable is None:
        pytest.skip("NO BROWSER TESTS: no chromium runs here (apt-get install chromium)")
    with new_page(executable) as page:
        yield page


@pytest.fixture
def product(tmp_path, redis_server) -> Iterator[Product]:
    product = Product(tmp_path, redis_url=redis_server.url)
    product.wait_until_ready()
    yield product
    product.stop()


@pytest.fixture
def complaints(page: Page) -> list[str]:
    """What the browser complained of: errors of scripts, refused resources."""
    found: list[str] = []
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("console", lambda said: found.append(said.text) if said.type == "error" else None)
    return found


def test_an_operator_adds_a_bucket_and_turns_its_notifications_off_and_on(
    page, product, redis_server, s3_server, complaints
):
    bucket = s3_server.bucket()
    s3_server.put(bucket, "one.txt")
    s3_server.put(bucket, "a b/zwei.txt")
    with redis_server.client() as redis:
        log_in(page, product.url, product.username, product.password)
        add_bucket(page, product, bucket, s3_server)
        wait_for_objects(page, product, 2)
        assert "never" not in row(page).locator(".field-last_scan").inner_text().lower()
        assert redis.llen(QUEUE) == 2

        choose(page, "Disable notifications of selected buckets")
        assert shown(page) == "False"
        s3_server.put(bucket, "in silence.txt")
        wait_for_objects(page, product, 3)
        assert redis.llen(QUEUE) == 2

        choose(page, "Enable notifications of selected buckets")
        assert shown(page) == "True"
        s3_server.put(bucket, "announced.txt")
        wait_for_objects(page, product, 4)
        assert "announced.txt" in redis.lindex(QUEUE, 2)
    assert complaints == []


def test_an_operator_sees_why_a_bucket_cannot_be_scanned(page, product, s3_server):
    log_in(page, product.url, product.username, product.password)
    s3_server.bucket("theirs")
    add_bucket(page, product, "theirs", s3_server, secret_key="not-the-right-one")

    def error() -> str:
        page.goto(f"{product.url}/admin/buckets/bucket/")
        return row(page).locator(".field-error").inner_text().strip(" -")

    assert "secret key" in eventually(error, 30).lower()


def add_bucket(page, product, name, s3_server, *, secret_key=""):
    page.goto(f"{product.url}/admin/buckets/bucket/add/")
    page.fill("#id_name", name)
    page.fill("#id_region", "us-iad-1")
    page.fill("#id_endpoint", s3_server.url)
    page.fill("#id_access_key", s3_server.access_key)
    page.fill("#id_secret_key", secret_key or s3_server.secret_key)
    page.click("input[name=_save]")
    page.wait_for_selector(".messagelist .success")


def wait_for_objects(page, product, number):
    def listed() -> bool:
        page.goto(f"{product.url}/admin/buckets/bucket/")
        assert row(page).locator(".field-object_count").inner_text() == str(number)
        return True

    eventually(listed, 30, interval=0.3)


def row(page: Page) -> Locator:
    return page.locator("#result_list tbody tr").first


def choose(page: Page, action: str) -> None:
    row(page).locator("input.action-select").check()
    page.select_option("select[name=action]", label=action)
    page.click("button[name=index]")
    page.wait_for_selector(".messagelist .success")


def shown(page: Page) -> str | None:
    return row(page).locator(".field-notifications_enabled img").get_attribute("alt")
