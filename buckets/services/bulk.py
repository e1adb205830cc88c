"""What operators do to many buckets at once, in a few queries however many they are.

Buckets that somebody has deleted meanwhile are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from buckets import audit, selectors
from buckets.batching import in_batches
from buckets.models import Bucket
from buckets.services import credentials
from buckets.sync import outbox, vault_removals
from scanning import engine, wiring
from scanning.core.holds import Release

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from django.db.models import QuerySet

    from buckets.audit import Actor
    from buckets.models import Credential

# What may be switched, and what the history calls it.
SWITCHES = {"monitoring_enabled": "monitoring", "notifications_enabled": "notifications"}
# What the history calls a release.
_RELEASES = {
    Release.ANNOUNCE_DELETIONS: "Confirmed held deletions",
    Release.ANNOUNCE_UPDATES: "Had held updates announced",
    Release.TAKE_TIMES: "Had held times taken silently",
}


def switch_buckets(*, buckets: Iterable[Bucket], by: Actor = None, **switches: bool) -> None:
    """Turn ``SWITCHES`` on or off for all of these buckets, or for none."""
    if unknown := switches.keys() - SWITCHES:
        raise TypeError(f"A bucket's {', '.join(sorted(unknown))} cannot be switched")
    words = [SWITCHES[name] for name in switches]
    with transaction.atomic(), outbox.batched():
        for chosen in _stored(buckets):
            others = chosen.exclude(**switches)
            rows = list(others.only("name").select_for_update())
            others.update(**switches, updated_at=timezone.now())
            audit.changed_alike(rows, words, by=by)
            outbox.enqueue(row.name for row in rows)


def scan_all_now(*, buckets: Iterable[Bucket], by: Actor = None) -> int:
    """Have buckets scanned as soon as workers are free, paused ones left out; says how many.

    Raises RedisUnavailable.
    """
    active = [bucket for bucket in buckets if bucket.monitoring_enabled]
    # In no transaction: with SQLite, all other writers would wait for Redis.
    engine.scan_all_now((row.name, row.region, row.endpoint) for row in active)
    audit.performed_alike(active, "Asked for a scan", by=by)
    return len(active)


def scan_now(*, bucket: Bucket, by: Actor = None) -> None:
    """Do as `scan_all_now`. Raises ValidationError if the bucket is paused."""
    if not bucket.monitoring_enabled:
        problem = f"Bucket {bucket.name} is paused: resume its monitoring first."
        raise ValidationError({"monitoring_enabled": [problem]})
    scan_all_now(buckets=[bucket], by=by)


def release_holds(
    *,
    buckets: Iterable[Bucket],
    choice: Release = Release.ANNOUNCE_DELETIONS,
    by: Actor = None,
) -> None:
    """Have the next scans, which are due now, do with what is held as somebody chose.

    Nothing happens to a bucket that holds nothing of that kind. Raises RedisUnavailable.
    """
    held = list(buckets)
    with transaction.atomic():
        audit.performed_alike(held, _RELEASES[choice], by=by)
        wiring.interactive().schedule.release_holds({row.name: row.region for row in held}, choice)


def release_hold(
    *, bucket: Bucket, choice: Release = Release.ANNOUNCE_DELETIONS, by: Actor = None
) -> None:
    release_holds(buckets=[bucket], choice=choice, by=by)


def rebaseline_all(*, buckets: Iterable[Bucket], by: Actor = None) -> None:
    """Forget what is known of the buckets' objects: the next scan only remembers what is there.

    What changed since the last scan is not announced, nor are held deletions. From then on the
    buckets' first scans are baselines.
    """
    with transaction.atomic(), outbox.batched():
        for chosen in _stored(buckets):
            rows = list(chosen.only("name").select_for_update())
            Bucket.begin_new_generation(chosen)
            chosen.update(
                first_scan=Bucket.FirstScan.BASELINE,
                taken_over=False,  # an older monitor's states would count as known
                held_since=None,
                held_missing=0,
                held_moved_since=None,
                held_moved=0,
            )
            audit.performed_alike(rows, "Asked for a new baseline", by=by)
            outbox.enqueue(row.name for row in rows)


def rebaseline(*, bucket: Bucket, by: Actor = None) -> Bucket:
    """Do as `rebaseline_all`; returns the bucket as stored. Raises Bucket.DoesNotExist."""
    rebaseline_all(buckets=[bucket], by=by)
    return Bucket.objects.get(pk=bucket.pk)


def delete_buckets(*, buckets: Iterable[Bucket], by: Actor = None) -> None:
    """Stop watching buckets and forget them; their objects in S3 are not touched.

    Credentials that came with them go too, unless other buckets use them.
    """
    used: set[Credential] = set()
    secrets: list[str] = []
    with transaction.atomic():
        with outbox.batched():
            for chosen in _stored(buckets):
                rows = list(chosen.select_related("credential").select_for_update(of=("self",)))
                used |= {row.credential for row in rows}
                secrets += [
                    selectors.webhook_secret_name(row) for row in rows if row.webhook_client_id
                ]
                audit.deleted_alike(rows, by=by)
                chosen.delete()  # first: after the commit, scans end before their keys go
        vault_removals.add(vault_removals.Kind.SECRET, *secrets)
        credentials.remove_unused(used, by=by)


def delete_bucket(*, bucket: Bucket, by: Actor = None) -> None:
    delete_buckets(buckets=[bucket], by=by)


def _stored(buckets: Iterable[Bucket]) -> Iterator[QuerySet[Bucket]]:
    for pks in in_batches(bucket.pk for bucket in buckets):
        yield Bucket.objects.filter(pk__in=pks).order_by("pk")
