"""YAML that people write: read strictly, so that nothing of it is dropped in silence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from scanning.core.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


_TWICE = "has the same key twice in one place"


class _Strict(yaml.SafeLoader):
    """Refuses a mapping with the same key twice, of which PyYAML takes the last."""

    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: bool = False,  # noqa: FBT001, FBT002 - PyYAML's signature
    ) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            name = (key.tag, str(key.value))
            if name in seen:
                raise yaml.constructor.ConstructorError(problem=_TWICE, problem_mark=key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """Read a file strictly: no mapping may have a key twice.

    Raises ConfigurationError, which names the line and shows nothing of it: it may be a secret.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Strict)  # noqa: S506 - a SafeLoader
    except OSError as exc:
        raise ConfigurationError(f"cannot read {path}: {exc.strerror}") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        problem = _TWICE if getattr(exc, "problem", "") == _TWICE else "is not YAML"
        raise ConfigurationError(f"{path} {problem}{where}") from None
