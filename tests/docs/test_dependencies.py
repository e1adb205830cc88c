"""What is said of packages: who keeps each direct dependency, and the licence of all."""

import re

from tests.support.processes import ROOT

PAGE = (ROOT / "docs/licences.md").read_text(encoding="utf-8")
REASONS = (ROOT / "docs/dependencies.md").read_text(encoding="utf-8")
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


def direct_dependencies() -> dict[str, set[str]]:
    """The name of a requirements file to the packages that it names."""
    return {
        path.stem: {
            re.split(r"[\[=<>]", line)[0]
            for line in path.read_text(encoding="utf-8").splitlines()
            if line and not line.startswith(("#", "-r"))
        }
        for path in ROOT.glob("requirements/*.in")
    }


def test_every_direct_dependency_is_explained_and_no_other():
    tables = re.split(r"\n## .*`requirements/(\w+)\.in`\n", REASONS)
    explained = {
        name: set(re.findall(r"^\| `([\w.-]+)", table.split("\n## ")[0], flags=re.MULTILINE))
        for name, table in zip(tables[1::2], tables[2::2], strict=True)
    }
    assert explained == direct_dependencies()


def test_it_is_said_who_keeps_each_direct_dependency():
    table = REASONS.split("\n## How well they are kept\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| (.+) \| (20\d\d-\d\d) \|$", table, flags=re.MULTILINE)
    assert {name for name, _, _ in rows} == set().union(*direct_dependencies().values())
    assert all(keeper.strip() for _, keeper, _ in rows)


def test_no_host_of_a_package_index_is_named():
    """Which index is asked is for whoever runs it to configure."""
    pages = [ROOT / "Makefile", *ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    hosts = re.compile(r"pypi\.org|pythonhosted|osv\.dev", re.IGNORECASE)
    assert [page.name for page in pages if hosts.search(page.read_text(encoding="utf-8"))] == []
