"""Checks that several services share, and all their messages at once."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from django.core.exceptions import ValidationError

from buckets import selectors, validators
from buckets.models import Credential
from scanning.core.types import KeyPair
from scanning.core.vault_names import halves_of, prefix_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from buckets.models import Bucket

_LISTED = 5


class ErrorCollector:
    """Messages by field, of several checks, so that an operator sees all of them at once."""

    def __init__(self) -> None:
        self._by_field: dict[str, list[str]] = {}

    def validate(self, row: Bucket | Credential, *, exclude: str = "credential") -> None:
        """Validate a row; names that are taken are looked at when it is written."""
        with self.capture():
            row.full_clean(exclude={exclude}, validate_unique=isinstance(row, Credential))

    @contextmanager
    def capture(self) -> Iterator[None]:
        try:
            yield
        except ValidationError as exc:
            for field, messages in exc.message_dict.items():
                self._by_field.setdefault(field, []).extend(messages)

    def raise_if_any(self) -> None:
        if self._by_field:
            raise ValidationError(dict(self._by_field))


class WatchNames:
    """The names of watches, to find one that a new name could be taken for."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._by_prefix: dict[str, str] = {}
        self._of_tenants: dict[str, str] = {}
        for name in names:
            self.add(name)

    def add(self, name: str) -> None:
        self._by_prefix[prefix_of(name)] = name
        tenant, colon, _ = name.partition(":")
        if colon:
            self._of_tenants[tenant] = name

    def refuse_alike(self, name: str) -> None:
        """Raise if another name leads to the same entries of the vault, or to its keys in Redis.

        In Redis ``media`` has the object state ``…media:in:a``, and so has ``media:in``.
        """
        tenant, colon, _ = name.partition(":")
        same_tenant = self._by_prefix.get(prefix_of(tenant)) if colon else None
        other = (
            self._by_prefix.get(prefix_of(name))
            or self._of_tenants.get(name)
            or (same_tenant if same_tenant == tenant else None)
        )
        if other and other != name:
            problem = (
                f"Watch {other} could be taken for it in Redis or in the vault: give this one "
                "another name, and enter the bucket's as its name in S3."
            )
            raise ValidationError({"name": [problem]})


def overlap_warning(bucket: Bucket, others: Iterable[Bucket]) -> str:
    """Say which other watches list some of the same objects; "" if none does."""
    names = [other.name for other in others if other != bucket and other.overlaps(bucket)]
    if not names:
        return ""
    return (
        f"Watched by {name_buckets(names)} too, with the same endpoint and prefixes of which one "
        "begins with the other: what they have in common is announced by each of them."
    )


def key_pair(access_key: str, secret_key: str) -> KeyPair:
    errors: dict[str, list[str]] = {}
    values: dict[str, str] = {}
    for field, value in (("access_key", access_key), ("secret_key", secret_key)):
        try:
            values[field] = validators.secret(value) if value.strip() else ""
        except ValidationError as exc:
            errors[field] = exc.messages
        if values.get(field) == "":
            errors[field] = ["Enter both halves of the key pair: access key and secret key."]
    if errors:
        raise ValidationError(errors)
    return KeyPair(values["access_key"], values["secret_key"])


def refuse_taken_prefix(prefix: str) -> None:
    """Raise if the vault entries of this prefix belong to a credential already."""
    owner = selectors.owner_of_prefix(prefix)
    if owner is None:
        return
    users = selectors.users_of(owner)
    used_by = f", used by {name_buckets(users)}" if users else ""
    problem = (
        f"Its keys would be {' and '.join(halves_of(prefix))} in the vault, "
        f"which belong to credential {owner.name}{used_by}: choose that credential, "
        "or another name."
    )
    raise ValidationError({"name": [problem]})


def name_buckets(names: list[str]) -> str:
    shown = ", ".join(names[:_LISTED])
    more = len(names) - _LISTED
    return f"{'buckets' if len(names) > 1 else 'bucket'} {shown}" + (
        f" and {more} more" if more > 0 else ""
    )
