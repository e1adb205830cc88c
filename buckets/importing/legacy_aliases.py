"""Key pairs under the names that the older monitor looks for, so that it can take over again.

It reads `{BUCKET}_ACCESS_KEY` and `{BUCKET}_SECRET_KEY`; a bucket that shares a credential has its
keys under that credential's name instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from buckets.models import Bucket, Credential
from scanning import wiring
from scanning.core.vault_names import entries_of, halves_of, prefix_of

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Alias:
    """``prefix`` is to hold the key pair of ``source``; a ``problem`` says why it must not."""

    bucket: str
    prefix: str
    source: str
    problem: str = ""


def wanted() -> list[Alias]:
    """List an alias for each bucket whose keys are under another name than its own, by bucket."""
    owners = dict(Credential.objects.values_list("vault_prefix", "name"))
    taken: dict[str, str] = {}
    found = []
    for bucket in Bucket.objects.select_related("credential").order_by("name"):
        prefix, source = prefix_of(bucket.name), bucket.credential.vault_prefix
        if prefix == source:
            continue
        problem = ""
        if owner := owners.get(prefix):
            problem = f"{prefix}_… belong to credential {owner}: give the bucket one of its own"
        elif taken.setdefault(prefix, source) != source:
            problem = f"{prefix}_… are wanted for another bucket too: give one a name of its own"
        found.append(Alias(bucket.name, prefix, source, problem))
    return found


def write(aliases: Sequence[Alias]) -> list[str]:
    """Copy the key pairs; returns the prefixes whose pair the vault lacks. Raises its errors."""
    pairs = wiring.vault().read_all()
    entries: dict[str, str] = {}
    for alias in aliases:
        if pair := pairs.get(alias.source):
            entries |= entries_of(alias.prefix, pair)
    if entries:
        wiring.vault().write_many(entries)
    return sorted({alias.source for alias in aliases} - pairs.keys())


def remove(aliases: Sequence[Alias]) -> None:
    """Forget the copies. Raises the vault's errors."""
    names = {name for alias in aliases for name in halves_of(alias.prefix)}
    if names:
        wiring.vault().delete_many(names)
