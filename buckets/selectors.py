"""What is read from the database, in one place: admin, API, commands and services ask here."""

from __future__ import annotations

import json
from collections import Counter
from enum import StrEnum
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final

from django.db import connection
from django.db.models import Case, Count, Q, When
from django.db.models.expressions import RawSQL
from django.utils import timezone

from buckets.models import (
    ApiClient,
    Bucket,
    Credential,
    Endpoint,
    Outbox,
    SecondFactor,
    VaultRemoval,
)
from scanning import engine
from scanning.core.endpoints import endpoint_name
from scanning.core.errors import RedisUnavailable, StateDamaged
from scanning.core.vault_names import prefix_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from django.db.models import QuerySet


WEBHOOK_SECRET = "_WEBHOOK_CLIENT_SECRET"  # noqa: S105 - the ending of a name


# Any number of names as one parameter: SQLite takes 32,766 in one query.
_NAMES_IN_JSON: Final = {
    "sqlite": "SELECT value FROM json_each(%s)",
    "postgresql": "SELECT jsonb_array_elements_text(%s::jsonb)",
}


class State(StrEnum):
    """What a bucket is doing, in an operator's words; of several that fit, the first counts.

    The rule has three forms, because three places hold the facts: ``state`` for a row,
    ``_conditions`` for the database, and the script behind `TelemetryStore.bucket_states` for
    Redis. `tests/control_plane/test_bucket_states.py` holds them against each other.
    """

    PAUSED = "paused"
    LOST = "forgotten by Redis"
    FAILING = "failing"
    HELD = "held"
    LATE = "late"
    WAITING = "new"
    WATCHED = "on time"


# As lists show them: what needs somebody comes first.
WORST_FIRST: Final = (
    State.LOST,
    State.FAILING,
    State.HELD,
    State.LATE,
    State.WAITING,
    State.WATCHED,
    State.PAUSED,
)


def state(bucket: Bucket, *, late: bool = False) -> State:
    """Derive the state; ``late`` if Redis has the bucket's scan as overdue (`late_buckets`)."""
    fits = {
        State.PAUSED: not bucket.monitoring_enabled,
        State.LOST: bucket.lost_since,
        State.FAILING: bucket.last_error_class,
        State.HELD: bucket.held_since or bucket.held_moved_since,
        State.LATE: late,
        State.WAITING: not bucket.last_scan_at,
        State.WATCHED: True,
    }
    return next(state for state in State if fits[state])


def _conditions(late: Collection[str]) -> dict[State, Q]:
    """Say what ``state`` says, for the database."""
    return {
        State.PAUSED: Q(monitoring_enabled=False),
        State.LOST: Q(lost_since__isnull=False),
        State.FAILING: ~Q(last_error_class=""),
        State.HELD: Q(held_since__isnull=False) | Q(held_moved_since__isnull=False),
        State.LATE: Q(name__in=_names(late)),
        State.WAITING: Q(last_scan_at__isnull=True),
        State.WATCHED: Q(),
    }


def _in_state(wanted: State, late: Collection[str]) -> Q:
    fits = _conditions(late)
    condition = fits[wanted]
    for earlier in takewhile(lambda state: state is not wanted, State):
        condition &= ~fits[earlier]
    return condition


def buckets_by_endpoint() -> dict[str, int]:
    """Count the buckets at each endpoint, by `endpoint_name`."""
    found: Counter[str] = Counter()
    for endpoint, number in (
        Bucket.objects.order_by().values_list("endpoint").annotate(number=Count("pk"))
    ):
        found[endpoint_name(endpoint)] += number
    return dict(found)


def endpoints_of(buckets: Iterable[Bucket]) -> list[Endpoint]:
    """Find the endpoints of some buckets."""
    names = {endpoint_name(bucket.endpoint) for bucket in buckets}
    return list(Endpoint.objects.filter(name__in=names))


def late_buckets() -> frozenset[str]:
    """Name the buckets that are due and that nobody scans; none while Redis is away."""
    try:
        return engine.late_buckets()
    except RedisUnavailable:
        return frozenset()


def in_state(
    buckets: QuerySet[Bucket], wanted: State, *, late: Collection[str] = ()
) -> QuerySet[Bucket]:
    """Select the ``buckets`` that are in this state.

    ``late``, as `late_buckets` names them, only matters to ``State.LATE`` and what follows it.
    """
    return buckets.filter(_in_state(wanted, late))


def state_counts(*, late: Collection[str]) -> dict[State, int]:
    """Count the buckets of each state."""
    counts = {wanted.name: Count("pk", filter=_in_state(wanted, late)) for wanted in State}
    found = Bucket.objects.aggregate(**counts)
    return {wanted: found[wanted.name] for wanted in State}


