"""Read configuration strictly: the YAML file of the contract, overridden by the environment.

A wrong value raises ``ConfigurationError`` with one line that names the variable (or the file's
member) and what it takes; it never echoes the value, which may be a secret.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from scanning.conf import ScanningConf
from scanning.core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

# Variables in use since the older monitor; they win over the SECTION_KEY form.
NAMES_IN_USE = {
    ("defaults", "polling_interval"): "POLLING_INTERVAL",
    ("redis", "url"): "REDIS_URL",
    ("redis", "host"): "REDIS_HOST",
}


class Site(BaseModel):
    """What the web application needs; every field is the variable of its name in upper case."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    secret_key: SecretStr
    jwt_secret: SecretStr | None = None
    api_client_id: str = ""
    api_client_secret: SecretStr | None = None
    debug: bool = False
    allowed_hosts: str = "localhost,127.0.0.1,[::1]"
    csrf_trusted_origins: str = ""
    host: str = "0.0.0.0"  # noqa: S104 - probes and balancers reach a container from outside
    port: int = Field(8080, ge=1, le=65535)
    data_dir: Path = Path("var")
    database_url: SecretStr | None = None
    vault_key: SecretStr | None = None
    infisical_client_id: str = ""
    infisical_client_secret: SecretStr | None = None
    infisical_token: SecretStr | None = None
    infisical_api_url: str = "https://app.infisical.com"
    infisical_project_id: str = ""
    infisical_env: str = "prod"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @property
    def uses_infisical(self) -> bool:
        """Whether the keys are in Infisical, not in the embedded vault."""
        defaults = type(self).model_fields
        return any(
            getattr(self, name) != field.default
            for name, field in defaults.items()
            if name.startswith("infisical_")
        )


def environment(root: Path) -> dict[str, str]:
    """The process environment over the variables of ``ENV_FILE`` (default: ``.env``)."""
    named = os.environ.get("ENV_FILE")
    path = Path(named) if named else root / ".env"
    if named and not path.exists():
        raise ConfigurationError(f"ENV_FILE: there is no file {path}")
    from_file = dotenv_values(path) if path.exists() else {}
    return {k: v for k, v in from_file.items() if v is not None} | dict(os.environ)


def load_site(environ: Mapping[str, str]) -> Site:
    given = {name: environ[name.upper()] for name in Site.model_fields if environ.get(name.upper())}
    if "log_level" in given:
        given["log_level"] = given["log_level"].upper()
    try:
        site = Site.model_validate(given)
    except ValidationError as exc:
        if any(error["type"] == "missing" for error in exc.errors()):
            raise ConfigurationError(
                "SECRET_KEY is not set: put a long random value into the environment or .env "
                "(python -c 'import secrets; print(secrets.token_urlsafe(50))')"
            ) from None
        raise ConfigurationError(_one_line(exc, lambda loc: str(loc[0]).upper())) from None
    if site.uses_infisical:
        _refuse_half_an_infisical(site)
    return site


def _refuse_half_an_infisical(site: Site) -> None:
    """The embedded vault must not take the place of one that was meant."""
    missing = []
    if site.infisical_client_id and not site.infisical_client_secret:
        missing.append("INFISICAL_CLIENT_SECRET")
    if site.infisical_client_secret and not site.infisical_client_id:
        missing.append("INFISICAL_CLIENT_ID")
    if not (site.infisical_client_id or site.infisical_client_secret or site.infisical_token):
        missing.append("INFISICAL_CLIENT_ID and INFISICAL_CLIENT_SECRET (or INFISICAL_TOKEN)")
    if not site.infisical_project_id:
        missing.append("INFISICAL_PROJECT_ID")
    if missing:
        raise ConfigurationError(
            f"Infisical is half configured: set {' and '.join(missing)} too, "
            "or unset every INFISICAL_ variable to use the embedded vault"
        )
    if not site.infisical_api_url.startswith(("https://", "http://")):
        raise ConfigurationError("INFISICAL_API_URL: must begin with https:// or http://")


def load_scanning(environ: Mapping[str, str]) -> tuple[ScanningConf, list[str]]:
    """The engine's settings, and a warning for each member of the file that nothing reads."""
    path = environ.get("CONFIG_PATH")
    document = _read_yaml(Path(path)) if path else {}
    warnings: list[str] = []
    values: dict[str, dict[str, Any]] = {}
    sources: dict[tuple[str, str], str] = {}
    for section, field in ScanningConf.model_fields.items():
        members = document.pop(section, None) or {}
        if not isinstance(members, dict):
            raise ConfigurationError(f"{path}: {section} must be a mapping of settings")
        model = field.annotation
        assert isinstance(model, type)  # noqa: S101 - for mypy: every section is a model
        assert issubclass(model, BaseModel)  # noqa: S101
        warnings += [
            f"{path}: {section}.{k} is not known" for k in members if k not in model.model_fields
        ]
        values[section] = dict(members)
        for key in model.model_fields:
            names = [NAMES_IN_USE.get((section, key), ""), f"{section}_{key}".upper()]
            name = next((n for n in names if n and environ.get(n)), None)
            sources[section, key] = name or f"{path}: {section}.{key}"
            if name:
                values[section][key] = environ[name]
    # An explicit empty value switches Sentinel off although the file names a host.
    if environ.get("REDIS_SENTINEL_HOST") == "":
        values["redis"]["sentinel_host"] = ""
    warnings += [f"{path}: section {section} is not known" for section in document]
    try:
        return ScanningConf.model_validate(values), warnings
    except ValidationError as exc:
        raise ConfigurationError(
            _one_line(
                exc, lambda loc: sources.get((str(loc[0]), str(loc[1])), ".".join(map(str, loc)))
            )
        ) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigurationError(f"CONFIG_PATH: cannot read {path}: {exc.strerror}") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise ConfigurationError(f"CONFIG_PATH: {path} is not YAML{where}") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigurationError(
            f"CONFIG_PATH: {path} must hold sections such as redis:, found none"
        )
    return document


def _one_line(exc: ValidationError, name_of: Any) -> str:
    return "; ".join(f"{name_of(error['loc'])}: {error['msg']}" for error in exc.errors())
