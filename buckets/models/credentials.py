"""S3 key pairs, by name; the keys themselves are in the vault."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models import Q
from django.utils import timezone

from buckets import validators


class Credential(models.Model):
    """An S3 access key pair, used by one or more buckets. The keys are in the vault.

    One that ``came_with_bucket`` was entered together with a bucket, is named after it, and is
    removed with the last bucket that uses it.
    """

    name = models.CharField(
        max_length=63,
        unique=True,
        validators=[validators.credential_name],
        error_messages={"unique": "There is a credential of this name already: choose another."},
    )
    vault_prefix = models.CharField(max_length=63, unique=True, editable=False)
    endpoint = models.CharField(
        max_length=255,
        blank=True,
        help_text="Where these keys are valid, if you like to note it: buckets name their own.",
    )
    came_with_bucket = models.BooleanField(default=False, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField("keys last entered", default=timezone.now, editable=False)
    last_verified_at = models.DateTimeField("last verified", null=True, blank=True, editable=False)
    last_verified_error = models.TextField(blank=True, default="", editable=False)

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(vault_prefix__regex=validators.VAULT_PREFIX),
                name="credential_vault_prefix",
                violation_error_message="A vault prefix is the name in upper case, - as _.",
            ),
            models.CheckConstraint(
                condition=Q(last_verified_at__isnull=False) | Q(last_verified_error=""),
                name="credential_verified",
                violation_error_message="An error of a verification has its time.",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save; the signal that follows writes its outbox rows in the same transaction."""
        with transaction.atomic():
            super().save(*args, **kwargs)

    def clean(self) -> None:
        """Store the endpoint in the form that buckets have it in."""
        if self.endpoint:
            try:
                self.endpoint = validators.endpoint(self.endpoint)
            except ValidationError as exc:
                raise ValidationError({"endpoint": exc.messages}) from None
