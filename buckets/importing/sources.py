"""Where imported buckets come from: a YAML file, or the Redis of an older monitor.

Nothing is written here, and nothing judged that the services judge: what a source says becomes
``Candidate`` rows (`plan.py`). `docs/taking-over.md` has the shape of the file.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Self

from django.core.exceptions import ValidationError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic import ValidationError as InvalidRow

from buckets import validators
from buckets.importing.plan import Candidate, Keys
from buckets.models import EVENT_TYPES, Bucket, Credential, Outbox
from scanning import wiring
from scanning.config.yaml_reader import read_yaml
from scanning.core import bucket_document
from scanning.core.errors import ConfigurationError
from scanning.core.types import EventType
from scanning.core.vault_names import prefix_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from scanning.adapters.redis.bucket_configs import Stored
    from scanning.core.types import BucketConfig

_SOME_EVENTS = f"has to be a list of some of {', '.join(EVENT_TYPES)}"
# By pydantic's type of error: how a message goes on after the member's name.
_PROBLEMS = {
    "extra_forbidden": "is not known",
    "invalid_key": "is not known",
    "string_type": "has to be text: put it in quotes",
    "int_type": "has to be a whole number",
    "bool_type": "has to be true or false",
    "list_type": _SOME_EVENTS,
    "enum": _SOME_EVENTS,
}
# A scan has begun a while before its time is written.
LEAST_WATCH_S = 10.0
# No database takes them all.
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def _storable(text: str) -> str:
    if _UNSTORABLE.search(text):
        raise ValueError("holds a character that cannot be stored")
    return text


_Text = Annotated[str, AfterValidator(_storable)]


class _CredentialRow(BaseModel):
    """Strict: YAML makes other numbers of a secret like 0123 or 12_345 without quotes."""

    model_config = ConfigDict(strict=True, hide_input_in_errors=True)

    name: str
    access_key: str | None = None
    secret_key: str | None = None
    endpoint: str | None = None


class _BucketRow(BaseModel):
    """A bucket in the file; members are called as the model's fields, or have them as aliases."""

    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)

    name: str
    credential: str | None = None
    access_key: str | None = None
    secret_key: str | None = None
    client_secret: str | None = None
    events: list[Annotated[EventType, Field(strict=False)]] | None = None
    bucket_name: _Text | None = None
    region: _Text | None = None
    endpoint: _Text | None = None
    polling_interval: int | None = None
    polling_longest: int | None = None
    probe_interval: int | None = None
    monitoring_enabled: bool | None = None
    notifications_enabled: bool | None = None
    fetch_metadata: bool | None = None
    trust_etags: bool | None = None
    prefix: _Text | None = None
    suffix: _Text | None = None
    first_scan: _Text | None = None
    lanes: int | None = None
    requests_per_day: int | None = None
    most_objects: int | None = None
    webhook_url: _Text | None = None
    webhook_client_id: _Text | None = Field(None, alias="client_id")
    webhook_token_url: _Text | None = Field(None, alias="token_url")
    webhook_secret_in_redis: bool | None = None

    @model_validator(mode="after")
    def _has_all_of_oauth2(self) -> Self:
        client = (self.webhook_client_id, self.client_secret, self.webhook_token_url)
        if any(client) and not all(client):
            raise ValueError(validators.ALL_OF_OAUTH2)
        return self

    def columns(self) -> dict[str, Any]:
        """Return the model's fields that the row sets, by name."""
        others = {"name", "credential", "access_key", "secret_key", "client_secret", "events"}
        columns = self.model_dump(exclude=others, exclude_none=True)
        return columns | (_announce_columns(self.events) if self.events is not None else {})


def from_file(path: Path, *, first_scan: str) -> tuple[list[Candidate], list[Keys]]:
    """Read buckets and shared credentials from a YAML file. Raises ConfigurationError."""
    document = _yaml(path)
    unknown = document.keys() - {"buckets", "credentials"}
    if unknown or not all(isinstance(rows, list) for rows in document.values()):
        raise ConfigurationError(f"{path}: write two lists in it, buckets and credentials")
    shared = []
    for number, row in enumerate(_named_rows(path, "credentials", document), 1):
        try:
            shared.append(_shared_keys(_CredentialRow.model_validate(row)))
        except InvalidRow as exc:
            problem = _problems(exc)[0]
            raise ConfigurationError(f"{path}: entry {number} of credentials: {problem}") from None
    rows = _named_rows(path, "buckets", document)
    return [_from_row(row, first_scan) for row in rows], shared


def _yaml(path: Path) -> dict[str, Any]:
    document = read_yaml(path) or {}
    if not isinstance(document, dict):
        raise ConfigurationError(f"{path}: write two lists in it, buckets and credentials")
    return document


