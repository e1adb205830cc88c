from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.template.response import TemplateResponse

from buckets import forms, services
from buckets.admin.base import ServiceAdmin, actor, ago
from buckets.models import ApiClient

if TYPE_CHECKING:
    from django.db.models import Model
    from django.http import HttpRequest, HttpResponse


@admin.register(ApiClient)
class ApiClientAdmin(ServiceAdmin):
    form = forms.ApiClientForm
    list_display = ("name", "client_id", "scope", "enabled", "last_used")
    list_filter = ("enabled", "scope")
    search_fields = ("name", "client_id")

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> Any:
        fields = ("name", "scope", "enabled", "client_id", "created_at", "last_used")
        return [(None, {"fields": fields if obj else ("name", "scope")})]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return ("client_id", "created_at", "last_used") if obj else ()

    @admin.display(description="last used", ordering="last_used_at")
    def last_used(self, client: ApiClient) -> str:
        return ago(client.last_used_at)

    def save_form(self, request: HttpRequest, form: Any, change: bool) -> Model:
        row = super().save_form(request, form, change)
        request.new_secret = form.new_secret  # type: ignore[attr-defined]
        return row

    def response_add(
        self, request: HttpRequest, obj: Model, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Show the secret in this answer: a message would put it into a cookie or the session."""
        context = self.admin_site.each_context(request) | {
            "title": f"API client {obj} was added",
            "client": obj,
            "secret": getattr(request, "new_secret", ""),
            "opts": self.opts,
        }
        return TemplateResponse(request, "admin/buckets/apiclient/secret.html", context)

    def delete_model(self, request: HttpRequest, obj: ApiClient) -> None:
        services.delete_api_client(client=obj, by=actor(request))
