"""The documentation says what the code does: links, names, keys, members, and the example runs."""

import inspect
import json
import re
import subprocess
from collections.abc import Iterable, Iterator
from types import ModuleType, SimpleNamespace

import pytest
from django.core.management import get_commands, load_command_class

from buckets.importing import sources
from bucketwatch.local.environment import product_variables
from scanning.config.settings import RedisSection
from scanning.core import redis_keys
from scanning.core.replay import as_replay
from scanning.core.types import EventType
from tests.support.doc_blocks import ALL, LANGUAGES, PAGES, Block, manage_commands
from tests.support.notifications import SCHEMA, example, message
from tests.support.processes import ROOT

FOLDERS = ("bench", "buckets", "bucketwatch", "deploy", "docs", "requirements", "scanning", "tests")
DECISIONS = sorted(ROOT.glob("docs/adr/*.md"))


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
def test_every_test_that_a_page_names_exists(path):
    code = "".join(file.read_text(encoding="utf-8") for file in ROOT.glob("tests/**/test_*.py"))
    named = re.findall(r"`(test_\w+)`", path.read_text(encoding="utf-8"))
    assert [name for name in named if f"def {name}(" not in code] == []


def test_every_test_that_the_code_names_exists():
    files = [file for folder in FOLDERS for file in ROOT.glob(f"{folder}/**/*.py")]
    code = {str(file): file.read_text(encoding="utf-8") for file in files}
    tests = set(re.findall(r"^def (test_\w+)\(", "".join(code.values()), re.MULTILINE))
    missing = [
        f"{file}: {name}"
        for file, text in code.items()
        for names in re.findall(r"`([\w/]*\btest_\w+)(?:\.py)?(?:::(\w+))?`", text)
        for name in filter(None, names)
        if name not in tests and not any(path.endswith(f"/{name}.py") for path in code)
    ]
    assert missing == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_verb_that_a_page_names_is_in_the_makefile(path):
    verbs = set(re.findall(r"^([a-z]+):", page("Makefile"), flags=re.MULTILINE))
    assert set(re.findall(r"(?:`|^|=\d+ )make ([a-z]+)", path.read_text(), re.MULTILINE)) <= verbs


def test_every_page_has_its_place_in_the_site():
    named = re.findall(r"[\w/.-]+\.md$", page("mkdocs.yml"), flags=re.MULTILINE)
    pages = [str(path.relative_to(ROOT / "docs")) for path in ROOT.glob("docs/**/*.md")]
    assert sorted(named) == sorted(pages)


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


# --- keys in Redis

PLACES = {
    "bucket": "{name}",
    "name": "{name}",
    "prefix": "{state_prefix}",
    "key": "{object key}",
    "region": "{region}",
    "endpoint": "{endpoint}",
    "generation": "{generation}",
    "id_": "{id}",
    "minute": "{minute}",
    "day": "{day}",
    "reporter": "{reporter}",
}


def key_names(module: ModuleType | SimpleNamespace) -> Iterator[str]:
    """Every key of `redis_keys.py`, with the places of its arguments in braces."""
    for value in vars(module).values():
        if inspect.isfunction(value):
            yield value(**{name: PLACES[name] for name in inspect.signature(value).parameters})
        elif isinstance(value, str) and re.fullmatch(r"linode:.*[^:]", value):
            yield value


def test_every_key_is_documented_and_no_other():
    documented = cells(page("docs/redis-keys.md"), 0)
    of_libraries = {RedisSection().queue_name, "django_q:{region}:q"}
    assert {name for name in documented if ":" in name} == set(key_names(redis_keys)) | of_libraries


def key_types(module: ModuleType) -> Iterator[tuple[str, str]]:
    """The name of every key, and its type as the comment or docstring beside it begins."""
    beside = re.compile(r"^(\w+) = .*  # ([\w ]+?)(?: with expiry)?:", re.MULTILINE)
    comments = dict(beside.findall(inspect.getsource(module)))
    for name, value in vars(module).items():
        if inspect.isfunction(value):
            [key] = key_names(SimpleNamespace(key=value))
            kind = re.match(r"\w+( set|, JSON| ``true``)?", value.__doc__ or "")
            assert kind is not None, key
            yield key, kind[0].lower()
        elif name in comments:
            yield value, comments[name]


def test_every_key_has_the_documented_type():
    rows = re.findall(
        r"^\| `([^`]*:[^`]*)` \| ([^|]+) \|", page("docs/redis-keys.md"), re.MULTILINE
    )
    documented = {name: kind.replace("`", "").lower() for name, kind in rows}
    for name, kind in key_types(redis_keys):
        assert documented[name] == kind.replace("`", ""), name


# --- notifications

