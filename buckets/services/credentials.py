"""Key pairs that buckets use: the rows here, the keys in the vault."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from buckets import audit, selectors
from buckets.batching import in_batches
from buckets.models import Credential
from buckets.services.validation import ErrorCollector, key_pair, name_buckets, refuse_taken_prefix
from buckets.sync import outbox, vault_removals, vault_writes
from buckets.sync.vault_writes import Writing
from scanning.core.vault_names import prefix_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from buckets.audit import Actor

KEYS = "S3 keys"


def add_credential(
    *, name: str, access_key: str, secret_key: str, endpoint: str = "", by: Actor = None
) -> Credential:
    """Store a key pair that several buckets may use."""
    name = name.strip()
    credential = Credential(name=name, vault_prefix=prefix_of(name), endpoint=endpoint.strip())
    problems = ErrorCollector()
    problems.validate(credential, exclude="vault_prefix")
    with problems.capture():
        pair = key_pair(access_key, secret_key)
    problems.raise_if_any()
    refuse_taken_prefix(credential.vault_prefix)
    with vault_writes.stored(Writing(pairs={credential.vault_prefix: pair})):
        refuse_taken_prefix(credential.vault_prefix)
        credential.save()
        audit.added([credential], by=by)
    return credential


def update_credential(
    *,
    credential: Credential,
    endpoint: str,
    access_key: str = "",
    secret_key: str = "",
    by: Actor = None,
) -> Credential:
    """Change what is said about a credential, and its keys if new ones are given."""
    problems = ErrorCollector()
    looked_at = Credential.objects.get(pk=credential.pk)
    looked_at.endpoint = endpoint.strip()
    problems.validate(looked_at, exclude="vault_prefix")
    with problems.capture():
        pair = key_pair(access_key, secret_key) if access_key or secret_key else None
    problems.raise_if_any()
    writing = Writing(pairs={looked_at.vault_prefix: pair} if pair else {})
    with vault_writes.stored(writing):
        stored = Credential.objects.select_for_update().get(pk=credential.pk)
        before = Credential.objects.get(pk=credential.pk)
        stored.endpoint = endpoint.strip()
        stored.save(update_fields=["endpoint"])
        changes = audit.fields_changed(stored, before)
        if pair:
            note_new_keys(stored)
        audit.changed(stored, [*changes, KEYS] if pair else changes, by=by)
    return stored


def rotate_credential(
    *, credential: Credential, access_key: str, secret_key: str, by: Actor = None
) -> Credential:
    """Give a credential another key pair, for every bucket that uses it.

    Raises Credential.DoesNotExist.
    """
    pair = key_pair(access_key, secret_key)
    prefix = Credential.objects.get(pk=credential.pk).vault_prefix
    with vault_writes.stored(Writing(pairs={prefix: pair})):
        stored = Credential.objects.select_for_update().get(pk=credential.pk)
        note_new_keys(stored)
        audit.changed(stored, [KEYS], by=by)
    return stored


def delete_credential(*, credential: Credential, by: Actor = None) -> None:
    """Remove a credential that no bucket uses from the vault and from here."""
    with transaction.atomic():
        if users := selectors.users_of(credential):
            raise ValidationError(
                f"Credential {credential.name} is used by {name_buckets(users)}: "
                "give these buckets another credential first."
            )
        remove([credential], by=by)


def note_new_keys(credential: Credential) -> None:
    """Note that the vault holds other keys; whether they work is not known yet."""
    credential.updated_at = timezone.now()
    credential.last_verified_at, credential.last_verified_error = None, ""
    credential.save(update_fields=["updated_at", "last_verified_at", "last_verified_error"])
    outbox.enqueue(selectors.users_of(credential))  # those that failed are due now


def remove_unused(credentials: Iterable[Credential], *, by: Actor) -> None:
    """Remove those that came with a bucket, unless another bucket uses them still."""
    unused = [
        row
        for part in in_batches({c.pk for c in credentials if c.came_with_bucket})
        for row in Credential.objects.filter(pk__in=part, buckets__isnull=True)
    ]
    remove(unused, by=by)


def remove(unused: Sequence[Credential], *, by: Actor) -> None:
    audit.deleted_alike(unused, by=by)
    vault_removals.add(
        vault_removals.Kind.PAIR, *(credential.vault_prefix for credential in unused)
    )
    for part in in_batches(credential.pk for credential in unused):
        Credential.objects.filter(pk__in=part).delete()
