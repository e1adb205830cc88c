"""Endpoints: a row for each that buckets use, and their settings in Redis as the rows have them.

They are few, so nothing waits in an outbox: what Redis holds is compared with all rows.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from django.db import transaction

from buckets.models import Bucket, Endpoint, Revision
from scanning import wiring
from scanning.core.endpoints import endpoint_name
from scanning.core.errors import RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable

logger = logging.getLogger(__name__)


def ensure_rows(endpoints: Iterable[str]) -> None:
    """Have a row for each of these endpoints, however buckets write them."""
    names = set(map(endpoint_name, endpoints))
    missing = names - set(Endpoint.objects.filter(name__in=names).values_list("name", flat=True))
    Endpoint.objects.bulk_create(map(_row, sorted(missing)), ignore_conflicts=True)


def _row(name: str) -> Endpoint:
    return Endpoint(name=name)


def catch_up() -> None:
    """Bring rows in step with the buckets, and Redis with the rows. Raises RedisUnavailable."""
    used = set(Bucket.objects.order_by().values_list("endpoint", flat=True).distinct())
    ensure_rows(used)
    unused = Endpoint.objects.filter(revision=0).exclude(name__in=set(map(endpoint_name, used)))
    unused.delete()
    rows = list(Endpoint.objects.exclude(revision=0))
    held = wiring.interactive().endpoint_profiles.revisions([row.name for row in rows])
    for row in rows:
        if held[row.name] > row.revision:  # the database was restored from a backup
            row.revision = Revision.following()
            row.save(update_fields=["revision"])
        if held[row.name] != row.revision:
            write(row)


def write(row: Endpoint) -> None:
    """Write what a row says to Redis. Raises RedisUnavailable."""
    profiles = wiring.interactive().endpoint_profiles
    profiles.set(row.name, row.settings, revision=row.revision)


def unstretch_after_commit(row: Endpoint) -> None:
    """Have passes wait no longer for a budget that is another one now: the next ones may."""
    names = [
        name
        for name, endpoint in Bucket.objects.values_list("name", "endpoint")
        if endpoint_name(endpoint) == row.name
    ]

    def tell() -> None:
        try:
            wiring.interactive().schedule.unstretch(names)
        except RedisUnavailable as exc:
            logger.warning("%s: its buckets wait for the next day: %s", row, exc)

    transaction.on_commit(tell, robust=True)


def write_after_commit(row: Endpoint) -> None:
    """Write it once it is committed; what that fails at, `catch_up` does."""

    def tell() -> None:
        try:
            write(row)
        except RedisUnavailable as exc:
            logger.warning("%s: its settings are not in Redis yet: %s", row, exc)

    transaction.on_commit(tell, robust=True)
