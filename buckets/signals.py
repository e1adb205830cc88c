"""What a change in the database sets off: a row in the outbox, and a flush after the commit.

``QuerySet.update`` and ``bulk_create`` send no signals, so they mirror nothing; a delete through
a query set does, one row a bucket.
"""

from __future__ import annotations

from typing import Any

from django.db.models.signals import post_delete, post_save, pre_save
from django.dispatch import receiver

from buckets.models import Bucket, Credential
from buckets.sync import endpoints, outbox


@receiver(post_save, sender=Bucket)
@receiver(post_delete, sender=Bucket)
def mirror_the_bucket(instance: Bucket, **_: Any) -> None:
    outbox.enqueue(name for name in (instance.renamed_from, instance.name) if name)


@receiver(post_save, sender=Bucket)
def have_a_row_for_the_endpoint(instance: Bucket, **_: Any) -> None:
    endpoints.ensure_rows([instance.endpoint])


@receiver(pre_save, sender=Credential)
def mirror_the_buckets_of_a_changed_prefix(instance: Credential, **_: Any) -> None:
    """Enqueue the credential's buckets: each names its credential by vault prefix in Redis."""
    stored = Credential.objects.filter(pk=instance.pk).values_list("vault_prefix", flat=True)
    if stored.first() not in {None, instance.vault_prefix}:
        outbox.enqueue(instance.buckets.values_list("name", flat=True))