def _named_rows(path: Path, section: str, document: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows: list[Any] = document.get(section, [])
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not isinstance(row.get("name"), str):
            raise ConfigurationError(f"{path}: entry {number} of {section} has no name")
    return rows


def _shared_keys(row: _CredentialRow) -> Keys:
    return Keys(row.name, row.access_key or "", row.secret_key or "", row.endpoint or "")


def _from_row(given: Mapping[str, Any], first_scan: str) -> Candidate:
    try:
        row = _BucketRow.model_validate(given)
    except InvalidRow as exc:
        name: str = given["name"]
        return Candidate(name, Keys(credential=name), problem="; ".join(_problems(exc)))
    return Candidate(
        row.name,
        Keys(row.credential or row.name, row.access_key or "", row.secret_key or ""),
        {"first_scan": first_scan} | row.columns(),
        client_secret=row.client_secret or "",
    )


def _problems(exc: InvalidRow) -> list[str]:
    """Write one message a member; none holds a value, which may be a secret."""
    found: dict[str, str] = {}
    for error in exc.errors(include_url=False, include_input=False):
        member = str(error["loc"][0]) if error["loc"] else ""
        says = _PROBLEMS.get(error["type"]) or str(error.get("ctx", {}).get("error", error["msg"]))
        found.setdefault(member, f"{member} {says}".lstrip())
    return list(found.values())


def _announce_columns(events: Iterable[str]) -> dict[str, bool]:
    wanted = set(events)
    return {f"announce_{kind}": kind in wanted for kind in EVENT_TYPES}


def from_redis(*, first_scan: str) -> tuple[list[Candidate], list[Keys]]:
    """Read every configuration in Redis, and the credentials that several of them use.

    Raises RedisUnavailable.
    """
    stored = wiring.background().bucket_configs.stored()
    last_scans = wiring.background().schedule.last_scans(stored)
    known = set(Bucket.objects.values_list("name", flat=True))
    leaving = set(Outbox.objects.values_list("bucket", flat=True)) - known
    owners = {prefix_of(name): name for name in stored}
    owners |= dict(Credential.objects.values_list("vault_prefix", "name"))
    candidates = []
    for name, found in stored.items():
        if name not in leaving:
            candidate = _from_document(name, found, first_scan, owners)
            last = last_scans.get(name)
            fields = {
                **candidate.fields,
                "last_scan_at": last and datetime.fromtimestamp(last, UTC),
            }
            candidates.append(replace(candidate, fields=fields))
    shared = {c.keys.credential for c in candidates if c.keys.credential != c.name}
    return candidates, [Keys(credential) for credential in sorted(shared)]


def _from_document(
    name: str, found: Stored, first_scan: str, owners: Mapping[str, str]
) -> Candidate:
    """Read one document; ``owners`` are the names that credentials have or had, by vault prefix."""
    keys = Keys(credential=name)
    try:
        document = json.loads(found.text)
        if not document.get("endpoint"):
            document["endpoint"] = _endpoint_by_default(document.get("region"))
        config = bucket_document.parse(name, document, notifications=found.notifications)
    except (*bucket_document.UNREADABLE, ValidationError):
        return Candidate(name, keys, problem="its configuration in Redis cannot be read")
    ours: Mapping[str, Any] = document.get("bucketwatch") or {}
    given = document.get("webhook_auth")
    auth = given if isinstance(given, dict) else {}
    client = {key: str(auth.get(key) or "") for key in ("client_id", "token_url")}
    if not bucket_document.names_no_client(given) and not all(client.values()):
        problem = "its webhook_auth in Redis needs client_id and token_url: complete or remove it"
        return Candidate(name, keys, problem=problem)
    secret = str(auth.get("client_secret") or "")
    if prefix := str(ours.get("credential") or ""):
        keys = Keys(credential=owners.get(prefix, prefix.lower()))
    fields = _settings(config) | {
        "first_scan": ours.get("first_scan", first_scan),
        "webhook_client_id": client["client_id"],
        "webhook_token_url": client["token_url"],
        "webhook_secret_in_redis": bool(secret),
        "taken_over": bool(ours.get("taken_over", not ours)),
    }
    if (added_at := _moment(document.get("added_at"))) is not None:
        fields["added_at"] = added_at
    return Candidate(name, keys, fields, client_secret=secret, warnings=_warnings(secret))


def _endpoint_by_default(region: object) -> str:
    return validators.endpoint_of(str(region)) if region else wiring.conf().defaults.endpoint


def _settings(config: BucketConfig) -> dict[str, Any]:
    return {
        "bucket_name": config.bucket_name,
        "endpoint": config.endpoint,
        "region": config.region,
        "polling_interval": config.polling_interval_s,
        "polling_longest": config.polling_longest_s,
        "probe_interval": config.probe_interval_s,
        "monitoring_enabled": config.active,
        "notifications_enabled": config.notifications,
        "fetch_metadata": config.fetch_metadata,
        "trust_etags": config.trust_etags,
        "prefix": config.prefix,
        "suffix": config.suffix,
        "lanes": config.lanes,
        "requests_per_day": config.requests_per_day,
        "most_objects": config.most_objects,
        "webhook_url": config.webhook_url,
        "generation": config.generation,
        **_announce_columns(config.events),
    }


def _warnings(secret: str) -> tuple[str, ...]:
    if not secret:
        return ()
    warning = (
        "its webhook client secret stays in Redis, because its consumer may read it there; "
        "once that reads another place, switch 'client secret in Redis too' off"
    )
    return (warning,)


def _moment(text: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def watch_for_s(*, now: float) -> float:
    """Say how long to watch for the older monitor: until it scans a bucket again, if it runs.

    A bucket that missed its time is scanned by nobody any more.
    """
    interval_s = wiring.conf().defaults.polling_interval
    last_scans = wiring.background().schedule.last_scans(_unmanaged()).values()
    due_in_s = (at + interval_s - now for at in last_scans)
    soonest_s = min((wait_s for wait_s in due_in_s if wait_s > 0), default=0)
    return min(soonest_s, interval_s) + LEAST_WATCH_S


def buckets_scanned_elsewhere(*, wait_s: float, sleep: Callable[[float], None]) -> list[str]:
    """Name the unmanaged buckets that somebody else scans within ``wait_s`` seconds."""
    names = _unmanaged()
    before = wiring.background().schedule.last_scans(names)
    sleep(wait_s)
    after = wiring.background().schedule.last_scans(names)
    return sorted(name for name, at in after.items() if at != before.get(name))


def _unmanaged() -> list[str]:
    stored = wiring.background().bucket_configs.stored()
    return [name for name, found in stored.items() if found.revision is None]
