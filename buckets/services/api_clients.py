"""Programs that may use the API."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from django.conf import settings
from django.contrib.auth.hashers import check_password, make_password
from django.db import IntegrityError, transaction

from buckets import audit, selectors
from buckets.models import ApiClient

if TYPE_CHECKING:
    from buckets.audit import Actor


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
    with transaction.atomic():
        client.save()
        audit.added([client], by=by)
    return client, secret


def update_api_client(
    *, client: ApiClient, name: str, scope: str, enabled: bool, by: Actor = None
) -> ApiClient:
    with transaction.atomic():
        before = ApiClient.objects.select_for_update().get(pk=client.pk)
        client.name, client.scope, client.enabled = name.strip(), scope, enabled
        client.full_clean()
        client.save(update_fields=["name", "scope", "enabled"])
        audit.changed(client, audit.fields_changed(client, before), by=by)
    return client


def delete_api_client(*, client: ApiClient, by: Actor = None) -> None:
    with transaction.atomic():
        audit.deleted(client, by=by)
        client.delete()


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
        with transaction.atomic():
            client.secret_hash = make_password(secret)
            client.save(update_fields=["secret_hash"])
            audit.changed(client, ["secret"], by=None)
