"""The documentation says what the code does: links, names, keys, members, and the example runs."""

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from scanning.conf import Redis
from scanning.core import events, keys
from scanning.core.types import BucketConfig, Change, EventType, ObjectMetadata, ObjectState

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
FOLDERS = ("buckets", "bucketwatch", "docs", "requirements", "scanning", "tests")
DECISIONS = sorted(ROOT.glob("docs/adr/*.md"))
BUCKET = BucketConfig("media-in", "localhost:9000", "local", "MEDIA_IN")


def page(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def cells(text: str, column: int) -> list[str]:
    """What stands in code marks in one column of all tables."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [found for row in rows for found in re.findall(r"`([^`]+)`", row[column])]


def section(text: str, title: str) -> str:
    return text.split(f"\n## {title}", 1)[1].split("\n## ", 1)[0]


# --- links


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(path):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_a_page_names_exists(path):
    named = re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w/.*-]+)`", path.read_text(encoding="utf-8"))
    assert [name for name in named if not list(ROOT.glob(name))] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_that_a_page_names_exists(path):
    files = [f"/{file}" for folder in FOLDERS for file in ROOT.glob(f"{folder}/**/*.py")]
    named = re.findall(r"[\w/]+\.py\b", path.read_text(encoding="utf-8").replace("manage.py", ""))
    assert [name for name in named if not any(file.endswith(f"/{name}") for file in files)] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_verb_that_a_page_names_is_in_the_makefile(path):
    verbs = set(re.findall(r"^([a-z]+):", page("Makefile"), flags=re.MULTILINE))
    assert set(re.findall(r"(?:`|^|=\d+ )make ([a-z]+)", path.read_text(), re.MULTILINE)) <= verbs


def test_every_document_that_the_code_names_exists():
    code = [
        path
        for app in ("buckets", "bucketwatch", "scanning")
        for path in ROOT.glob(f"{app}/**/*.py")
    ]
    missing = [
        f"{path}: docs/{name}"
        for path in code
        for name in re.findall(r"docs/(adr/\d{4}|[\w-]+\.md)", path.read_text(encoding="utf-8"))
        if not list((ROOT / "docs").glob(f"{name}*"))
    ]
    assert missing == []


def test_decisions_are_numbered_without_gaps():
    numbers = [int(path.name[:4]) for path in DECISIONS]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_has_its_three_parts(path):
    titles = re.findall(r"^## (.*)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert titles == ["Context", "Decision", "Consequences"]


# --- dependencies


def test_every_direct_dependency_is_explained_and_no_other():
    wanted = {
        path.stem: sorted(
            re.split(r"[=<>]", line)[0]
            for line in path.read_text(encoding="utf-8").splitlines()
            if line and not line.startswith(("#", "-r"))
        )
        for path in ROOT.glob("requirements/*.in")
    }
    tables = re.split(r"\n## .*`requirements/(\w+)\.in`\n", page("docs/dependencies.md"))
    explained = {
        name: sorted(cells(table, 0))
        for name, table in zip(tables[1::2], tables[2::2], strict=True)
    }
    assert explained == wanted


# --- keys in Redis

PLACES = {
    "bucket": "{name}",
    "name": "{name}",
    "prefix": "{state_prefix}",
    "key": "{object key}",
    "region": "{region}",
    "generation": "{generation}",
    "id_": "{id}",
}


def key_names(module: ModuleType) -> Iterator[str]:
    """Every key of `keys.py`, with the places of its arguments in braces."""
    for value in vars(module).values():
        if inspect.isfunction(value):
            yield value(**{name: PLACES[name] for name in inspect.signature(value).parameters})
        elif isinstance(value, str) and re.fullmatch(r"linode:.*[^:]", value):
            yield value


def test_every_key_is_documented_and_no_other():
    documented = cells(page("docs/redis-keys.md"), 0)
    of_libraries = {Redis().queue_name, "django_q:{region}:q"}
    assert {name for name in documented if ":" in name} == set(key_names(keys)) | of_libraries


# --- notifications

NOTIFICATIONS = page("docs/notifications.md")
TYPES = {
    "text": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "object": dict,
}


def notification(**changes: Any) -> dict[str, Any]:
    state = ObjectState("5eb6", 1740830982.5, 11)
    change = Change(EventType.UPDATED, "a.txt", state, ObjectState("d41d", 1740744582.0, 0))
    head = ObjectMetadata("5eb6", "text/plain", {"by": "hand"})
    text = events.Notifications(BUCKET, now=1740830986.0, sequencer="1").text(change, head)
    message: dict[str, Any] = json.loads(text) | changes
    return message


def test_the_members_of_a_notification_are_documented_with_their_types():
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", section(NOTIFICATIONS, "Members"), re.MULTILINE)
    assert {name: TYPES[kind] for name, kind in rows} == {
        name: type(value) for name, value in notification().items()
    }


def test_the_notification_that_is_shown_is_like_a_real_one():
    shown = re.search(r"```json\n(.*?)```", NOTIFICATIONS, flags=re.DOTALL)
    assert shown is not None
    types = {name: type(value) for name, value in json.loads(shown[1]).items()}
    assert types == {name: type(value) for name, value in notification().items()}


def test_the_event_types_are_documented():
    assert cells(section(NOTIFICATIONS, "Event types"), 0)[1:] == [
        "created",
        "detected",
        "updated",
        "deleted",
    ]
    assert set(EventType) == {"created", "detected", "updated", "deleted"}


class Done(Exception):
    """Ends a consumer, as a kill would."""


@pytest.fixture
def example(redis_server):
    """The consumer of the documentation, and a queue to push to."""
    code = re.search(r"```python\n(.*?)```", NOTIFICATIONS, flags=re.DOTALL)
    assert code is not None
    namespace: dict[str, Any] = {"__name__": "example"}
    exec(code[1], namespace)  # noqa: S102 - our own page
    with redis_server.client() as client:
        yield namespace, client


def consume(example: Any, name: str = "first", *, until: str) -> list[str]:
    """The keys of the events that a consumer was given; it is killed at the key ``until``."""
    namespace, client = example
    given = []

    def work(event: dict[str, Any]) -> None:
        given.append(event["key"])
        if event["key"] == until:
            raise Done

    with pytest.raises(Done):
        namespace["Consumer"](client, name, work).run()
    return given


def push(example: Any, *keys_of_objects: str) -> None:
    namespace, client = example
    for key in keys_of_objects:
        client.rpush(namespace["QUEUE"], json.dumps(notification(key=key, event_id=key)))


def test_the_documented_consumer_reads_the_default_queue(example):
    assert example[0]["QUEUE"] == Redis().queue_name


def test_the_documented_consumer_gets_events_in_order_and_drops_repeated_ones(example):
    push(example, "a", "b", "a", "c", "end")
    assert consume(example, until="end") == ["a", "b", "c", "end"]


def test_the_documented_consumer_goes_on_with_what_a_killed_run_had_in_hand(example):
    push(example, "a", "b")
    assert consume(example, until="b") == ["a", "b"]
    push(example, "c")
    assert consume(example, "second", until="c") == ["c"]
    push(example, "end")
    assert consume(example, until="end") == ["b", "end"]


def test_the_documented_consumer_remembers_events_for_the_documented_time(example):
    _, client = example
    push(example, "a", "end")
    consume(example, until="end")
    assert 0 < client.ttl("my-service:seen:a") <= 7 * 24 * 3600
