"""Read configuration strictly: the YAML file of the contract, overridden by the environment.

A wrong value raises ``ConfigurationError`` with one line that names the variable (or the file's
member) and what it takes; it never echoes the value, which may be a secret.
"""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)

from scanning.config.settings import EngineSettings, checked_networks
from scanning.config.yaml_reader import read_yaml
from scanning.core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

# Other names of variables, most in use since the older monitor; they win over SECTION_KEY.
NAMES_IN_USE = {
    ("defaults", "polling_interval"): "POLLING_INTERVAL",
    ("redis", "url"): "REDIS_URL",
    ("redis", "host"): "REDIS_HOST",
    ("requests", "price_per_1000"): "REQUEST_PRICE_PER_1000",
}

FERNET_KEY_BYTES = 32
# As Django matches them: without the port of a request; a dot before a name: all names below it.
_HOST = r"(\.?[\w-]+(\.[\w-]+)*\.?|\[[\da-fA-F:.]+\])"
_ALLOWED_HOST = re.compile(rf"\*|{_HOST}")
_ORIGIN = re.compile(rf"https?://(\*\.)?{_HOST}(:\d+)?")
_POSTGRES = frozenset({"postgres", "postgresql", "pgsql"})


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
    https_only: bool = False
    hsts_seconds: int = Field(3600, ge=0)
    trusted_proxies: int = Field(0, ge=0, le=10)
    second_factor_required: bool = False
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
    metrics_token: SecretStr | None = None
    metrics_networks: Annotated[str, AfterValidator(checked_networks)] = ""
    hints_per_minute: int = Field(6000, ge=0)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["text", "json"] = "text"

    @field_validator("allowed_hosts")
    @classmethod
    def _are_hosts(cls, text: str) -> str:
        if not all(map(_ALLOWED_HOST.fullmatch, entries(text))):
            raise ValueError("must be names or addresses between commas, without scheme and port")
        return text

    @field_validator("csrf_trusted_origins")
    @classmethod
    def _are_origins(cls, text: str) -> str:
        if not all(map(_ORIGIN.fullmatch, entries(text))):
            raise ValueError("must be origins between commas, such as https://watch.example.com")
        return text

    @field_validator("database_url")
    @classmethod
    def _names_a_database(cls, url: SecretStr | None) -> SecretStr | None:
        if url is None:
            return None
        try:
            parts = urlsplit(url.get_secret_value())
            is_known = parts.scheme == "sqlite" or (parts.scheme in _POSTGRES and parts.port != 0)
        except ValueError:
            is_known = False
        if not is_known:
            raise ValueError(
                "must be postgres://user:password@host:port/name, with / # ? @ : % in the password "
                "percent-encoded"
            )
        return url

    @property
    def uses_infisical(self) -> bool:
        """Whether the keys are in Infisical, not in the embedded vault."""
        defaults = type(self).model_fields
        return any(
            getattr(self, name) != field.default
            for name, field in defaults.items()
            if name.startswith("infisical_")
        )


def entries(text: str) -> list[str]:
    """Split a variable at its commas, without empty entries."""
    return [entry.strip() for entry in text.split(",") if entry.strip()]


def environment(root: Path) -> dict[str, str]:
    """Read the process environment over the variables of ``ENV_FILE`` (default: ``.env``)."""
    named = os.environ.get("ENV_FILE")
    path = Path(named) if named else root / ".env"
    if named and not path.exists():
        raise ConfigurationError(f"ENV_FILE: there is no file {path}")
    from_file = dotenv_values(path) if path.exists() else {}
    return with_secret_files({k: v for k, v in from_file.items() if v is not None} | os.environ)


def secret_variables() -> frozenset[str]:
    """Name the variables that hold secrets: each may be in a file, which ``NAME_FILE`` names."""
    models = {"": Site} | {f"{s}_": f.annotation for s, f in EngineSettings.model_fields.items()}
    return frozenset(
        f"{prefix}{name}".upper()
        for prefix, model in models.items()
        for name, field in getattr(model, "model_fields", {}).items()
        if SecretStr in (field.annotation, *get_args(field.annotation))
    )


def with_secret_files(environ: Mapping[str, str]) -> dict[str, str]:
    """Put what secret files hold, as Docker and Kubernetes mount them, where it is looked for."""
    return dict(environ) | {
        name: _read_secret(environ, name)
        for name in secret_variables()
        if environ.get(f"{name}_FILE")
    }


