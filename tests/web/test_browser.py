"""What an operator does, in a real browser, with the product as it is deployed."""

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import chromium, log_in, new_page
from tests.support.waiting import eventually

pytestmark = [pytest.mark.browser, pytest.mark.processes, pytest.mark.timeout(300)]

QUEUE = "linode:notifications:queue"


@pytest.fixture(params=[1280, 390])
def page(request) -> Iterator[Page]:
    executable = chromium()
    if executable is None:
        pytest.skip("NO BROWSER TESTS: no chromium runs here (apt-get install chromium)")
    with new_page(executable, width=request.param) as page:
        yield page


@pytest.fixture
def complaints(page: Page) -> list[str]:
    """What the browser complained of: errors of scripts, refused resources."""
    found: list[str] = []
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("console", lambda said: found.append(said.text) if said.type == "error" else None)
    return found


def test_an_operators_first_day(page, product, redis_server, s3_server, complaints):
    bucket = s3_server.bucket()
    s3_server.put(bucket, "one.txt")
    log_in(page, product.url, product.username, product.password)
    expect(page.locator("#verdict")).to_have_text("No bucket is watched yet")

    add_bucket_with_wrong_then_right_keys(page, bucket, s3_server)
    watch_a_change_arrive(page, bucket, s3_server)
    have_a_key_explained(page)
    with redis_server.client() as redis:
        see_deletions_held_and_release_them(page, bucket, s3_server, redis)
        turn_notifications_off_in_the_list(page, bucket, s3_server, redis)
    create_and_disable_an_api_client(page)

    assert complaints == []


def test_without_javascript_everything_is_shown_and_a_bucket_can_be_added(product, s3_server, page):
    bucket = s3_server.bucket()
    browser = page.context.browser
    assert browser is not None
    plain = browser.new_context(java_script_enabled=False).new_page()
    log_in(plain, product.url, product.username, product.password)
    expect(plain.locator("#verdict")).to_have_text("No bucket is watched yet")
    expect(plain.locator(".live")).to_be_hidden()
    plain.goto(f"{product.url}/admin/buckets/bucket/add/")
    fill_in(plain, bucket, s3_server, secret_key=s3_server.secret_key)
    plain.click("button[name=_test]")
    expect(plain.locator("#connection-test")).to_contain_text("The keys work")
    fill_in(plain, bucket, s3_server, secret_key=s3_server.secret_key)
    plain.click("input[name=_save]")
    expect(plain.locator(".messagelist .success")).to_be_visible()

    def is_scanned() -> bool:
        plain.reload()
        return "on time" in plain.locator(".bucket-head").inner_text()

    assert eventually(is_scanned, 60, interval=0.5)


def fill_in(page: Page, bucket: str, s3_server, *, secret_key: str) -> None:
    page.fill("#id_name", bucket)
    page.fill("#id_region", "us-iad-1")
    page.fill("#id_endpoint", s3_server.url)
    page.fill("#id_access_key", s3_server.access_key)
    page.fill("#id_secret_key", secret_key)


def add_bucket_with_wrong_then_right_keys(page: Page, bucket: str, s3_server) -> None:
    page.click("text=Add a bucket")
    fill_in(page, bucket, s3_server, secret_key="not-the-right-one")
    page.check("#id_announce_deleted")
    page.click("button[name=_test]")
    outcome = page.locator("#connection-test")
    expect(outcome).to_contain_text("Give the bucket's credential a valid key pair")

    page.fill("#id_secret_key", s3_server.secret_key)
    page.click("button[name=_test]")
    expect(outcome).to_contain_text("The keys work")
    expect(outcome).to_contain_text("one.txt")

    page.click("input[name=_save]")
    expect(page.locator(".messagelist .success")).to_be_visible()
    expect(page.locator(".bucket-head h1")).to_contain_text(bucket)


def watch_a_change_arrive(page: Page, bucket: str, s3_server) -> None:
    """Nothing is clicked or loaded: the page follows by itself, and stops when it is told to."""
    page.evaluate("window.isTheSamePage = true")
    expect(page.locator(".bucket-head .badge")).to_have_text("on time")
    s3_server.put(bucket, "arrived/live.txt")
    expect(page.locator("#events")).to_contain_text("arrived/live.txt")
    expect(page.locator("#facts")).to_contain_text("Objects2")
    assert page.evaluate("window.isTheSamePage")

    page.click("[data-live-pause]")
    expect(page.locator("[data-live-says]")).to_have_text("Paused")
    page.click("[data-live-pause]")
    expect(page.locator("[data-live-says]")).to_have_text("Live")

    page.click(".sections >> text=Dashboard")
    expect(page.locator(".tile.is-watched")).to_contain_text("1")
    expect(page.locator("#recent")).to_contain_text("arrived/live.txt")
    page.go_back()


def have_a_key_explained(page: Page) -> None:
    page.fill("#explain-key", "arrived/live.txt")
    page.press("#explain-key", "Enter")
    expect(page.locator(".explanation")).to_contain_text("The next scan announces nothing of it")
    page.click(".tabs >> text=Overview")


def see_deletions_held_and_release_them(page: Page, bucket: str, s3_server, redis) -> None:
    s3_server.delete(bucket, "one.txt", "arrived/live.txt")
    expect(page.locator("#callout")).to_contain_text("2 objects missing")
    assert redis.llen(QUEUE) == 2

    page.click("text=Announce 2 deletions")
    expect(page.locator(".messagelist .success")).to_contain_text("Released")
    expect(page.locator("#events .is-deleted")).to_have_count(2)
    expect(page.locator("#callout")).not_to_contain_text("missing")
    said = [json.loads(text)["event_type"] for text in redis.lrange(QUEUE, 0, -1)]
    assert said == ["created", "created", "deleted", "deleted"]


def turn_notifications_off_in_the_list(page: Page, bucket: str, s3_server, redis) -> None:
    page.click(".sections >> text=Buckets")
    row = page.locator("#result_list tbody tr").first
    row.locator("input.action-select").check()
    page.select_option("select[name=action]", label="Turn notifications off")
    page.click("button[name=index]")
    expect(page.locator(".messagelist .success")).to_contain_text("1 selected: notifications off")
    expect(row.locator(".field-notify")).to_contain_text("off")

    s3_server.put(bucket, "in silence.txt")
    expect(row.locator(".field-objects")).to_contain_text("1")
    assert redis.llen(QUEUE) == 4


def create_and_disable_an_api_client(page: Page) -> None:
    page.click(".sections >> text=API clients")
    page.click(".object-tools >> text=Add API client")
    page.fill("#id_name", "ingest")
    page.click("input[name=_save]")
    secret = page.locator("#client-secret").inner_text()
    assert len(secret) > 30
    page.click("text=I have copied it")
    assert secret not in page.content()

    page.locator("input.action-select").first.check()
    page.select_option("select[name=action]", label="Disable: refuse its tokens at once")
    page.click("button[name=index]")
    expect(page.locator("#result_list .field-status")).to_contain_text("disabled")
