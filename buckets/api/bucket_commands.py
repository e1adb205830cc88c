"""What programs may change, in the words that the API documents (`docs/api.md`).

``POST /api/buckets/add`` and ``/update`` come through here, and so do the monitor's
``add_bucket_to_active_config`` and its siblings, by `settings.BUCKET_WRITES`. ``info`` is what a
request's body is. Bad input raises Django's ``ValidationError`` with a dict of member -> messages;
`buckets/services` says what else is raised.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError

from buckets import selectors, services
from buckets.api import fields
from buckets.models import Bucket

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rest_framework.serializers import Serializer

    from buckets.services import Actor

# Members that the services name in full.
_IN_FULL = {
    "client_id": "webhook_client_id",
    "client_secret": "webhook_client_secret",
    "token_url": "webhook_token_url",
}
_IN_SHORT = {full: short for short, full in _IN_FULL.items()}


@dataclass(frozen=True, slots=True)
class Update:
    """A bucket as it is stored now; ``members`` are those that were given to change, maybe none."""

    bucket: Bucket
    members: frozenset[str]


def add(info: Mapping[str, Any], *, by: Actor = None) -> Bucket:
    """Watch a bucket. Raises BucketExists."""
    given = read(fields.NewBucket, info)
    with _messages_in_short():
        return services.add_bucket(**_in_full(given), by=by)


def update(info: Mapping[str, Any], *, by: Actor = None) -> Update:
    """Change the bucket called ``name``. Raises Bucket.DoesNotExist."""
    given = read(fields.BucketChanges, info)
    bucket = find_bucket(given.pop("name"))
    if given:
        with _messages_in_short():
            bucket = services.update_bucket(bucket=bucket, **_in_full(given), by=by)
    return Update(bucket, frozenset(given))


def delete(info: Mapping[str, Any], *, by: Actor = None) -> None:
    """Forget the bucket called ``name``. Raises Bucket.DoesNotExist."""
    services.delete_bucket(bucket=find_bucket(read(fields.BucketName, info)["name"]), by=by)


def find_bucket(name: str) -> Bucket:
    """Find the bucket of this name. Raises Bucket.DoesNotExist with a message for people."""
    # PostgreSQL refuses to be asked for a text with NUL in it.
    bucket = None if "\0" in name else selectors.bucket_named(name)
    if bucket is None:
        problem = f"There is no bucket {name[:63]!r} here; POST /api/buckets/add adds one."
        raise Bucket.DoesNotExist(problem)
    return bucket


def read(expected: type[Serializer[Any]], info: Mapping[str, Any]) -> dict[str, Any]:
    """Read the known members; others are ignored, as the older monitor did.

    Null asks for the default interval; for every other member it is the same as leaving it out.
    """
    serializer = expected(data=info)
    if not serializer.is_valid():
        raise ValidationError({k: list(map(str, v)) for k, v in serializer.errors.items()})
    given: dict[str, Any] = serializer.validated_data
    return {k: v for k, v in given.items() if v is not None or k == "polling_interval"}


def _in_full(given: Mapping[str, Any]) -> dict[str, Any]:
    return {_IN_FULL.get(k, k): v for k, v in given.items()}


@contextmanager
def _messages_in_short() -> Iterator[None]:
    try:
        yield
    except ValidationError as exc:
        if not hasattr(exc, "error_dict"):
            raise
        found = exc.message_dict
        raise ValidationError({_IN_SHORT.get(k, k): v for k, v in found.items()}) from None
