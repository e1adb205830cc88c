"""The programs that may use the API."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils import timezone


class ApiClient(models.Model):
    """A program that may use the REST API. Its secret is shown once and kept as a hash."""

    class Scope(models.TextChoices):
        MANAGE = "manage", "read and change"
        READ = "read", "read only"
        HINT = "hint", "give hints only"

    name = models.CharField(
        max_length=100,
        unique=True,
        help_text="What the program is, for people.",
        error_messages={"unique": "There is an API client of this name already: choose another."},
    )
    client_id = models.CharField(max_length=100, unique=True, editable=False)
    secret_hash = models.CharField(max_length=255, editable=False)
    scope = models.CharField(max_length=10, choices=Scope, default=Scope.MANAGE)
    enabled = models.BooleanField(
        default=True, help_text="Off: it gets no new token, and those it has are refused."
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    last_used_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering = ["name"]
        verbose_name = "API client"
        constraints = [
            models.CheckConstraint(
                condition=Q(scope__in=["manage", "read", "hint"]), name="api_client_scope"
            ),
        ]

    def __str__(self) -> str:
        return self.name
