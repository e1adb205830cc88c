"""Which environment variables are ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bucketwatch.env import NAMES_IN_USE, Site, secret_variables
from scanning.config.settings import EngineSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

OTHERS = frozenset({"CONFIG_PATH", "ENV_FILE", "DJANGO_SETTINGS_MODULE"})


def product_variables() -> frozenset[str]:
    """Name every variable that the product reads."""
    site = {name.upper() for name in Site.model_fields}
    engine = {
        f"{section}_{key}".upper()
        for section, field in EngineSettings.model_fields.items()
        for key in getattr(field.annotation, "model_fields", {})
    }
    files = {f"{name}_FILE" for name in secret_variables()}
    return OTHERS | site | engine | files | set(NAMES_IN_USE.values())


def without_product_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Leave out what would point the product at somebody's real Redis or database."""
    ours = product_variables()
    return {
        name: value
        for name, value in environ.items()
        if name not in ours and not name.startswith("INFISICAL_")
    }
