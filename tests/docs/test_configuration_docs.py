"""`.env.example` and `docs/configuration.md` say what the code reads, and nothing else."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values
from pydantic_core import PydanticUndefined

from bucketwatch.env import NAMES_IN_USE, Site, load_scanning, load_site, secret_variables
from bucketwatch.local.environment import product_variables
from scanning.config.settings import EngineSettings

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")

# Where the code asks for a variable by name.
SOURCES = {"CONFIG_PATH": "", "ENV_FILE": ".env"}
# Longer names of variables that have a shorter one; the reference gives the rule.
ALIASES = {f"{section}_{key}".upper() for section, key in NAMES_IN_USE} - set(NAMES_IN_USE.values())
# Every secret may be in a file; the reference gives the rule.
SECRET_FILES = {f"{name}_FILE" for name in secret_variables()}


def shown(default: Any) -> str:
    return "" if default in (None, PydanticUndefined) else str(default)


def site_defaults() -> dict[str, str]:
    return {name.upper(): shown(field.default) for name, field in Site.model_fields.items()}


def scanning_defaults() -> dict[str, tuple[str, str]]:
    """Variable to member and default."""
    found = {}
    for section, field in EngineSettings.model_fields.items():
        for key, setting in field.annotation.model_fields.items():  # type: ignore[union-attr]
            name = NAMES_IN_USE.get((section, key)) or f"{section}_{key}".upper()
            found[name] = (f"{section}.{key}", shown(setting.default))
    return found


def rows(columns: int) -> list[list[str]]:
    """The reference's table rows of that many columns, without code marks."""
    found = [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        for line in REFERENCE.splitlines()
        if line.startswith("| `")
    ]
    return [row for row in found if len(row) == columns]


def test_the_example_lists_every_variable_with_its_default():
    listed = dict(re.findall(r"^#?([A-Z_0-9]+)=(.*)$", EXAMPLE, flags=re.MULTILINE))
    scanning = {name: default for name, (_, default) in scanning_defaults().items()}
    assert listed == site_defaults() | scanning | SOURCES


def test_the_example_names_everything_that_the_demo_keeps_away():
    listed = set(re.findall(r"^#?([A-Z_0-9]+)=", EXAMPLE, flags=re.MULTILINE))
    assert listed == product_variables() - ALIASES - SECRET_FILES - {"DJANGO_SETTINGS_MODULE"}


def test_uncommenting_every_line_of_the_example_changes_nothing(tmp_path):
    uncommented = tmp_path / ".env"
    uncommented.write_text(re.sub(r"^#([A-Z_0-9]+=)", r"\1", EXAMPLE, flags=re.MULTILINE))
    values = {k: v or "" for k, v in dotenv_values(uncommented).items()}
    values["SECRET_KEY"] = "x" * 50
    assert load_site(values) == load_site({"SECRET_KEY": "x" * 50})
    assert load_scanning(values) == (EngineSettings(), [])


def test_the_reference_lists_the_variables_of_the_web_application():
    listed = {name: default for name, default, _ in rows(3)}
    none = {"none": "", "none, required": ""}
    assert {name: none.get(value, value) for name, value in listed.items()} == site_defaults()


def test_the_reference_lists_the_members_of_the_file():
    listed = {name: (member, default) for name, member, default, _ in rows(4)}
    expected = {n: (member, value or "none") for n, (member, value) in scanning_defaults().items()}
    assert listed == expected


def test_the_reference_lists_the_secrets_that_may_be_in_files():
    text = REFERENCE.split("### Secrets in files", 1)[1].split("\n## ", 1)[0]
    named = set(re.findall(r"`([A-Z_]+)`", text.split("works for", 1)[1]))
    assert named == secret_variables()


@pytest.mark.parametrize("name", sorted(ALIASES | set(SOURCES)))
def test_the_reference_mentions_other_names(name):
    assert f"`{name}`" in REFERENCE


def test_the_file_of_the_reference_is_read_without_a_warning(tmp_path):
    text = re.search(r"```yaml\n(.*?)```", REFERENCE, flags=re.DOTALL)
    assert text is not None
    path = tmp_path / "config.yaml"
    path.write_text(text[1])
    conf, warnings = load_scanning({"CONFIG_PATH": str(path)})
    assert warnings == []
    assert conf.redis.sentinel_host == "redis-sentinel"
    members = {f"{s}.{k}" for s, values in yaml.safe_load(text[1]).items() for k in values}
    assert members == {member for member, _ in scanning_defaults().values()} - {"redis.url"}
