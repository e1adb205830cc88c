from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.template.response import TemplateResponse

from buckets import services
from buckets.admin import forms
from buckets.admin.base import ServiceAdmin, actor
from buckets.models import ApiClient
from buckets.pages import badges

if TYPE_CHECKING:
    from django.db.models import Model, QuerySet
    from django.http import HttpRequest, HttpResponse


@admin.register(ApiClient)
class ApiClientAdmin(ServiceAdmin):
    form = forms.ApiClientForm
    SECRET_FIELDS = ("secret_hash",)
    list_display = ("name", "client_id", "scope", "status", "last_used")
    list_filter = ("enabled", "scope")
    search_fields = ("name", "client_id")
    search_help_text = "Name or client id"
    actions = ("disable", "enable")

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> Any:
        fields = ("name", "scope", "enabled", "client_id", "created_at", "last_used")
        return [(None, {"fields": fields if obj else ("name", "scope")})]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return ("client_id", "created_at", "last_used") if obj else ()

    @admin.display(description="status", ordering="enabled")
    def status(self, client: ApiClient) -> str:
        return badges.badge(*(("watched", "enabled") if client.enabled else ("paused", "disabled")))

    @admin.display(description="last used", ordering="last_used_at")
    def last_used(self, client: ApiClient) -> str:
        return badges.moment(client.last_used_at)

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

    @admin.action(description="Disable: refuse its tokens at once", permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet[ApiClient]) -> None:
        self._switch(request, queryset, enabled=False)

    @admin.action(description="Enable", permissions=["change"])
    def enable(self, request: HttpRequest, queryset: QuerySet[ApiClient]) -> None:
        self._switch(request, queryset, enabled=True)

    def _switch(
        self, request: HttpRequest, queryset: QuerySet[ApiClient], *, enabled: bool
    ) -> None:
        for client in queryset:
            services.update_api_client(
                client=client,
                name=client.name,
                scope=client.scope,
                enabled=enabled,
                by=actor(request),
            )
        word = "enabled" if enabled else "disabled"
        self.message_user(request, f"{len(queryset)} {word}.", messages.SUCCESS)

    def delete_model(self, request: HttpRequest, obj: ApiClient) -> None:
        services.delete_api_client(client=obj, by=actor(request))
