"""`docs/errors.md` has every class of errors, and a row for every message that tells of S3."""

import ast
import re
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

import pytest

from scanning.core import errors
from scanning.core.remedies import REMEDIES

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
TEXT = " ".join(PAGE.split())
CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, errors.BucketwatchError)
}
KINDS = {"TransientError", "PermanentError", "ScanAborted"}


def test_every_class_of_errors_has_a_section_or_is_a_kind_and_there_is_no_other():
    sections = set(re.findall(r"^### (\w+)$", PAGE, flags=re.MULTILINE))
    assert sections | KINDS == set(CLASSES)
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.MULTILINE)) >= KINDS


@pytest.mark.parametrize("error", REMEDIES, ids=lambda error: error.__name__)
def test_the_next_step_of_a_class_is_in_its_section_word_for_word(error):
    section = PAGE.partition(f"### {error.__name__}\n")[2].partition("\n#")[0]
    assert f"**Next step:** {REMEDIES[error].next_step}\n" in section


def messages(module: str) -> Iterator[str]:
    """The fixed parts of the texts that a module's code holds; docstrings are left out."""
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or id(node) in docstrings:
            continue
        if isinstance(node.value, str):
            for part in re.split(r"\{\w+\}|; ", node.value):
                if " " in (fixed := part.strip(" :;()")):
                    yield fixed


def bare(text: str) -> str:
    return text.strip(" :").removeprefix("the endpoint ")


# What operators read, in the pieces in which the code has it.
SHOWN = [
    bare(piece)
    for shown in re.findall(r"`([^`\n]+)`", PAGE)
    for piece in re.split(r"[;(…)]", shown)
]


@pytest.mark.parametrize("message", sorted(set(messages("scanning/adapters/s3/errors.py"))))
def test_a_message_that_tells_of_s3_is_documented_nearly_as_it_is(message):
    """Nearly: a wording may change without the page, as long as operators recognise the row."""
    assert message in TEXT or get_close_matches(bare(message), SHOWN, cutoff=0.75)
