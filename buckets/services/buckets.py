"""Which buckets are watched, and how; the package says in which order the stores are written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from buckets import audit, selectors, validators
from buckets.models import Bucket, Credential
from buckets.services import credentials
from buckets.services.validation import (
    ErrorCollector,
    WatchNames,
    key_pair,
    name_buckets,
    overlap_warning,
    refuse_taken_prefix,
)
from buckets.sync import vault_removals, vault_writes
from buckets.sync.vault_writes import Writing
from scanning.core.vault_names import prefix_of

if TYPE_CHECKING:
    from buckets.audit import Actor
    from scanning.core.types import KeyPair

CLIENT_SECRET = "webhook OAuth2 client secret"  # noqa: S105 - what the history calls it

CHANGEABLE = frozenset(Bucket.CHANGEABLE)
_OTHER_CREDENTIAL = "Somebody gave the bucket another credential meanwhile: look at it, try again."
# Keys may begin and end with blanks.
_PARTS_OF_KEYS = frozenset({"prefix", "suffix"})


class BucketExists(Exception):
    """A bucket of this name is watched already."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Bucket {name} is watched already: change the existing one.")
        self.name = name


def add_bucket(  # noqa: PLR0913 - one argument for each member that the API documents
    *,
    name: str,
    bucket_name: str = "",
    endpoint: str = "",
    region: str = "",
    access_key: str = "",
    secret_key: str = "",
    credential: Credential | None = None,
    webhook_url: str = "",
    webhook_client_id: str = "",
    webhook_client_secret: str = "",
    webhook_token_url: str = "",
    polling_interval: int | None = None,
    notifications_enabled: bool = True,
    monitoring_enabled: bool = True,
    fetch_metadata: bool = True,
    by: Actor = None,
    **options: Any,
) -> Bucket:
    """Watch a bucket, with keys of its own or with an existing credential.

    Keys of its own become a credential named after the bucket, removed with it. ``options`` are
    further fields of ``CHANGEABLE``. Raises BucketExists.
    """
    if unknown := options.keys() - CHANGEABLE:
        raise TypeError(f"A bucket has no {', '.join(sorted(unknown))}")
    bucket = Bucket(
        name=name.strip(),
        bucket_name=bucket_name.strip(),
        endpoint=endpoint.strip(),
        region=region.strip(),
        webhook_url=webhook_url.strip(),
        webhook_client_id=webhook_client_id.strip(),
        webhook_token_url=webhook_token_url.strip(),
        polling_interval=polling_interval,
        notifications_enabled=notifications_enabled,
        monitoring_enabled=monitoring_enabled,
        fetch_metadata=fetch_metadata,
        **options,
    )
    problems = ErrorCollector()
    problems.validate(bucket)
    with problems.capture():
        pair = _own_keys(access_key, secret_key, credential)
    with problems.capture():
        client_secret = _client_secret(bucket, webhook_client_secret, stored=False)
    problems.raise_if_any()
    _refuse_taken_names(bucket.name, needs_credential=credential is None)
    writing = Writing(
        pairs={prefix_of(bucket.name): pair} if pair else {},
        secrets={selectors.webhook_secret_name(bucket): client_secret} if client_secret else {},
    )
    with vault_writes.stored(writing):
        _refuse_taken_names(bucket.name, needs_credential=credential is None)
        bucket.credential = credential or _credential_of(bucket.name)
        _insert(bucket)
        audit.added([bucket], by=by)
        if pair:
            audit.added([bucket.credential], by=by)
    return bucket


def update_bucket(
    *,
    bucket: Bucket,
    by: Actor = None,
    access_key: str = "",
    secret_key: str = "",
    webhook_client_secret: str = "",
    **changes: Any,
) -> Bucket:
    """Change fields of ``CHANGEABLE``, replace the keys, or both; returns the bucket as stored.

    Of region and endpoint, the one that was derived from the other follows it. Keys that other
    buckets use too are replaced with ``rotate_credential``. Raises Bucket.DoesNotExist.
    """
    if unknown := changes.keys() - CHANGEABLE:
        raise TypeError(f"A bucket's {', '.join(sorted(unknown))} cannot be changed")
    given = (access_key, secret_key, webhook_client_secret)
    looked_at = Bucket.objects.select_related("credential").get(pk=bucket.pk)
    pair, client_secret = _change(looked_at, changes, *given)
    writing = Writing(
        pairs={looked_at.credential.vault_prefix: pair} if pair else {},
        secrets={selectors.webhook_secret_name(looked_at): client_secret} if client_secret else {},
    )
    with vault_writes.stored(writing):
        stored = Bucket.objects.select_for_update(of=("self",)).get(pk=bucket.pk)
        before = Bucket.objects.select_related("credential").get(pk=bucket.pk)
        had_client = bool(before.webhook_client_id)
        _change(stored, changes, *given)  # what we looked at may have changed meanwhile
        if pair and stored.credential != looked_at.credential:
            raise ValidationError({"access_key": [_OTHER_CREDENTIAL]})
        stored.save()
        audit.changed(stored, _changes(stored, before, pair, client_secret), by=by)
        if before.credential != stored.credential:
            credentials.remove_unused([before.credential], by=by)
        if had_client and not stored.webhook_client_id:
            vault_removals.add(vault_removals.Kind.SECRET, selectors.webhook_secret_name(stored))
        if pair:
            credentials.note_new_keys(stored.credential)
    return stored


