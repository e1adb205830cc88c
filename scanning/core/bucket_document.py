"""One bucket's configuration as JSON: the documented object, and our members in ``bucketwatch``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from scanning.core.endpoints import endpoint_host
from scanning.core.types import (
    MOST_LANES,
    MOST_OBJECTS,
    WANTED_BY_DEFAULT,
    BucketConfig,
    EventType,
)
from scanning.core.vault_names import prefix_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# What makes no sense in a document shows as one of these.
UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)

# Only a watch whose bucket S3 knows by another name has them.
_OF_OTHER_NAMES = frozenset({"bucket_name", "announces"})


def parse(name: str, document: Mapping[str, Any], *, notifications: bool) -> BucketConfig:
    """Read the engine's view of a bucket. Raises one of ``UNREADABLE``."""
    ours: Mapping[str, Any] = document.get("bucketwatch") or {}
    endpoint = str(document["endpoint"])
    interval = int(ours.get("polling_interval") or 0)
    probe_interval = ours.get("probe_interval")
    events = announced_events(ours)
    longest = ours.get("polling_longest")
    if interval < 0 or int(longest or 0) < 0:
        raise ValueError("a polling interval cannot be negative")
    return BucketConfig(
        name=name,
        endpoint=endpoint,
        region=str(ours.get("region") or document.get("region") or endpoint_host(endpoint)),
        credential=str(ours.get("credential") or prefix_of(name)),
        generation=int(ours.get("generation") or 0),
        polling_interval_s=interval or None,
        polling_longest_s=None if longest is None else int(longest),
        probe_interval_s=None if probe_interval is None else max(0, int(probe_interval)),
        active=document.get("status", "active") == "active",
        notifications=notifications,
        fetch_metadata=bool(ours.get("fetch_metadata", True)),
        trust_etags=bool(ours.get("trust_etags")),
        webhook_url=str(document.get("webhook_url") or ""),
        prefix=str(ours.get("prefix") or ""),
        suffix=str(ours.get("suffix") or ""),
        events=WANTED_BY_DEFAULT if events is None else frozenset(map(EventType, events)),
        first_scan="baseline" if ours.get("first_scan") == "baseline" else "announce",
        taken_over=bool(ours.get("taken_over")),
        lanes=_lanes(ours.get("lanes")),
        requests_per_day=_budget(ours.get("requests_per_day")),
        bucket_name=str(ours.get("bucket_name") or ""),
        most_objects=_most_objects(ours.get("most_objects")),
    )


def names_and_events(bucket_name: str, events: Sequence[str]) -> dict[str, Any]:
    """Write the members of ``bucketwatch`` that name the bucket to list and the announced events.

    A host of an earlier version lists the bucket that is called as the watch. One that has another
    name is not for it: a document whose ``events`` are null is one that it cannot read.
    """
    if not bucket_name:
        return {"events": events}
    return {"events": None, "bucket_name": bucket_name, "announces": events}


def announced_events(ours: Mapping[str, Any]) -> Sequence[str] | None:
    """Read the event types that a document asks for, None if it leaves them to the default."""
    events: Sequence[str] | None = ours.get("events")
    return ours.get("announces") if events is None else events


def merge(stored: str, document: Mapping[str, Any]) -> dict[str, Any]:
    """Build what to store instead of ``stored``: the document, with members that only that has.

    The kept members are an older program's or an operator's; they survive in ``bucketwatch`` too.
    A member given as None is removed.
    """
    try:
        old = _object(json.loads(stored)) if stored else {}
    except (ValueError, RecursionError):
        old = {}
    merged = _over(old, document)
    ours = _object(old.get("bucketwatch"))
    kept = {member: value for member, value in ours.items() if member not in _OF_OTHER_NAMES}
    merged["bucketwatch"] = kept | document["bucketwatch"]
    # What an old consumer has in webhook_auth is kept unless it is given, or given as None.
    if isinstance(auth := document.get("webhook_auth"), dict):
        merged["webhook_auth"] = _over(_object(old.get("webhook_auth")), auth)
    elif "webhook_auth" in old and names_no_client(old["webhook_auth"]):
        # Its way of saying that there is none; a consumer may ask for the member.
        merged["webhook_auth"] = old["webhook_auth"]
    return merged


def names_no_client(auth: Any) -> bool:
    """Tell whether a ``webhook_auth`` says that its webhook wants no OAuth2 client."""
    if not isinstance(auth, dict):
        return not auth
    members = ("client_id", "client_secret", "token_url")
    is_oauth2 = auth.get("type") in {None, "", "oauth2"}
    return not auth or (is_oauth2 and not any(map(auth.get, members)))


def _over(old: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Lay the given members over the old ones; a member given as None goes."""
    both = {**old, **given}
    return {k: v for k, v in both.items() if v is not None or k not in given}


def _object(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}


def _budget(value: Any) -> int | None:
    return None if value is None else max(0, int(value))


def _lanes(value: Any) -> int | None:
    return max(1, min(int(value), MOST_LANES)) if value else None


def _most_objects(value: Any) -> int | None:
    return None if value is None else max(0, min(int(value), MOST_OBJECTS))
