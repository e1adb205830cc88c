"""Every write of the control plane. Admin, API, commands and the demo change things only here.

``by`` is who asked; it is logged, never with a secret. Bad input raises Django's
``ValidationError`` with a dict of field -> messages, each saying the fix; a vault that does not
answer raises ``VaultUnavailable`` (or ``ConfigurationError``), and then nothing has changed.

Rows are written first, in a transaction that commits after the vault took the keys. So two who
add the same bucket cannot mix their keys, and a crash at any point leaves at worst an unused
vault entry, never a bucket without keys.
"""

from __future__ import annotations

import logging
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.hashers import check_password, make_password
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone

from buckets import selectors, validators
from buckets.models import ApiClient, Bucket, Credential
from scanning import wiring
from scanning.core.types import KeyPair

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

Actor = AbstractBaseUser | ApiClient | None

CHANGEABLE = frozenset(
    {
        "endpoint",
        "region",
        "credential",
        "polling_interval",
        "monitoring_enabled",
        "notifications_enabled",
        "fetch_metadata",
        "prefix",
        "suffix",
        "announce_created",
        "announce_updated",
        "announce_detected",
        "announce_deleted",
        "first_scan",
        "webhook_url",
        "webhook_client_id",
        "webhook_token_url",
    }
)


class BucketExists(Exception):
    """A bucket of this name is watched already."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Bucket {name} is watched already: change the existing one.")
        self.name = name


def add_bucket(  # noqa: PLR0913 - one argument for each member that the API documents
    *,
    name: str,
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
    problems = _Problems()
    problems.check(bucket)
    with problems.collected():
        pair = _own_keys(access_key, secret_key, credential)
    with problems.collected():
        client_secret = _client_secret(bucket, webhook_client_secret, stored=False)
    problems.raise_if_any()
    with transaction.atomic():
        _refuse_taken_names(bucket.name, needs_credential=credential is None)
        bucket.credential = credential or _credential_of(bucket.name)
        _insert(bucket)
        if pair:
            wiring.vault().write(bucket.credential.vault_prefix, pair)
        if client_secret:
            wiring.vault().write_secret(selectors.webhook_secret_name(bucket), client_secret)
    _log("added", "bucket", bucket.name, by)
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
    buckets use too are replaced with ``replace_keys``. Raises Bucket.DoesNotExist.
    """
    if unknown := changes.keys() - CHANGEABLE:
        raise TypeError(f"A bucket's {', '.join(sorted(unknown))} cannot be changed")
    with transaction.atomic():
        stored = Bucket.objects.select_for_update(of=("self",)).get(pk=bucket.pk)
        before, had_client = stored.credential, bool(stored.webhook_client_id)
        _apply(stored, changes)
        problems = _Problems()
        problems.check(stored)
        with problems.collected():
            pair = _replacement_keys(stored, access_key, secret_key, changes)
        with problems.collected():
            client_secret = _client_secret(stored, webhook_client_secret, stored=had_client)
        problems.raise_if_any()
        stored.save()
        if pair:
            _write_keys(stored.credential, pair)
        if before != stored.credential:
            _remove_if_unused(before)
        if client_secret:
            wiring.vault().write_secret(selectors.webhook_secret_name(stored), client_secret)
        elif had_client and not stored.webhook_client_id:
            wiring.vault().delete_secret(selectors.webhook_secret_name(stored))
    _log("changed", "bucket", stored.name, by)
    return stored


def delete_bucket(*, bucket: Bucket, by: Actor = None) -> None:
    """Stop watching a bucket and forget it; its objects in S3 are not touched.

    The credential that came with it goes too, unless another bucket uses it.
    """
    with transaction.atomic():
        credential, name = bucket.credential, bucket.name
        if bucket.webhook_client_id:
            wiring.vault().delete_secret(selectors.webhook_secret_name(bucket))
        bucket.delete()
        _remove_if_unused(credential)
    _log("deleted", "bucket", name, by)


