from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin

from buckets import forms, services
from buckets.admin.base import ServiceAdmin, actor, ago
from buckets.models import Credential

if TYPE_CHECKING:
    from django.db.models import Model, QuerySet
    from django.http import HttpRequest


@admin.register(Credential)
class CredentialAdmin(ServiceAdmin):
    form = forms.CredentialForm
    list_display = ("name", "used_by", "verified", "updated_at", "came_with_bucket")
    search_fields = ("name", "buckets__name")
    ABOUT: ClassVar[Any] = ("name", "used_by", "vault_entries", "updated_at", "verified")
    KEYS: ClassVar[Any] = ("S3 keys", {"fields": ("access_key", "secret_key")})

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> Any:
        about = (*self.ABOUT, "endpoint") if obj else ("name", "endpoint")
        return [(None, {"fields": about}), self.KEYS]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return self.ABOUT if obj else ()

    def get_queryset(self, request: HttpRequest) -> QuerySet[Credential]:
        queryset: QuerySet[Credential] = super().get_queryset(request)
        return queryset.prefetch_related("buckets")

    @admin.display(description="used by", empty_value="no bucket")
    def used_by(self, credential: Credential) -> str:
        return ", ".join(bucket.name for bucket in credential.buckets.all())

    @admin.display(description="last verified", ordering="last_verified_at")
    def verified(self, credential: Credential) -> str:
        when = ago(credential.last_verified_at)
        error = credential.last_verified_error
        return f"{when}: {error}" if error else when

    @admin.display(description="vault entries")
    def vault_entries(self, credential: Credential) -> str:
        return f"{credential.vault_prefix}_ACCESS_KEY, {credential.vault_prefix}_SECRET_KEY"

    def delete_model(self, request: HttpRequest, obj: Credential) -> None:
        services.delete_credential(credential=obj, by=actor(request))
