"""Where imported buckets come from: a YAML file, or the Redis of an older monitor.

Nothing is written here, and nothing judged that the services judge: what a source says becomes
``Candidate`` rows (`plan.py`). `docs/taking-over.md` has the shape of the file.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError

from buckets import validators
from buckets.importing.plan import Candidate, Keys
from buckets.models import EVENT_TYPES, Bucket, Credential, Outbox
from scanning import wiring
from scanning.config.yaml_reader import read_yaml
from scanning.core import bucket_document
from scanning.core.errors import ConfigurationError
from scanning.core.vault_names import prefix_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from scanning.adapters.redis.bucket_configs import Stored
    from scanning.core.types import BucketConfig

# Members of a bucket in the file: the model's field, and what the value has to be.
_MEMBERS: dict[str, tuple[str, type]] = {
    "region": ("region", str),
    "endpoint": ("endpoint", str),
    "polling_interval": ("polling_interval", int),
    "monitoring_enabled": ("monitoring_enabled", bool),
    "notifications_enabled": ("notifications_enabled", bool),
    "fetch_metadata": ("fetch_metadata", bool),
    "prefix": ("prefix", str),
    "suffix": ("suffix", str),
    "first_scan": ("first_scan", str),
    "lanes": ("lanes", int),
    "webhook_url": ("webhook_url", str),
    "client_id": ("webhook_client_id", str),
    "token_url": ("webhook_token_url", str),
    "webhook_secret_in_redis": ("webhook_secret_in_redis", bool),
}
# Names and secrets: text too, since YAML makes other numbers of a bare 0123 or 12_345.
_TEXTS = ("name", "credential", "access_key", "secret_key", "client_secret")
_WORDS = {str: "text: put it in quotes", int: "a whole number", bool: "true or false"}
_OAUTH2 = ("client_id", "client_secret", "token_url")
# A scan has begun a while before its time is written.
LEAST_LOOK_S = 10.0
# No database takes them all.
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def from_file(path: Path, *, first_scan: str) -> tuple[list[Candidate], list[Keys]]:
    """Buckets and shared credentials of a YAML file. Raises ConfigurationError."""
    document = _yaml(path)
    unknown = document.keys() - {"buckets", "credentials"}
    if unknown or not all(isinstance(rows, list) for rows in document.values()):
        raise ConfigurationError(f"{path}: write two lists in it, buckets and credentials")
    shared = [
        Keys(
            credential=str(row.get("name", "")),
            access_key=str(row.get("access_key") or ""),
            secret_key=str(row.get("secret_key") or ""),
            endpoint=str(row.get("endpoint") or ""),
        )
        for row in _mappings(path, "credentials", document)
    ]
    rows = _mappings(path, "buckets", document)
    return [_from_row(row, first_scan) for row in rows], shared


def _yaml(path: Path) -> dict[str, Any]:
    document = read_yaml(path) or {}
    if not isinstance(document, dict):
        raise ConfigurationError(f"{path}: write two lists in it, buckets and credentials")
    return document


def _mappings(path: Path, section: str, document: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows: list[Any] = document.get(section, [])
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not isinstance(row.get("name"), str):
            raise ConfigurationError(f"{path}: entry {number} of {section} has no name")
        if section == "credentials" and (problems := _no_texts(row)):
            raise ConfigurationError(f"{path}: entry {number} of {section}: {problems[0]}")
    return rows


def _no_texts(row: Mapping[str, Any]) -> list[str]:
    """What is wrong with names and secrets."""
    given = ((member, row.get(member)) for member in _TEXTS)
    return [
        f"{member} has to be {_WORDS[str]}"
        for member, value in given
        if value is not None and not isinstance(value, str)
    ]


def _from_row(row: Mapping[str, Any], first_scan: str) -> Candidate:
    name: str = row["name"]
    fields: dict[str, Any] = {"first_scan": first_scan}
    unknown = row.keys() - _MEMBERS - {*_TEXTS, "events"}
    problems = [f"{member} is not known" for member in sorted(map(str, unknown))]
    problems += _no_texts(row)
    for member, (column, kind) in _MEMBERS.items():
        value = row.get(member)
        if value is None:
            continue
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            problems.append(f"{member} has to be {_WORDS[kind]}")
        elif isinstance(value, str) and _UNSTORABLE.search(value):
            problems.append(f"{member} holds a character that cannot be stored")
        fields[column] = value
    events = row.get("events")
    if events is not None and not (
        isinstance(events, list) and all(event in EVENT_TYPES for event in events)
    ):
        problems.append(f"events has to be a list of some of {', '.join(EVENT_TYPES)}")
    elif events is not None:
        fields |= _announced(events)
    keys = Keys(
        credential=str(row.get("credential") or name),
        access_key=str(row.get("access_key") or ""),
        secret_key=str(row.get("secret_key") or ""),
    )
    secret = str(row.get("client_secret") or "")
    if len({bool(row.get(member)) for member in _OAUTH2}) > 1:
        problems.append(validators.ALL_OF_OAUTH2)
    return Candidate(name, keys, fields, client_secret=secret, problem="; ".join(problems))


def _announced(events: Iterable[str]) -> dict[str, bool]:
    wanted = set(events)
    return {f"announce_{kind}": kind in wanted for kind in EVENT_TYPES}


def from_redis(*, first_scan: str) -> tuple[list[Candidate], list[Keys]]:
    """Every configuration in Redis, and the credentials that several of them use.

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
    """``owners`` are the names that credentials have or had, by vault prefix."""
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
        "endpoint": config.endpoint,
        "region": config.region,
        "polling_interval": config.polling_interval_s,
        "monitoring_enabled": config.active,
        "notifications_enabled": config.notifications,
        "fetch_metadata": config.fetch_metadata,
        "prefix": config.prefix,
        "suffix": config.suffix,
        "lanes": config.lanes,
        "webhook_url": config.webhook_url,
        "generation": config.generation,
        **_announced(config.events),
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


def time_to_look_s(*, now: float) -> float:
    """How long to look for the older monitor: until it scans a bucket again, if it runs.

    A bucket that missed its time is scanned by nobody any more.
    """
    interval_s = wiring.conf().defaults.polling_interval
    last_scans = wiring.background().schedule.last_scans(_unmanaged()).values()
    due_in_s = (at + interval_s - now for at in last_scans)
    soonest_s = min((wait_s for wait_s in due_in_s if wait_s > 0), default=0)
    return min(soonest_s, interval_s) + LEAST_LOOK_S


def older_monitor_runs(*, wait_s: float, sleep: Callable[[float], None]) -> list[str]:
    """Buckets that somebody else has scanned while we waited; ours are not looked at."""
    names = _unmanaged()
    before = wiring.background().schedule.last_scans(names)
    sleep(wait_s)
    after = wiring.background().schedule.last_scans(names)
    return sorted(name for name, at in after.items() if at != before.get(name))


def _unmanaged() -> list[str]:
    stored = wiring.background().bucket_configs.stored()
    return [name for name, found in stored.items() if found.revision is None]