def _read_secret(environ: Mapping[str, str], name: str) -> str:
    if environ.get(name):
        raise ConfigurationError(f"{name} and {name}_FILE are both set: keep one of them")
    path = environ[f"{name}_FILE"]
    try:
        value = Path(path).read_text(encoding="utf-8").strip("\r\n")
    except OSError as exc:
        raise ConfigurationError(f"{name}_FILE: cannot read {path}: {exc.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{name}_FILE: {path} is not text in UTF-8") from None
    if not value:
        raise ConfigurationError(f"{name}_FILE: {path} is empty")
    return value


def load_site(environ: Mapping[str, str]) -> Site:
    given = {name: environ[name.upper()] for name in Site.model_fields if environ.get(name.upper())}
    if "log_level" in given:
        given["log_level"] = given["log_level"].upper()
    try:
        site = Site.model_validate(given)
    except ValidationError as exc:
        if any(error["type"] == "missing" for error in exc.errors()):
            raise ConfigurationError(
                "SECRET_KEY is not set: put a long random value into the environment or .env, "
                "or into a file that SECRET_KEY_FILE names "
                "(python -c 'import secrets; print(secrets.token_urlsafe(50))')"
            ) from None
        raise ConfigurationError(_one_line(exc, lambda loc: str(loc[0]).upper())) from None
    if site.uses_infisical:
        _refuse_half_an_infisical(site)
    elif site.vault_key is not None:
        _refuse_what_opens_no_vault(site.vault_key)
    _refuse_half_an_api_client(site)
    return site


def _refuse_half_an_infisical(site: Site) -> None:
    """Refuse in time: the embedded vault must not take the place of an Infisical that was meant."""
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


def _refuse_what_opens_no_vault(key: SecretStr) -> None:
    """Refuse early: the vault is opened late, by the first scan or the first keys entered."""
    try:
        is_key = len(base64.urlsafe_b64decode(key.get_secret_value())) == FERNET_KEY_BYTES
    except ValueError:
        is_key = False
    if not is_key:
        raise ConfigurationError(
            "VAULT_KEY: must be a Fernet key, 32 bytes in URL-safe base64 (python -c "
            "'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())')"
        )


def _refuse_half_an_api_client(site: Site) -> None:
    if site.api_client_id and not site.api_client_secret:
        raise ConfigurationError("API_CLIENT_SECRET is not set, and API_CLIENT_ID is: set both")
    if site.api_client_secret and not site.api_client_id:
        raise ConfigurationError("API_CLIENT_ID is not set, and API_CLIENT_SECRET is: set both")


def load_scanning(environ: Mapping[str, str]) -> tuple[EngineSettings, list[str]]:
    """Return the engine's settings, and a warning if nothing reads some members of the file."""
    path = environ.get("CONFIG_PATH")
    document = _read_yaml(Path(path)) if path else {}
    unread: list[object] = []
    values: dict[str, dict[str, Any]] = {}
    sources: dict[tuple[str, ...], str] = {}
    for section, field in EngineSettings.model_fields.items():
        members = document.pop(section, None) or {}
        if not isinstance(members, dict):
            raise ConfigurationError(f"{path}: {section} must be a mapping of settings")
        model = field.annotation
        assert isinstance(model, type)  # noqa: S101 - for mypy: every section is a model
        assert issubclass(model, BaseModel)  # noqa: S101
        known = model.model_fields.keys() | getattr(model, "older_members", frozenset())
        unread += [f"{section}.{name}" for name in members if name not in known]
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
    unread += document  # whole sections
    try:
        return EngineSettings.model_validate(values), _warnings(path, unread)
    except ValidationError as exc:
        raise ConfigurationError(
            _one_line(exc, lambda loc: sources.get(tuple(map(str, loc)), ".".join(map(str, loc))))
        ) from None


def _warnings(path: str | None, unread: Collection[object]) -> list[str]:
    """Name all unread members in one line: the older monitor's file has many."""
    names = ", ".join(str(name)[:60] for name in unread)
    names = "".join(char if char.isprintable() else "?" for char in names)
    return [f"{path}: nothing reads {names}"] if unread else []


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        document = read_yaml(path)
    except ConfigurationError as exc:
        raise ConfigurationError(f"CONFIG_PATH: {exc}") from exc
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigurationError(
            f"CONFIG_PATH: {path} must hold sections such as redis:, found none"
        )
    return document


def _one_line(exc: ValidationError, name_of: Any) -> str:
    return "; ".join(
        f"{name_of(error['loc'])}: {error['msg'].removeprefix('Value error, ')}"
        for error in exc.errors()
    )
