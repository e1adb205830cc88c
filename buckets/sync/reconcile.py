"""Database, Redis and vault compared; what differs is repaired from the database.

Nothing is deleted here but what the database itself has noted as deleted: the ``Outbox`` (Redis)
and ``VaultRemoval`` (vault). Whatever else Redis and the vault hold is somebody else's: listed as
unmanaged, and left alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from django.conf import settings

from buckets import selectors
from buckets.models import Bucket, Credential, Outbox, VaultRemoval
from buckets.sync import outbox, vault_removals
from scanning import wiring
from scanning.core import bucket_document
from scanning.core.vault_names import halves_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from scanning.adapters.redis.bucket_configs import Stored


class DifferenceKind(StrEnum):
    """What becomes of a difference."""

    REPAIRED = "repair"
    BY_HAND = "do yourself"
    UNMANAGED = "unmanaged"


@dataclass(frozen=True, slots=True)
class Difference:
    kind: DifferenceKind
    where: str
    name: str
    what: str


def compare() -> list[Difference]:
    """Find every difference, in the order Redis, vault. Raises RedisUnavailable and vault errors.

    A bucket is read before and after: what is being changed just now waits in the outbox.
    """
    waiting = set(Outbox.objects.values_list("bucket", flat=True))
    buckets = {bucket.name: bucket for bucket in selectors.all_buckets()}
    stored = wiring.background().bucket_configs.stored()
    waiting |= set(Outbox.objects.values_list("bucket", flat=True))
    return [*_in_redis(buckets, stored, waiting), *_in_the_vault(buckets.values())]


def repair(differences: Iterable[Difference]) -> bool:
    """Write what Redis lacks, and remove what waits to be removed; False if something has to wait.

    What was found to differ is written anew from the database, as it is now.
    """
    wrong = [
        d.name for d in differences if d.kind is DifferenceKind.REPAIRED and d.where == "Redis"
    ]
    Outbox.add(wrong)
    is_written = outbox.flush()
    return vault_removals.flush_now() and is_written


def _in_redis(
    buckets: Mapping[str, Bucket], stored: Mapping[str, Stored], waiting: set[str]
) -> Iterator[Difference]:
    secrets = outbox.client_secrets(buckets.values())
    for name in sorted({*buckets, *stored, *waiting}):
        bucket, found = buckets.get(name), stored.get(name)
        if name in waiting:
            what = "the last change has not arrived" if bucket else "it is not removed yet"
            yield Difference(DifferenceKind.REPAIRED, "Redis", name, what)
        elif bucket is not None:
            if what := drift(bucket, found, secrets):
                yield Difference(DifferenceKind.REPAIRED, "Redis", name, what)
        elif found is not None and found.revision is None:
            what = "a configuration that bucketwatch did not write; `importbuckets` takes it over"
            yield Difference(DifferenceKind.UNMANAGED, "Redis", name, what)
        else:
            what = (
                "it is scanned, and the database does not know it (was that restored from a "
                "backup?); `importbuckets` brings it back"
            )
            yield Difference(DifferenceKind.UNMANAGED, "Redis", name, what)


def drift(bucket: Bucket, found: Stored | None, secrets: Mapping[str, str]) -> str:
    """Say how Redis differs from what `outbox` would write; "" if it does not.

    ``secrets`` are those that consumers read there (`outbox.client_secrets`).
    """
    if found is None or found.revision is None or not found.text:
        return "its configuration is missing"
    try:
        there = json.loads(found.text)
    except (ValueError, RecursionError):
        return "its configuration is no JSON"
    if not isinstance(there, dict):
        return "its configuration is no JSON object"
    expected = bucket_document.merge(found.text, outbox.with_secret(bucket, secrets))
    wrong = sorted(
        {
            *_wrong_members(expected, there, ""),
            *([] if found.notifications == bucket.notifications_enabled else ["notifications"]),
        }
    )
    return f"other values of {', '.join(wrong)}" if wrong else ""


def _wrong_members(
    expected: Mapping[str, Any], there: Mapping[str, Any], path: str
) -> Iterator[str]:
    """Name the members that differ from what would be written. None and absent are the same."""
    for member in expected.keys() | there.keys():
        value, found = expected.get(member), there.get(member)
        if isinstance(value, dict):
            inner = found if isinstance(found, dict) else {}
            yield from _wrong_members(value, inner, f"{path}{member}.")
        elif found != value:
            yield path + member


def _in_the_vault(buckets: Iterable[Bucket]) -> Iterator[Difference]:
    names = wiring.vault().names()
    removing = set(VaultRemoval.objects.values_list("kind", "name"))
    for kind, name in sorted(removing):
        what = "nobody uses it, and it is not removed yet"
        shown = name if kind == vault_removals.Kind.SECRET else ", ".join(halves_of(name))
        yield Difference(DifferenceKind.REPAIRED, "vault", shown, what)
    used = {name for kind, name in removing if kind == vault_removals.Kind.SECRET}
    used |= {
        half for kind, n in removing if kind == vault_removals.Kind.PAIR for half in halves_of(n)
    }
    lacking, wanted = [], set[str]()
    for credential in Credential.objects.order_by("name"):
        entries = set(halves_of(credential.vault_prefix))
        wanted |= entries
        if absent := ", ".join(sorted(entries - names)):
            what = f"credential {credential.name} lacks it: enter its keys again"
            lacking.append(Difference(DifferenceKind.BY_HAND, "vault", absent, what))
    for bucket in buckets:
        name = selectors.webhook_secret_name(bucket)
        if not bucket.webhook_client_id:
            continue
        wanted.add(name)
        if name not in names:
            what = f"bucket {bucket.name} lacks it: enter its webhook client secret again"
            lacking.append(Difference(DifferenceKind.BY_HAND, "vault", name, what))
    if settings.SITE.uses_infisical and wanted and wanted.isdisjoint(names):
        yield _question_of_the_environment(len(lacking))
    else:
        yield from lacking
    for name in sorted(names - used - wanted):
        what = "no credential and no bucket of ours uses it"
        yield Difference(DifferenceKind.UNMANAGED, "vault", name, what)


def _question_of_the_environment(lacking: int) -> Difference:
    """Ask, instead of naming everything that is lacking: Infisical has no error for it.

    It answers for a missing environment as for an empty one.
    """
    what = (
        f"is {settings.SITE.infisical_env!r} the right environment of the right project "
        "(INFISICAL_PROJECT_ID)? It holds nothing that credentials and buckets here use; if it is "
        f"the right one, enter the keys and secrets again, {lacking} in all"
    )
    return Difference(DifferenceKind.BY_HAND, "vault", "INFISICAL_ENV", what)