def worst_first() -> Case:
    """Order buckets by state; which are late is only known to Redis, and makes no difference."""
    places = enumerate(WORST_FIRST)
    return Case(*(When(_in_state(wanted, ()), then=place) for place, wanted in places))


def _names(names: Collection[str]) -> Any:
    if not names:
        return ()
    return RawSQL(_NAMES_IN_JSON[connection.vendor], [json.dumps(list(names))])  # noqa: S611 - ours


def all_buckets() -> QuerySet[Bucket]:
    return Bucket.objects.select_related("credential").order_by("name")


def lost_buckets() -> QuerySet[Bucket]:
    """Select the buckets of which Redis lost the state, or a part of it; paused ones too."""
    is_damaged = Q(last_error_class=StateDamaged.__name__)
    return Bucket.objects.filter(Q(lost_since__isnull=False) | is_damaged).order_by("name")


def monitored(names: Collection[str]) -> QuerySet[Bucket]:
    """Select those of some buckets that are monitored, by name; however many names there are."""
    return Bucket.objects.filter(monitoring_enabled=True, name__in=_names(names)).order_by("name")


def with_scan_warnings() -> QuerySet[Bucket]:
    """Pick the buckets whose last complete scan warned of something."""
    watched = Bucket.objects.filter(monitoring_enabled=True, scan_warnings__isnull=False)
    return watched.only("name", "scan_warnings", "last_error_class").order_by("name")


def bucket_named(name: str) -> Bucket | None:
    return all_buckets().filter(name=name).first()


def watch_names() -> frozenset[str]:
    return frozenset(Bucket.objects.order_by().values_list("name", flat=True))


def watches_of(*s3_names: str) -> QuerySet[Bucket]:
    """Select the watches on buckets of these names, whatever their endpoints."""
    by_name = Q(bucket_name__in=s3_names) | Q(bucket_name="", name__in=s3_names)
    return Bucket.objects.filter(by_name).order_by("name")


def notification_status() -> list[dict[str, Any]]:
    """Read ``name``, ``notifications_enabled`` and ``webhook_url`` of each bucket."""
    fields = ("name", "notifications_enabled", "webhook_url")
    return list(Bucket.objects.order_by("name").values(*fields))


def is_waiting_for_redis(name: str) -> bool:
    """Tell whether a change of this bucket has not reached Redis, and so the scanner."""
    return Outbox.objects.filter(bucket=name).exists()


def any_waits_for_redis(names: Collection[str]) -> bool:
    """Tell whether a change of one of these buckets has not reached Redis."""
    waiting = Outbox.objects.order_by().values_list("bucket", flat=True)
    return bool(names) and not set(names).isdisjoint(waiting)


def buckets_waiting_for_redis() -> int:
    """Count the buckets with changes that have not reached Redis."""
    return Outbox.objects.order_by().values("bucket").distinct().count()


def vault_removals() -> int:
    """Count the vault entries that nobody uses any more and that are still there."""
    return due_removals().count()


def vault_removals_wait() -> bool:
    """Tell whether the vault holds an entry that is to be removed."""
    return due_removals().exists()


def due_removals() -> QuerySet[VaultRemoval]:
    """Select the removals whose entries nobody writes at this moment."""
    return VaultRemoval.objects.filter(created_at__lte=timezone.now())


def any_is_active() -> bool:
    """Tell whether there is a bucket that is to be scanned."""
    return Bucket.objects.filter(monitoring_enabled=True).exists()


def lacks_webhook() -> bool:
    """Tell whether no monitored bucket has a webhook URL; False without monitored buckets."""
    monitored = Bucket.objects.filter(monitoring_enabled=True)
    return monitored.exists() and not monitored.exclude(webhook_url="").exists()


def owner_of_prefix(vault_prefix: str) -> Credential | None:
    """Find the credential whose keys the vault holds under this prefix."""
    return Credential.objects.filter(vault_prefix=vault_prefix).first()


def users_of(credential: Credential) -> list[str]:
    """Name the buckets that use a credential, in order."""
    return list(credential.buckets.order_by("name").values_list("name", flat=True))


def find_api_client(client_id: str) -> ApiClient | None:
    return ApiClient.objects.filter(client_id=client_id).first()


def webhook_secret_name(bucket: Bucket) -> str:
    """Name the vault entry of a bucket's webhook client secret, which is its own."""
    return f"{prefix_of(bucket.name)}{WEBHOOK_SECRET}"


def webhook_secrets() -> set[str]:
    """Name the vault entries of all buckets' webhook client secrets."""
    with_client = Bucket.objects.exclude(webhook_client_id="").only("name")
    return {webhook_secret_name(bucket) for bucket in with_client.iterator()}


def second_factor_of(user: Any) -> SecondFactor | None:
    rows: QuerySet[SecondFactor] = SecondFactor.objects.filter(user_id=user.pk)
    return rows.select_related("user").first()
