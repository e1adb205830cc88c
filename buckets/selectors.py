"""What is read from the database, in one place: admin, API, commands and services ask here."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from buckets import validators
from buckets.models import ApiClient, Bucket, Credential, Outbox, VaultRemoval

if TYPE_CHECKING:
    from django.db.models import QuerySet


WEBHOOK_SECRET = "_WEBHOOK_CLIENT_SECRET"  # noqa: S105 - the ending of a name


class State(StrEnum):
    """What a bucket is doing, in an operator's words."""

    PAUSED = "paused"
    WAITING = "waiting for its first scan"
    WATCHED = "watched"
    FAILING = "failing"
    HELD = "mass deletion, confirm"


def state(bucket: Bucket) -> State:
    if not bucket.monitoring_enabled:
        return State.PAUSED
    if bucket.last_error_class:
        return State.FAILING
    if bucket.held_since:
        return State.HELD
    return State.WATCHED if bucket.last_scan_at else State.WAITING


def in_state(buckets: QuerySet[Bucket], wanted: State) -> QuerySet[Bucket]:
    """Those of ``buckets`` that ``state`` says this of."""
    if wanted is State.PAUSED:
        return buckets.filter(monitoring_enabled=False)
    active = buckets.filter(monitoring_enabled=True)
    if wanted is State.FAILING:
        return active.exclude(last_error_class="")
    healthy = active.filter(last_error_class="")
    if wanted is State.HELD:
        return healthy.filter(held_since__isnull=False)
    healthy = healthy.filter(held_since__isnull=True)
    return healthy.filter(last_scan_at__isnull=wanted is State.WAITING)


def all_buckets() -> QuerySet[Bucket]:
    return Bucket.objects.select_related("credential").order_by("name")


def bucket_named(name: str) -> Bucket | None:
    return all_buckets().filter(name=name).first()


def notification_status() -> list[dict[str, Any]]:
    """What the API lists: ``name``, ``notifications_enabled``, ``webhook_url`` of each bucket."""
    fields = ("name", "notifications_enabled", "webhook_url")
    return list(Bucket.objects.order_by("name").values(*fields))


def is_waiting_for_redis(name: str) -> bool:
    """Whether Redis, and so the scanner, has yet to learn of a change of this bucket."""
    return Outbox.objects.filter(bucket=name).exists()


def vault_removals_wait() -> bool:
    """Whether the vault has yet to forget something that nobody uses any more."""
    return VaultRemoval.objects.exists()


def lacks_webhook() -> bool:
    """Whether buckets are monitored and none of them has a webhook URL; False without buckets."""
    monitored = Bucket.objects.filter(monitoring_enabled=True)
    return monitored.exists() and not monitored.exclude(webhook_url="").exists()


def owner_of_prefix(vault_prefix: str) -> Credential | None:
    """Whose keys the vault holds under this prefix."""
    return Credential.objects.filter(vault_prefix=vault_prefix).first()


def users_of(credential: Credential) -> list[str]:
    """Names of the buckets that use a credential, in order."""
    return list(credential.buckets.order_by("name").values_list("name", flat=True))


def find_api_client(client_id: str) -> ApiClient | None:
    return ApiClient.objects.filter(client_id=client_id).first()


def webhook_secret_name(bucket: Bucket) -> str:
    """The vault entry of a bucket's webhook client secret: by bucket, also under shared keys."""
    return f"{validators.vault_prefix(bucket.name)}{WEBHOOK_SECRET}"


def is_webhook_secret(name: str) -> bool:
    """Whether a vault entry is the webhook client secret of a bucket that is watched."""
    names = Bucket.objects.exclude(webhook_client_id="").values_list("name", flat=True)
    wanted = name.removesuffix(WEBHOOK_SECRET)
    return any(validators.vault_prefix(bucket) == wanted for bucket in names.iterator())