NOTIFICATIONS = page("docs/notifications.md")
TYPES = {
    "text": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "object": dict,
}


def test_the_members_of_a_notification_are_documented_with_their_types():
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", section(NOTIFICATIONS, "Members"), re.MULTILINE)
    assert {name: TYPES[kind] for name, kind in rows} == {
        name: type(value)
        for name, value in json.loads(as_replay(json.dumps(example(watch="inbox")), "1")).items()
    }


def test_the_notification_that_is_shown_is_like_a_real_one():
    shown = re.search(r"```json\n(.*?)```", NOTIFICATIONS, flags=re.DOTALL)
    assert shown is not None
    types = {name: type(value) for name, value in message(shown[1]).items()}
    assert types == {name: type(value) for name, value in example().items()}


def test_the_schema_has_the_documented_members_and_event_types():
    rows = re.findall(r"^\| `(\w+)` \|", section(NOTIFICATIONS, "Members"), re.MULTILINE)
    assert list(SCHEMA["properties"]) == rows
    assert set(SCHEMA["required"]) == set(rows) - {"watch", "previous", "replay"}
    assert SCHEMA["properties"]["event_type"] == {"enum": [kind.value for kind in EventType]}


def test_the_event_types_are_documented():
    assert cells(section(NOTIFICATIONS, "Event types"), 0)[1:] == [
        "created",
        "detected",
        "updated",
        "deleted",
    ]
    assert set(EventType) == {"created", "detected", "updated", "deleted"}


# --- files that are shown


def test_the_variables_of_a_shown_env_file_are_known():
    shown = [block.text for block in ALL if block.language == "ini"]
    named = {name for text in shown for name in re.findall(r"^([A-Z_]+)=", text, re.MULTILINE)}
    assert named
    assert named <= product_variables()


def test_a_shown_file_of_buckets_can_be_imported(tmp_path):
    texts = [b.text for b in ALL if "buckets:\n" in b.text and b.language in {"yaml", "sh"}]
    assert len(texts) > 2
    for text in texts:
        file = tmp_path / "buckets.yaml"
        file.write_text(re.split(r"<<'END'\n|END\n", text)[1] if "<<'END'" in text else text)
        found, _ = sources.from_file(file, first_scan="baseline")
        assert [candidate.problem for candidate in found if candidate.problem] == []


# --- commands: `tests/docs/test_doc_commands.py` runs what can be run here


def names(blocks: Iterable[Block]) -> list[str]:
    return [str(block) for block in blocks]


def test_every_block_says_what_language_it_is_in():
    assert names(block for block in ALL if block.language not in LANGUAGES) == []


def test_commands_stand_in_blocks_of_shell():
    program = re.compile(
        r"^(make|curl|\S*manage\.py|\.venv/bin/\S+|docker|kubectl|git) ", re.MULTILINE
    )
    blocks = [block for block in ALL if block.language not in {"sh", "python"}]
    assert names(block for block in blocks if program.search(block.text)) == []


@pytest.mark.parametrize("block", [b for b in ALL if b.language == "sh" and b.needs], ids=str)
def test_a_block_of_shell_that_is_not_run_here_can_be_parsed(block):
    bash = subprocess.run(
        ["bash", "-n"], input=block.text, text=True, capture_output=True, check=False
    )
    assert bash.stderr == ""


@pytest.mark.parametrize("block", [b for b in ALL if b.language == "sh" and b.needs], ids=str)
def test_what_is_not_run_here_names_programs_and_files_that_exist(block):
    ours = re.findall(r"(?<![\w/.])((?:docs|deploy|bench|requirements)/[\w/.-]+)", block.text)
    assert [name for name in ours if not (ROOT / name).exists()] == []


SESSION = re.compile(r"^\$ (.*\n)", re.MULTILINE)  # what was typed, in a block that shows output


def written_commands() -> Iterator[tuple[str, list[str]]]:
    """Every use of manage.py in blocks and in the text, with where it stands."""
    for block in ALL:
        shell = block.text if block.language == "sh" else "".join(SESSION.findall(block.text))
        for words in manage_commands(shell):
            yield str(block), words
    for path in PAGES:
        for inline in re.findall(r"`([^`\n]*manage\.py [a-z][^`\n]*)`", path.read_text()):
            for words in manage_commands(inline):
                yield str(path.relative_to(ROOT)), words


@pytest.mark.parametrize(("where", "words"), list(written_commands()), ids=str)
def test_a_command_that_is_written_down_takes_those_options(where, words):
    name, *arguments = (word for word in words if word not in {"…", "..."})
    app = get_commands()[name]
    command = load_command_class(app, name) if isinstance(app, str) else app
    command.create_parser("manage.py", name).parse_args(arguments)
