"""What Redis and the vault have yet to learn of changes that are committed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from django.db import models, transaction
from django.db.models import Q
from django.utils import timezone

if TYPE_CHECKING:
    from collections.abc import Iterable


class Revision(models.Model):
    """The newest revision given out; one row.

    A revision is at least the time in microseconds, so that a database that was replaced, or
    restored from a backup, gives none that Redis has seen already. Its row stays locked until
    the transaction ends: revisions are committed in their order.
    """

    value = models.BigIntegerField()

    def __str__(self) -> str:
        return str(self.value)

    @classmethod
    def following(cls, number: int = 1) -> int:
        """Take the next ones; inside the transaction of the changes that they number.

        Returns the last of ``number`` consecutive revisions.
        """
        newest, _ = cls.objects.select_for_update().get_or_create(pk=1, defaults={"value": 0})
        newest.value = max(newest.value + 1, time.time_ns() // 1000) + number - 1
        newest.save()
        return newest.value


class Outbox(models.Model):
    """One row per change that Redis has to learn; its id is the change's revision.

    Written in the change's own transaction, deleted when Redis has it.
    """

    id = models.BigIntegerField(primary_key=True)
    bucket = models.CharField(max_length=63, db_index=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["id"]
        verbose_name_plural = "outbox"

    def __str__(self) -> str:
        return f"{self.id} {self.bucket}"

    @staticmethod
    def add(buckets: Iterable[str]) -> None:
        """Have these buckets mirrored; inside the transaction of their change."""
        names = list(buckets)
        with transaction.atomic():
            first = Revision.following(len(names)) - len(names) + 1
            Outbox.objects.bulk_create(
                Outbox(id=revision, bucket=name) for revision, name in enumerate(names, first)
            )


class VaultRemoval(models.Model):
    """A vault entry that nobody needs any more; removed from here once the vault has forgotten it.

    Written in the transaction that deletes the last user of the entry (`vault_removals.py`). While
    ``created_at`` lies ahead, somebody writes or removes the entry at this moment
    (`vault_writes.py`).
    """

    class Kind(models.TextChoices):
        PAIR = "pair", "a key pair, by vault prefix"
        SECRET = "secret", "another entry, by name"

    kind = models.CharField(max_length=10, choices=Kind)
    name = models.CharField(max_length=100)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["kind", "name"], name="vault_removal_name"),
            models.CheckConstraint(
                condition=Q(kind__in=["pair", "secret"]), name="vault_removal_kind"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"
