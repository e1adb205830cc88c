"""`docs/commands.md` has every command of ours, with its options and exit status, and no other."""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from django.core.management import get_commands, load_command_class
from django.core.management.base import CommandParser

PAGE = (Path(__file__).resolve().parents[2] / "docs/commands.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"\n### (\w+)\n(.*?)(?=\n##|\Z)", PAGE, flags=re.DOTALL))
OURS: Mapping[str, str] = {
    name: app
    for name, app in get_commands().items()
    if isinstance(app, str) and app in {"buckets", "scanning", "bucketwatch"}
}


def added(name: str) -> list[argparse.Action]:
    """What a command takes, without Django's own options."""
    parser = CommandParser(add_help=False)
    load_command_class(OURS[name], name).add_arguments(parser)
    return parser._actions


def as_written(action: argparse.Action) -> str:
    """An option as the page writes it: its long name, and what follows it."""
    metavar = str(action.metavar or action.dest.upper())
    if not action.option_strings:
        return metavar
    takes_one = action.nargs != 0
    return f"{action.option_strings[-1]} {metavar}" if takes_one else action.option_strings[-1]


def test_every_command_has_a_section_and_no_other():
    assert sorted(SECTIONS) == sorted(OURS)


@pytest.mark.parametrize("name", sorted(OURS))
def test_the_options_of_a_command_are_documented_and_no_other(name):
    table = re.search(r"\n\| option \|.*?\n\n", SECTIONS[name] + "\n\n", flags=re.DOTALL)
    documented = re.findall(r"(?m)^\| `([^`]+)` \|", table[0] if table else "")
    assert documented == [as_written(action) for action in added(name)]


@pytest.mark.parametrize("name", sorted(OURS))
def test_the_exit_status_of_a_command_is_that_of_its_help(name):
    said = re.search(r"Exit status: .*", load_command_class(OURS[name], name).help)
    documented = re.search(
        r"^Exit status: (.*?)\n(?:\n|\Z)", SECTIONS[name] + "\n", re.MULTILINE | re.DOTALL
    )
    assert (documented and " ".join(documented[0].split())) == (said and said[0])


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_default_is_documented_as_it_is(name):
    for action in added(name):
        if isinstance(action.default, float):
            row = re.search(
                rf"^\| `{re.escape(as_written(action))}` \|.*", SECTIONS[name], re.MULTILINE
            )
            assert row
            assert f"(default {action.default:g})" in row[0]
