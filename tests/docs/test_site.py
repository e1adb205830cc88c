"""`make docs`: built without a warning, shows what the pages hold, and phones nobody."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.doc_blocks import PAGES, blocks_of
from tests.support.processes import ROOT

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory: Path = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", directory],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert (built.returncode, built.stdout + built.stderr) == (0, "")
    return directory


def test_nothing_is_fetched_from_other_hosts(site):
    fetched = re.compile(
        r"""<(?:script|img|iframe)[^>]*\bsrc="(?:https?:)?//|<link[^>]*\bhref="(?:https?:)?//"""
        r"""|@import|url\(["']?(?:https?:)?//"""
    )
    files = [*site.glob("**/*.html"), *site.glob("**/*.css")]
    assert len(files) > len(list(DOCS.glob("**/*.md")))
    assert [str(file) for file in files if fetched.search(file.read_text("utf-8"))] == []


@pytest.mark.parametrize(
    "page", [path for path in PAGES if DOCS in path.parents], ids=lambda path: path.stem
)
def test_every_block_of_a_page_is_a_block_of_the_site(site, page):
    """The repository's viewer and MkDocs differ in what may stand in a list."""
    html = (site / page.relative_to(DOCS)).with_suffix(".html").read_text(encoding="utf-8")
    assert html.count("<pre>") == len(blocks_of(page))


def test_the_schema_and_the_examples_are_part_of_the_site(site):
    for name in ("notification.schema.json", "examples/safe_consumer.py"):
        assert (site / name).read_bytes() == (DOCS / name).read_bytes()
