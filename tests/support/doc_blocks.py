"""The commands of the documentation, as its pages hold them.

A block of commands is fenced as ``sh``. An HTML comment right before it says when it is special:

    <!-- needs: a Linode account -->   it is not run here; its syntax and our options are checked
    <!-- stays -->                     its last command goes on until Ctrl-C; so it is run beside
                                       the blocks that follow
    <!-- stops -->                     whatever stays is ended before

All others are run by `tests/docs/test_doc_commands.py`, page by page and in order.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LANGUAGES = {"sh", "python", "json", "yaml", "ini", "text", ""}

_FENCED = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?"
    r"^```(?P<language>[^\n]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_ENDS = {"|", "||", "&&", ";", "&", "(", ")", "<", ">", ">>", "&>", "2>", "2>&1", "then", "do"}


@dataclass(frozen=True)
class Block:
    """``line`` is where the fence opens; ``needs`` is what keeps it from being run here."""

    page: str
    line: int
    language: str
    text: str
    needs: str = ""
    stays: bool = False
    stops: bool = False

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_run(self) -> bool:
        return self.language == "sh" and not self.needs


def blocks_of(path: Path) -> list[Block]:
    text = path.read_text(encoding="utf-8")
    return [_block(path, text, found) for found in _FENCED.finditer(text)]


def _block(path: Path, text: str, found: re.Match[str]) -> Block:
    mark = found["mark"] or ""
    return Block(
        page=str(path.relative_to(ROOT)),
        line=text.count("\n", 0, found.start("language")) + 1,
        language=found["language"],
        text=found["text"],
        needs=mark.removeprefix("needs: ") if mark.startswith("needs: ") else "",
        stays=mark == "stays",
        stops=mark == "stops",
    )


ALL = [block for path in PAGES for block in blocks_of(path)]


def manage_commands(text: str) -> Iterator[list[str]]:
    """Find the words after each ``manage.py`` in some shell text, up to the end of that command."""
    for line in text.replace("\\\n", " ").splitlines():
        if "manage.py" not in line:
            continue
        words = _words(line)
        for at, word in enumerate(words):
            if word.endswith("manage.py"):
                rest = words[at + 1 :]
                end = next((n for n, each in enumerate(rest) if each in _ENDS), len(rest))
                yield rest[:end]


def _words(line: str) -> list[str]:
    parts = shlex.shlex(line, posix=True, punctuation_chars=True)
    parts.whitespace_split = True
    parts.commenters = "#"
    return list(parts)
