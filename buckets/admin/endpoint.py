"""The S3 endpoints: how each stands, what is known of it, and what an operator sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.text import capfirst

from buckets import services
from buckets.admin import forms
from buckets.admin.base import ServiceAdmin, actor
from buckets.models import Endpoint
from buckets.pages import badges
from buckets.pages import costs as costs_in_words
from buckets.pages import endpoint as endpoint_page
from scanning.core.errors import RedisUnavailable, UnsupportedKeyOrder
from scanning.core.remedies import REMEDIES

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse
    from django.urls import URLPattern

    from buckets.pages.endpoint import EndpointOverview

_STATES = {
    "normal": ("watched", "answers"),
    "slowed": ("late", "slowed"),
    "dead": ("failing", "dead"),
}


@admin.register(Endpoint)
class EndpointAdmin(ServiceAdmin):
    form = forms.EndpointForm
    list_display = ("name", "used_by", "state", "known")
    list_per_page = 100
    search_fields = ("name",)
    ABOUT: ClassVar[Any] = ("name", "used_by", "state", "limits", "requests", "budget", "profile")
    FACTS: ClassVar[Any] = (
        "start_after",
        "list_version",
        "url_encoding",
        "signing_region",
        "addressing",
        "key_order",
        "authorities",
    )

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        return [
            (None, {"fields": self.ABOUT}),
            ("Limits", {"fields": ("list_per_s", "connections")}),
            ("What it costs", {"fields": ("requests_per_day", "request_price")}),
            ("What wins over what is learnt", {"fields": self.FACTS}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.ABOUT

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # rows come with the buckets

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.learn_view)
        return [path("<int:pk>/learn/", view, name="buckets_endpoint_learn"), *super().get_urls()]

    def learn_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        endpoint: Endpoint | None = self.get_object(request, str(pk))
        if endpoint is None:
            raise Http404
        if not self.has_change_permission(request, endpoint):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        try:
            services.learn_again(endpoint=endpoint, by=actor(request))
        except RedisUnavailable as exc:
            messages.error(request, f"Nothing was changed: {exc}")
        else:
            messages.success(request, "What was learnt is forgotten: the next scan there asks.")
        return HttpResponseRedirect(reverse("admin:buckets_endpoint_change", args=[pk]))

    # --- columns and read-only fields

    @admin.display(description="used by")
    def used_by(self, endpoint: Endpoint) -> str:
        number = self._overview_of(endpoint).buckets
        if not number:
            return "no bucket"
        every = f"{reverse('admin:buckets_bucket_changelist')}?{urlencode({'q': endpoint.name})}"
        noun = "bucket" if number == 1 else "buckets"
        return format_html('<a href="{}">{} {}</a>', every, f"{number:,}", noun)

    @admin.display(description="stands")
    def state(self, endpoint: Endpoint) -> str:
        overview = self._overview_of(endpoint)
        order = badges.badge("failing", "key order") if overview.is_out_of_order else ""
        load = overview.load
        if load is None:
            return format_html("{} {}", "not asked lately", order) if order else "not asked lately"
        kind, word = _STATES[load.state]
        per_s = f"at most {load.list_per_s:.1f} requests a second" if load.list_per_s else ""
        return format_html("{} {} {} {}", badges.badge(kind, word), order, per_s, load.why)

    @admin.display(description="limits in force")
    def limits(self, endpoint: Endpoint) -> str:
        limits = self._overview_of(endpoint).limits
        per_s = f"{limits.list_per_s:g} LIST a second in a bucket" if limits.list_per_s else ""
        at_once = f"{limits.connections} requests at once" if limits.connections else ""
        return ", ".join(filter(None, [per_s, at_once])) or "none"

    @admin.display(description="requests")
    def requests(self, endpoint: Endpoint) -> str:
        costs = self._overview_of(endpoint).costs
        today, expected = costs_in_words.sent_today(costs), costs_in_words.a_day(costs.forecast)
        return format_html("Today: {}<br>A day: {}", today, expected)

    @admin.display(description="budget in force")
    def budget(self, endpoint: Endpoint) -> str:
        costs = self._overview_of(endpoint).costs
        return costs_in_words.budget(costs) if costs.budget else "none"

    @admin.display(description="known")
    def known(self, endpoint: Endpoint) -> str:
        facts = [f for f in self._overview_of(endpoint).facts if f.source != "default"]
        return ", ".join(f"{f.name.replace('_', ' ')} {f.value}" for f in facts) or "nothing yet"

    @admin.display(description="profile")
    def profile(self, endpoint: Endpoint) -> str:
        rows = (
            (
                fact.name,
                fact.value or "what the host's name says",
                fact.source,
                badges.moment(fact.learnt_at) if fact.learnt_at else "",
            )
            for fact in self._overview_of(endpoint).facts
        )
        return format_html(
            '{}<table class="plain"><tbody>{}</tbody></table>',
            _key_order_callout() if self._overview_of(endpoint).is_out_of_order else "",
            format_html_join(
                "", '<tr><th scope="row">{}</th><td>{}</td><td>{}</td><td>{}</td></tr>', rows
            ),
        )

    def _overview_of(self, endpoint: Endpoint) -> EndpointOverview:
        # One look for all columns of a row.
        known: EndpointOverview | None = getattr(endpoint, "overview", None)
        if known is None:
            [known] = endpoint_page.endpoint_overviews([endpoint])
            endpoint.overview = known  # type: ignore[attr-defined]
        return known


def _key_order_callout() -> str:
    remedy = REMEDIES[UnsupportedKeyOrder]
    return format_html(
        '<div class="card callout is-failing"><p><strong>{}.</strong> Buckets in which that shows '
        "fail, and nothing of them is announced. {}</p></div>",
        capfirst(remedy.meaning),
        remedy.next_step,
    )
