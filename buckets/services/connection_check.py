"""Check a connection: list one page of a bucket with its keys, and say what went wrong."""

from __future__ import annotations

import time
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.utils import timezone

from buckets.models import Credential
from buckets.services.buckets import apply_changes
from buckets.services.validation import ErrorCollector, key_pair
from buckets.sync import outbox
from scanning import engine, wiring
from scanning.core.errors import (
    AccessDenied,
    BucketwatchError,
    CredentialMissing,
    CredentialsRejected,
)
from scanning.core.remedies import remedy_for
from scanning.core.vault_names import halves_of, pairs_in

if TYPE_CHECKING:
    from collections.abc import Iterable

    from buckets.audit import Actor
    from buckets.models import Bucket
    from scanning.core.types import KeyPair

_SHOWN_KEYS = 5


@dataclass(frozen=True, slots=True)
class ConnectionCheck:
    """How one listing of a bucket went; ``error`` and ``fix`` are empty if it is ``ok``.

    ``first_keys`` are a few keys of the bucket, none if it is empty.
    """

    ok: bool
    latency_ms: float
    first_keys: tuple[str, ...] = ()
    error: str = ""
    fix: str = ""

    @classmethod
    def impossible(cls, problems: Iterable[str]) -> ConnectionCheck:
        """Make the result without asking S3: ``problems`` are faults of the bucket itself."""
        return cls(ok=False, latency_ms=0.0, error=" ".join(problems))


def check_connection(
    *,
    bucket: Bucket,
    access_key: str = "",
    secret_key: str = "",
    by: Actor = None,
) -> ConnectionCheck:
    """List one page of a bucket, stored or not, with its credential's keys or with those given.

    Changes nothing but what is noted of the credential. Raises ValidationError for a bucket that
    could not be stored as it is.
    """
    del by  # looking is no change
    given = key_pair(access_key, secret_key) if access_key or secret_key else None
    problems = ErrorCollector()
    problems.validate(bucket)
    if given is None and not bucket.credential_id:
        with problems.capture():
            key_pair(access_key, secret_key)
    problems.raise_if_any()
    began = time.perf_counter()
    keys: tuple[str, ...] = ()
    failure: BucketwatchError | None = None
    try:
        pair = given or _stored_pair(bucket.credential.vault_prefix)
        keys = engine.first_keys(bucket.name, outbox.document(bucket), pair, limit=_SHOWN_KEYS)
    except BucketwatchError as exc:
        failure = exc
    latency_ms = round((time.perf_counter() - began) * 1000, 1)
    if given is None:
        _store_verification(bucket.credential, failure)
    if failure is None:
        return ConnectionCheck(ok=True, latency_ms=latency_ms, first_keys=keys)
    remedy = remedy_for(type(failure).__name__)
    error = remedy.cut_from(str(failure))
    return ConnectionCheck(ok=False, latency_ms=latency_ms, error=error, fix=remedy.next_step)


def check_settings(
    *,
    bucket: Bucket,
    access_key: str = "",
    secret_key: str = "",
    by: Actor = None,
    **changes: Any,
) -> ConnectionCheck:
    """Test a bucket as it would be with these changes, which are not stored."""
    changed = copy(bucket)
    apply_changes(changed, changes)
    return check_connection(bucket=changed, access_key=access_key, secret_key=secret_key, by=by)


def _stored_pair(prefix: str) -> KeyPair:
    """Read the pair from the vault itself: the snapshot of scans may be older than a rotation."""
    names = halves_of(prefix)
    pair = pairs_in(wiring.vault().read_secrets(names)).get(prefix)
    if pair is None:
        raise CredentialMissing(f"the vault does not hold {' and '.join(names)}")
    return pair


def _store_verification(credential: Credential, failure: BucketwatchError | None) -> None:
    """Store whether the keys work: a time-out or a missing bucket says nothing of them."""
    if failure is None or isinstance(
        failure, CredentialsRejected | CredentialMissing | AccessDenied
    ):
        error = str(failure or "")
        Credential.objects.filter(pk=credential.pk).update(
            last_verified_at=timezone.now(), last_verified_error=error
        )
