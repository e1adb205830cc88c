"""Every page of the admin in a real browser: look, weight, accessibility, and what it may load."""

import json
import time
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth.models import Group, User
from django.db.models import Model
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import Page, Response, expect

from buckets import services
from buckets.models import Bucket
from scanning.core import redis_keys
from scanning.core.metrics import counters
from scanning.core.types import EventType
from tests.support.browser import chromium, log_in, new_page

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

PASSWORD = "open sesame, please"
HEAVIEST_KIB = 200
WIDTHS = [390, 1280]
SERIOUS = {"serious", "critical"}
AXE = {"preload": False}  # it would ask for style sheets again, at wrong addresses


@pytest.fixture
def paths(redis_server) -> list[str]:
    """All pages, of an installation with rows of each kind and something in each chart.

    Made before the browser is started: Playwright runs an event loop in this thread, where Django
    refuses to ask the database.
    """
    operator = User.objects.create_superuser("olga", password=PASSWORD)
    bucket = services.add_bucket(
        name="a-very-long-name-as-s3-allows-them-up-to-sixty-three-characters",
        region="us-iad-1",
        access_key="A",
        secret_key="S",
    )
    in_trouble = [
        trouble("held-1", bucket, held_since=timezone.now(), held_missing=4711),
        trouble("failing", bucket, last_error="403 " * 60, last_error_class="AccessDenied"),
        trouble("forgotten", bucket, lost_since=timezone.now()),
        trouble("paused", bucket, monitoring_enabled=False, notifications_enabled=False),
    ]
    with redis_server.client() as redis:
        fill(redis, bucket)
    rows = [
        bucket,
        bucket.credential,
        services.create_api_client(name="ingest")[0],
        operator,
        Group.objects.create(name="night shift"),
    ]
    return [
        reverse("admin:index"),
        reverse("admin:password_change"),
        reverse("admin:second_factor"),
        reverse("admin:auth_user_password_change", args=[operator.pk]),
        reverse("admin:app_list", args=["buckets"]),
        *(page_of(row, "overview", row.pk) for row in [bucket, *in_trouble]),
        page_of(bucket, "explain", bucket.pk) + "?key=a/b.txt",
        page_of(bucket.credential, "verify", bucket.credential.pk),
        *(page_of(row, name) for row in rows for name in ("changelist", "add")),
        *(page_of(row, name, row.pk) for row in rows for name in ("change", "history", "delete")),
        "/no-such-page/",
    ]


def trouble(name: str, like: Bucket, **columns: Any) -> Bucket:
    row = {"region": like.region, "endpoint": like.endpoint, "credential": like.credential}
    return Bucket.objects.create(name=name, **row, **columns)


def fill(redis: Any, bucket: Bucket) -> None:
    """Leave in Redis what scans leave there."""
    now = time.time()
    redis.sadd(redis_keys.REGIONS, bucket.region)
    redis.zadd(redis_keys.due(bucket.region), {bucket.name: 1.0})
    for ago in range(60):
        counted = dict.fromkeys(counters.ANNOUNCED.values(), ago + 1)
        counted |= {"total_objects_scanned": 10_000, counters.QUEUE_LENGTH: ago}
        redis.hset(f"{redis_keys.MINUTE_PREFIX}{int(now // 60) - ago}", mapping=counted)
        scan = [now - 60 * ago, 1.5, 1000, ago % 7, "" if ago % 9 else "AccessDenied"]
        redis.lpush(redis_keys.history(bucket.name), json.dumps(scan))
        events = [[kind, f"a long/path/to/an object {ago}", 1536] for kind in EventType]
        commit = {"bucket": bucket.name, "at": now - ago, "count": 4, "events": events}
        redis.xadd(redis_keys.EVENTS, {"commit": json.dumps(commit)})


def page_of(row: Model, name: str, *args: int) -> str:
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_{name}", args=args)