def release_hold(*, bucket: Bucket, by: Actor = None) -> None:
    """Confirm a held mass deletion: the next scan, which is due now, makes deletions of it.

    Nothing happens to a bucket that holds none. Raises RedisUnavailable.
    """
    wiring.impatient_schedule().release_hold(bucket.name, bucket.region)
    _log("confirmed the deletions of", "bucket", bucket.name, by)


def set_notifications(*, bucket: Bucket, enabled: bool, by: Actor = None) -> Bucket:
    """Turn notifications on or off; scanning goes on either way."""
    return update_bucket(bucket=bucket, by=by, notifications_enabled=enabled)


def set_monitoring(*, bucket: Bucket, enabled: bool, by: Actor = None) -> Bucket:
    """Resume or pause the scanning of a bucket."""
    return update_bucket(bucket=bucket, by=by, monitoring_enabled=enabled)


def add_credential(*, name: str, access_key: str, secret_key: str, by: Actor = None) -> Credential:
    """Store a key pair that several buckets may use."""
    name = name.strip()
    credential = Credential(name=name, vault_prefix=validators.vault_prefix(name))
    problems = _Problems()
    problems.check(credential, but_not="vault_prefix")
    with problems.collected():
        pair = _key_pair(access_key, secret_key)
    problems.raise_if_any()
    with transaction.atomic():
        _refuse_taken_prefix(credential.vault_prefix)
        credential.save()
        wiring.vault().write(credential.vault_prefix, pair)
    _log("added", "credential", name, by)
    return credential


def replace_keys(
    *, credential: Credential, access_key: str, secret_key: str, by: Actor = None
) -> Credential:
    """Give a credential another key pair, for every bucket that uses it."""
    pair = _key_pair(access_key, secret_key)
    with transaction.atomic():
        _write_keys(credential, pair)
    _log("replaced keys of", "credential", credential.name, by)
    return credential


def delete_credential(*, credential: Credential, by: Actor = None) -> None:
    """Remove a credential that no bucket uses from the vault and from here."""
    with transaction.atomic():
        if users := selectors.users_of(credential):
            raise ValidationError(
                f"Credential {credential.name} is used by {_listed(users)}: "
                "give these buckets another credential first."
            )
        _remove(credential)
    _log("deleted", "credential", credential.name, by)


def create_api_client(
    *,
    name: str,
    scope: str = ApiClient.Scope.MANAGE,
    client_id: str = "",
    secret: str = "",
    by: Actor = None,
) -> tuple[ApiClient, str]:
    """Let a program use the API; also returns its secret, which is stored as a hash only."""
    secret = secret or secrets.token_urlsafe(32)
    client = ApiClient(
        name=name.strip(),
        scope=scope,
        client_id=client_id or f"bw-{secrets.token_hex(8)}",
        secret_hash=make_password(secret),
    )
    client.full_clean()
    client.save()
    _log("added", "API client", client.name, by)
    return client, secret


def update_api_client(
    *, client: ApiClient, name: str, scope: str, enabled: bool, by: Actor = None
) -> ApiClient:
    client.name, client.scope, client.enabled = name.strip(), scope, enabled
    client.full_clean()
    client.save(update_fields=["name", "scope", "enabled"])
    _log("changed", "API client", client.name, by)
    return client


def delete_api_client(*, client: ApiClient, by: Actor = None) -> None:
    name = client.name
    client.delete()
    _log("deleted", "API client", name, by)


def ensure_bootstrap_client() -> None:
    """Keep the client of API_CLIENT_ID and API_CLIENT_SECRET as configured; without them, none."""
    site = settings.SITE
    if not site.api_client_id or not site.api_client_secret:
        return
    secret = site.api_client_secret.get_secret_value()
    client = selectors.find_api_client(site.api_client_id)
    if client is None:
        try:
            with transaction.atomic():
                create_api_client(
                    name=site.api_client_id, client_id=site.api_client_id, secret=secret
                )
        except IntegrityError:  # another process was first
            return
    elif not check_password(secret, client.secret_hash):
        client.secret_hash = make_password(secret)
        client.save(update_fields=["secret_hash"])


