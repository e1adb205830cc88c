"""The admin site: what is on every page of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.urls import path
from django.views.decorators.cache import never_cache

from buckets.accounts import login_form as admin_login_form
from buckets.accounts import second_factor
from buckets.pages.dashboard import dashboard

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse
    from django.template.response import TemplateResponse

# The order in which operators need them; whatever else is registered comes after, by name.
_ORDER = ("Bucket", "Credential", "Endpoint", "ApiClient", "User", "Group")


class OperatorsSite(admin.AdminSite):
    """Django's admin with one row of sections instead of a sidebar of apps."""

    site_header = site_title = "bucketwatch"
    index_title = "Dashboard"
    site_url = None
    enable_nav_sidebar = False
    login_form = admin_login_form.LoginForm

    def get_urls(self) -> list[Any]:
        page = never_cache(second_factor.SecondFactorPage.as_view())
        return [path("second-factor/", page, name="second_factor"), *super().get_urls()]

    def login(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        response = super().login(request, extra_context)
        if request.method == "POST" and request.user.is_authenticated:
            admin_login_form.remember_browser(request, response)
        return response

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        context = super().each_context(request)
        return context | {"sections": _sections(context["available_apps"])}

    def index(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> TemplateResponse:
        may_look = request.user.has_perm("buckets.view_bucket")
        context = {
            "board": dashboard() if may_look else None,
            "may_add": request.user.has_perm("buckets.add_bucket"),
        }
        return super().index(request, context | (extra_context or {}))


def _sections(apps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """List the models that this user may see, in order."""
    models = [model for app in apps for model in app["models"] if model["admin_url"]]
    return sorted(models, key=_rank)


def _rank(model: dict[str, Any]) -> tuple[int, str]:
    name = model["object_name"]
    return (_ORDER.index(name) if name in _ORDER else len(_ORDER), name)