def note_on_overlaps(bucket: Bucket) -> str:
    """Say which other watches announce some of what this one announces; "" if none does."""
    return overlap_warning(bucket, selectors.watches_of(bucket.s3_name))


def set_notifications(*, bucket: Bucket, enabled: bool, by: Actor = None) -> Bucket:
    """Turn notifications on or off; scanning goes on either way."""
    return update_bucket(bucket=bucket, by=by, notifications_enabled=enabled)


def set_monitoring(*, bucket: Bucket, enabled: bool, by: Actor = None) -> Bucket:
    """Resume or pause the scanning of a bucket."""
    return update_bucket(bucket=bucket, by=by, monitoring_enabled=enabled)


def apply_changes(stored: Bucket, changes: dict[str, Any]) -> None:
    """Set the changes; the one of region and endpoint that followed the other goes on doing so."""
    if "endpoint" in changes and "region" not in changes:
        follows = stored.region == validators.region_of(stored.endpoint)
        changes = changes | ({"region": ""} if follows else {})
    elif "region" in changes and "endpoint" not in changes:
        follows = stored.endpoint == validators.endpoint_of(stored.region)
        changes = changes | ({"endpoint": ""} if follows and changes["region"] else {})
    for field, value in changes.items():
        is_typed = isinstance(value, str) and field not in _PARTS_OF_KEYS
        setattr(stored, field, value.strip() if is_typed else value)


def _change(
    bucket: Bucket,
    changes: dict[str, Any],
    access_key: str,
    secret_key: str,
    webhook_client_secret: str,
) -> tuple[KeyPair | None, str]:
    """Set the changes of an unchanged row; returns the keys and the client secret to store."""
    had_client = bool(bucket.webhook_client_id)
    apply_changes(bucket, changes)
    problems = ErrorCollector()
    problems.validate(bucket)
    pair, client_secret = None, ""
    with problems.capture():
        pair = _replacement_keys(bucket, access_key, secret_key, changes)
    with problems.capture():
        client_secret = _client_secret(bucket, webhook_client_secret, stored=had_client)
    problems.raise_if_any()
    return pair, client_secret


def _own_keys(access_key: str, secret_key: str, credential: Credential | None) -> KeyPair | None:
    if credential is None:
        return key_pair(access_key, secret_key)
    if access_key or secret_key:
        raise ValidationError(
            {"credential": ["Choose a credential or enter a key pair, not both."]}
        )
    return None


def _replacement_keys(
    bucket: Bucket, access_key: str, secret_key: str, changes: dict[str, Any]
) -> KeyPair | None:
    if not access_key and not secret_key:
        return None
    pair = key_pair(access_key, secret_key)
    if "credential" in changes:
        raise ValidationError(
            {"credential": ["Choose another credential or enter new keys, not both."]}
        )
    others = [name for name in selectors.users_of(bucket.credential) if name != bucket.name]
    if others:
        problem = (
            f"Credential {bucket.credential.name} is used by {name_buckets(others)} too: "
            "replace its keys there, for all of them."
        )
        raise ValidationError({"access_key": [problem]})
    return pair


def _client_secret(bucket: Bucket, text: str, *, stored: bool) -> str:
    """Return the webhook client's secret if one was given; required with the client's first id."""
    if text and not bucket.webhook_client_id:
        raise ValidationError(
            {"webhook_client_id": ["Enter the client id that the client secret belongs to."]}
        )
    if text:
        try:
            return validators.secret(text)
        except ValidationError as exc:
            raise ValidationError({"webhook_client_secret": exc.messages}) from None
    if bucket.webhook_client_id and not stored:
        raise ValidationError({"webhook_client_secret": [validators.ALL_OF_OAUTH2]})
    return ""


def _refuse_taken_names(name: str, *, needs_credential: bool) -> None:
    names = selectors.watch_names()
    if name in names:
        raise BucketExists(name)
    WatchNames(names).refuse_alike(name)
    if needs_credential:
        refuse_taken_prefix(prefix_of(name))


def _credential_of(bucket_name: str) -> Credential:
    prefix = prefix_of(bucket_name)
    try:
        with transaction.atomic():
            return Credential.objects.create(
                name=bucket_name, vault_prefix=prefix, came_with_bucket=True
            )
    except IntegrityError:  # somebody was faster than our look
        _refuse_taken_names(bucket_name, needs_credential=True)
        raise


def _insert(bucket: Bucket) -> None:
    try:
        with transaction.atomic():
            bucket.save()
    except IntegrityError:  # as above
        _refuse_taken_names(bucket.name, needs_credential=False)
        raise


def _changes(stored: Bucket, before: Bucket, pair: KeyPair | None, client_secret: str) -> list[str]:
    """Name the fields and secrets that changed, for the history."""
    secrets = [credentials.KEYS] if pair else []
    secrets += [CLIENT_SECRET] if client_secret else []
    return [*audit.fields_changed(stored, before), *secrets]