class _Problems:
    """Messages by field, of several checks, so that an operator sees all of them at once."""

    def __init__(self) -> None:
        self._by_field: dict[str, list[str]] = {}

    def check(self, row: Bucket | Credential, *, but_not: str = "credential") -> None:
        """Validate a row; names that are taken are looked at when it is written."""
        with self.collected():
            row.full_clean(exclude={but_not}, validate_unique=isinstance(row, Credential))

    @contextmanager
    def collected(self) -> Iterator[None]:
        try:
            yield
        except ValidationError as exc:
            for field, messages in exc.message_dict.items():
                self._by_field.setdefault(field, []).extend(messages)

    def raise_if_any(self) -> None:
        if self._by_field:
            raise ValidationError(dict(self._by_field))


def _apply(stored: Bucket, changes: dict[str, Any]) -> None:
    """Set the changes; the one of region and endpoint that followed the other goes on doing so."""
    if "endpoint" in changes and "region" not in changes:
        follows = stored.region == validators.region_of(stored.endpoint)
        changes = changes | ({"region": ""} if follows else {})
    elif "region" in changes and "endpoint" not in changes:
        follows = stored.endpoint == validators.endpoint_of(stored.region)
        changes = changes | ({"endpoint": ""} if follows and changes["region"] else {})
    for field, value in changes.items():
        setattr(stored, field, value.strip() if isinstance(value, str) else value)


def _own_keys(access_key: str, secret_key: str, credential: Credential | None) -> KeyPair | None:
    if credential is None:
        return _key_pair(access_key, secret_key)
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
    pair = _key_pair(access_key, secret_key)
    if "credential" in changes:
        raise ValidationError(
            {"credential": ["Choose another credential or enter new keys, not both."]}
        )
    others = [name for name in selectors.users_of(bucket.credential) if name != bucket.name]
    if others:
        problem = (
            f"Credential {bucket.credential.name} is used by {_listed(others)} too: "
            "replace its keys there, for all of them."
        )
        raise ValidationError({"access_key": [problem]})
    return pair


def _key_pair(access_key: str, secret_key: str) -> KeyPair:
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


def _client_secret(bucket: Bucket, text: str, *, stored: bool) -> str:
    """The webhook client's secret if one was given; required with the client's first id."""
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
    if Bucket.objects.filter(name=name).exists():
        raise BucketExists(name)
    if needs_credential:
        _refuse_taken_prefix(validators.vault_prefix(name))


def _refuse_taken_prefix(prefix: str) -> None:
    owner = selectors.owner_of_prefix(prefix)
    if owner is None:
        return
    users = selectors.users_of(owner)
    used_by = f", used by {_listed(users)}" if users else ""
    problem = (
        f"Its keys would be {prefix}_ACCESS_KEY and {prefix}_SECRET_KEY in the vault, "
        f"which belong to credential {owner.name}{used_by}: choose that credential, "
        "or another name."
    )
    raise ValidationError({"name": [problem]})


def _credential_of(bucket_name: str) -> Credential:
    prefix = validators.vault_prefix(bucket_name)
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


def _write_keys(credential: Credential, pair: KeyPair) -> None:
    credential.updated_at = timezone.now()
    credential.save(update_fields=["updated_at"])
    wiring.vault().write(credential.vault_prefix, pair)


def _remove_if_unused(credential: Credential) -> None:
    if credential.came_with_bucket and not credential.buckets.exists():
        _remove(credential)


def _remove(credential: Credential) -> None:
    # Before the commit: after it, somebody may have stored other keys under the same name.
    prefix = credential.vault_prefix
    credential.delete()
    wiring.vault().delete(prefix)


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    more = len(names) - 5
    return f"{'buckets' if len(names) > 1 else 'bucket'} {shown}" + (
        f" and {more} more" if more > 0 else ""
    )


def _log(what: str, kind: str, name: str, by: Actor) -> None:
    match by:
        case None:
            actor = "the command line"
        case ApiClient():
            actor = f"API client {by.name}"
        case _:
            actor = f"user {by.get_username()}"
    logger.info("%s: %s %s %s", actor, what, kind, name)