class Visit:
    """Opens pages, and notes what is wrong with each."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.wrong: list[str] = []
        self._bytes = 0
        self._said: list[str] = []
        page.emulate_media(reduced_motion="reduce")  # nothing is half-way between two colours
        page.on("pageerror", lambda error: self._said.append(str(error)))
        page.on("console", lambda said: self._note(said.type, said.text))
        page.on("response", self._weigh)

    def open(self, url: str) -> None:
        self._bytes = 0
        self._said.clear()
        self.page.goto(url, wait_until="networkidle")
        self.wrong += [f"{url}: {said}" for said in self._said]
        if self._bytes > HEAVIEST_KIB * 1024:
            self.wrong.append(f"{url}: {self._bytes / 1024:.0f} KiB")
        wider = self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        if wider > 0:
            self.wrong.append(f"{url}: {wider} px wider than the screen")
        self._check(url, AXE)
        self.page.emulate_media(color_scheme="dark")
        self._check(f"{url}, dark", AXE | {"runOnly": ["color-contrast"]})
        self.page.emulate_media(color_scheme="light")

    def _check(self, where: str, options: dict[str, Any]) -> None:
        for found in Axe().run(self.page, options=options).response["violations"]:
            if found["impact"] in SERIOUS:
                elements = [node["html"][:120] for node in found["nodes"][:3]]
                self.wrong.append(f"{where}: {found['id']}: {found['help']} {elements}")

    def _note(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"} and "404 (Not Found)" not in text:
            self._said.append(text)

    def _weigh(self, response: Response) -> None:
        if not response.url.startswith("data:"):
            self._bytes += len(response.body()) if response.ok else 0


@pytest.mark.timeout(600)
@pytest.mark.parametrize("width", WIDTHS)
def test_no_page_is_heavy_too_wide_inaccessible_or_against_the_policy(live_server, paths, width):
    executable = chromium()
    if executable is None:
        pytest.skip("NO BROWSER TESTS: no chromium runs here (apt-get install chromium)")
    with new_page(executable, width=width) as page:
        visit = Visit(page)
        visit.open(f"{live_server.url}/admin/login/")
        log_in(page, live_server.url, "olga", PASSWORD)
        for path in paths:
            visit.open(f"{live_server.url}{path}")
    assert visit.wrong == []


def test_on_a_phone_the_section_is_in_sight_and_choices_are_aligned(live_server, paths):
    executable = chromium()
    if executable is None:
        pytest.skip("NO BROWSER TESTS: no chromium runs here (apt-get install chromium)")
    with new_page(executable, width=390) as page:
        log_in(page, live_server.url, "olga", PASSWORD)
        page.goto(f"{live_server.url}{reverse('admin:auth_group_add')}")
        expect(page.locator(".sections [aria-current]")).to_be_in_viewport(ratio=1)
        boxes = page.locator(".checks input[type=checkbox]")
        left = boxes.evaluate_all("all => all.map(one => one.getBoundingClientRect().x)")
        assert len(set(left)) == 2  # columns


def test_a_buckets_name_gives_way_only_when_little_is_left_of_the_key(live_server, paths):
    executable = chromium()
    if executable is None:
        pytest.skip("NO BROWSER TESTS: no chromium runs here (apt-get install chromium)")
    with new_page(executable, width=390) as page:
        log_in(page, live_server.url, "olga", PASSWORD)
        name, key = (page.locator(f"#recent .{part}").first for part in ("bucket", "key"))
        is_cut = "part => part.scrollWidth > part.clientWidth"
        assert name.evaluate(is_cut)  # 63 characters
        assert key.evaluate("key => key.clientWidth") > 100
        name.evaluate("name => name.textContent = 'customer-086-uploads'")
        assert not name.evaluate(is_cut)


def test_a_bucket_is_found_and_resumed_by_keyboard_alone(live_server, paths):
    executable = chromium()
    if executable is None:
        pytest.skip("NO BROWSER TESTS: no chromium runs here (apt-get install chromium)")
    with new_page(executable) as page:
        page.goto(f"{live_server.url}/admin/")
        type_at(page, "#id_username", "olga")
        type_at(page, "#id_password", f"{PASSWORD}\n")
        type_at(page, ".sections a[href$='/bucket/']", "\n")
        type_at(page, "#searchbar", "paused\n")
        type_at(page, "#result_list tbody th a", "\n")
        type_at(page, "button[value=resume]", " ")
        expect(page.locator(".messagelist .success")).to_contain_text("Resumed")


def type_at(page: Page, where: str, text: str) -> None:
    """Press Tab until the focus is there, and is seen to be; then type."""
    wanted = page.locator(where).first
    wanted.wait_for()
    for _ in range(40):
        if wanted.evaluate("e => e === document.activeElement"):
            break
        page.keyboard.press("Tab")
    assert wanted.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    for key in text:
        page.keyboard.press({"\n": "Enter", " ": "Space"}.get(key, key))


def test_a_form_that_was_sent_shows_it_and_cannot_be_sent_twice(live_server, paths):
    executable = chromium()
    if executable is None:
        pytest.skip("NO BROWSER TESTS: no chromium runs here (apt-get install chromium)")
    with new_page(executable) as page:
        log_in(page, live_server.url, "olga", PASSWORD)
        page.goto(f"{live_server.url}{reverse('admin:buckets_bucket_changelist')}")
        page.locator("input.action-select").first.check()
        page.select_option("select[name=action]", label="Pause")
        page.route("**", lambda route: route.fulfill(status=204))  # the page stays
        go = page.locator("button[name=index]")
        go.click()
        expect(go).to_be_disabled()
        expect(go).to_have_attribute("aria-busy", "true")


@pytest.mark.parametrize("path", ["/admin/login/", "/api/docs/", "/no-such-page/", "/static/none"])
def test_every_answer_carries_the_policy(client, path):
    policy = client.get(path)["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
