"""What is said of packages: who keeps each direct dependency, and the licence of all."""

import re

from tests.support.processes import ROOT

PAGE = (ROOT / "docs/licences.md").read_text(encoding="utf-8")
PINS = (ROOT / "requirements/base.txt").read_text(encoding="utf-8")


def listed() -> set[str]:
    rows = [line.split("|") for line in PAGE.splitlines() if line.startswith("| ")][1:]
    return {re.sub("[_.]", "-", name.strip().lower()) for _, name, *_ in rows}


def test_the_page_lists_what_is_deployed_and_nothing_else():
    pins = re.findall(r"^([\w.-]+)(?:\[.*?\])?==(\S+ ;)?", PINS, flags=re.MULTILINE)
    always = {name for name, marker in pins if not marker}
    assert always <= listed() <= {name for name, _ in pins}


def test_every_package_names_its_licence_but_those_that_the_page_speaks_of():
    unknown = re.findall(r"^\| (\S+) +\| UNKNOWN ", PAGE, flags=re.MULTILINE)
    assert [name for name in unknown if f"`{name}` names no licence" not in PAGE] == []


def direct_dependencies() -> set[str]:
    lines = [
        line
        for path in ROOT.glob("requirements/*.in")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line and not line.startswith(("#", "-r"))
    ]
    return {re.split(r"[\[=<>]", line)[0] for line in lines}


def test_it_is_said_who_keeps_each_direct_dependency():
    page = (ROOT / "docs/dependencies.md").read_text(encoding="utf-8")
    table = page.split("\n## How well they are kept\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| (.+) \| (20\d\d-\d\d) \|$", table, flags=re.MULTILINE)
    assert {name for name, _, _ in rows} == direct_dependencies()
    assert all(keeper.strip() for _, keeper, _ in rows)


def test_no_host_of_a_package_index_is_named():
    """Which index is asked is for whoever runs it to configure."""
    pages = [ROOT / "Makefile", *ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    hosts = re.compile(r"pypi\.org|pythonhosted|osv\.dev", re.IGNORECASE)
    assert [page.name for page in pages if hosts.search(page.read_text(encoding="utf-8"))] == []
