from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlencode

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Count, OuterRef, Subquery
from django.db.models.functions import Coalesce
from django.http import Http404, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.html import format_html

from buckets import services
from buckets.admin import forms
from buckets.admin.base import ServiceAdmin, actor
from buckets.models import Bucket, Credential
from buckets.pages import badges
from scanning.core.vault_names import halves_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from django.db.models import Model, QuerySet
    from django.http import HttpRequest, HttpResponse
    from django.urls import URLPattern

_MOST_VERIFIED = 100
# Without JavaScript all buckets are verified in one request.
_PATIENCE_S = 20.0


@dataclass(frozen=True, slots=True)
class VerifiedBucket:
    """How one bucket could be listed with a credential; ``test`` None: time was up before it."""

    bucket: Bucket
    test: services.ConnectionCheck | None = None


class UseFilter(admin.SimpleListFilter):
    title = "kind"
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("shared", "to be shared"), ("own", "a bucket's own")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() not in {"shared", "own"}:
            return queryset
        return queryset.filter(came_with_bucket=self.value() == "own")


@admin.register(Credential)
class CredentialAdmin(ServiceAdmin):
    form = forms.CredentialForm
    list_display = ("name", "used_by", "verified", "updated")
    list_filter = (UseFilter,)
    ordering = ("came_with_bucket", "name")
    list_per_page = 100
    show_full_result_count = False
    search_fields = ("name", "buckets__name")
    search_help_text = "Name of a credential or of a bucket"
    ABOUT: ClassVar[Any] = ("name", "used_by", "verified", "updated_at", "vault_entries")

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> Any:
        if obj is None:
            keys = ("S3 keys", {"fields": ("access_key", "secret_key")})
            return [(None, {"fields": ("name", "endpoint")}), keys]
        about = (None, {"fields": (*self.ABOUT, "endpoint")})
        if not self.has_change_permission(request, obj):
            return [about]
        return [
            about,
            ("Rotate: enter the new key pair", {"fields": ("access_key", "secret_key")}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return self.ABOUT if obj else ()

    def get_queryset(self, request: HttpRequest) -> QuerySet[Credential]:
        queryset: QuerySet[Credential] = super().get_queryset(request)
        # Not a join: a search joins them once more.
        used_by = Bucket.objects.order_by().filter(credential=OuterRef("pk")).values("credential")
        number = used_by.annotate(number=Count("pk")).values("number")
        return queryset.annotate(number_of_buckets=Coalesce(Subquery(number), 0))

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.verify_view)
        return [
            path("<int:pk>/verify/", view, name="buckets_credential_verify"),
            *super().get_urls(),
        ]

    # --- who uses it, and does it work there?

    def verify_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """List the buckets that use a credential; a POST tests them, or the one that it names."""
        credential = self._credential(request, pk)
        may_change = self.has_change_permission(request, credential)
        chosen = list(credential.buckets.order_by("name")[:_MOST_VERIFIED])
        rows = [VerifiedBucket(bucket) for bucket in chosen]
        if request.method == "POST":
            if not may_change:
                raise PermissionDenied
            rows = list(_verify(chosen, request.POST.get("bucket", ""), by=actor(request)))
        context = {
            **self.admin_site.each_context(request),
            "title": credential.name,
            "opts": self.opts,
            "original": credential,
            "may_change": may_change,
            "rows": rows,
            "more": max(0, credential.buckets.count() - len(rows)),
            "failed": sum(1 for row in rows if row.test and not row.test.ok),
            "tested": sum(1 for row in rows if row.test),
        }
        return TemplateResponse(request, "admin/buckets/credential/verify.html", context)

    def _credential(self, request: HttpRequest, pk: int) -> Credential:
        credential: Credential | None = self.get_object(request, str(pk))
        if credential is None:
            raise Http404
        if not self.has_view_or_change_permission(request, credential):
            raise PermissionDenied
        return credential

    def save_form(self, request: HttpRequest, form: Any, change: bool) -> Model:
        row = super().save_form(request, form, change)
        request.is_rotation = change and form.has_keys  # type: ignore[attr-defined]
        return row

    def response_post_save_change(
        self, request: HttpRequest, obj: Credential
    ) -> HttpResponseRedirect:
        """Offer, after a rotation, to test the new keys with every bucket."""
        if getattr(request, "is_rotation", False) and obj.buckets.exists():
            return HttpResponseRedirect(reverse("admin:buckets_credential_verify", args=[obj.pk]))
        return super().response_post_save_change(request, obj)

    # --- columns and read-only fields

    @admin.display(description="used by", ordering="number_of_buckets", empty_value="no bucket")
    def used_by(self, credential: Credential) -> str:
        number: int = credential.number_of_buckets  # type: ignore[attr-defined]
        if not number:
            return ""
        if number == 1 and credential.came_with_bucket:
            return "the bucket of this name"
        every = f"{reverse('admin:buckets_bucket_changelist')}?"
        every += urlencode({"credential": credential.name})
        return format_html('<a href="{}">{}</a>', every, f"{number:,} buckets")

    @admin.display(description="last verified", ordering="last_verified_at")
    def verified(self, credential: Credential) -> str:
        when = badges.moment(credential.last_verified_at)
        if credential.last_verified_at is None:
            return when
        error = credential.last_verified_error
        kind, word = ("failing", "refused") if error else ("watched", "works")
        return format_html("{} {} {}", badges.badge(kind, word), when, error)

    @admin.display(description="keys entered", ordering="updated_at")
    def updated(self, credential: Credential) -> str:
        return badges.moment(credential.updated_at)

    @admin.display(description="vault entries")
    def vault_entries(self, credential: Credential) -> str:
        return ", ".join(halves_of(credential.vault_prefix))

    def delete_model(self, request: HttpRequest, obj: Credential) -> None:
        services.delete_credential(credential=obj, by=actor(request))


def _verify(
    buckets: Iterable[Bucket], only: str, *, by: services.Actor
) -> Iterator[VerifiedBucket]:
    """Test the buckets, or the one of the primary key ``only``, until the patience is over."""
    ends = time.monotonic() + _PATIENCE_S
    for bucket in buckets:
        is_asked = only in {"", str(bucket.pk)} and time.monotonic() < ends
        test = services.check_connection(bucket=bucket, by=by) if is_asked else None
        yield VerifiedBucket(bucket, test)
