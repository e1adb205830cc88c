from __future__ import annotations

from itertools import chain, islice
from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.html import format_html
from django.utils.http import content_disposition_header
from django.views.decorators.http import require_POST

from buckets import services
from buckets.admin import bucket_actions, forms
from buckets.admin.base import actor
from buckets.admin.bucket_list import ListedBuckets
from buckets.models import Bucket
from buckets.pages import bucket as bucket_page
from buckets.pages import costs as costs_in_words
from scanning import engine
from scanning.core.errors import BucketwatchError
from scanning.inspection.held import csv_lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.models import Model
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase
    from django.urls import URLPattern

ONLY_A_TEST = "This was only a test: nothing is saved. Enter secrets again before you save."
MOST_HELD_SHOWN = 100
CSV = "text/csv; charset=utf-8"


@admin.register(Bucket)
class BucketAdmin(ListedBuckets):
    """A bucket has an overview, where its state is, and settings, which is Django's form."""

    form = forms.BucketForm
    save_on_top = False

    SETTINGS: ClassVar[tuple[tuple[str | None, dict[str, Any]], ...]] = (
        (None, {"fields": ("name", "bucket_name", "region", "endpoint")}),
        ("S3 keys", {"fields": ("credential", "access_key", "secret_key")}),
        (
            "Watching",
            {
                "fields": (
                    "polling_interval",
                    "polling_longest",
                    "probe_interval",
                    "monitoring_enabled",
                    "notifications_enabled",
                    "fetch_metadata",
                    "trust_etags",
                    "lanes",
                    "most_objects",
                )
            },
        ),
        ("What it costs", {"fields": ("requests_per_day", "expected_objects", "forecast")}),
        (
            "Announcing",
            {
                "fields": (
                    (
                        "announce_created",
                        "announce_updated",
                        "announce_detected",
                        "announce_deleted",
                    ),
                    "first_scan",
                    "prefix",
                    "suffix",
                )
            },
        ),
        (
            "Webhook",
            {
                "fields": (
                    "webhook_url",
                    "webhook_client_id",
                    "webhook_client_secret",
                    "webhook_token_url",
                    "webhook_secret_in_redis",
                )
            },
        ),
    )

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> Any:
        if self._may_save(request, obj):
            return self.SETTINGS
        # Of secrets "None" would look as if there were none.
        inputs = (*forms.BucketForm.SECRETS, forms.BucketForm.NOT_SAVED)
        return [
            (title, {"fields": [field for field in options["fields"] if field not in inputs]})
            for title, options in self.SETTINGS
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        # A bucket cannot be renamed in S3 either: another name is another bucket.
        return ("name", "forecast") if obj else ("forecast",)

    def get_urls(self) -> list[URLPattern]:
        pages = (
            ("", "overview", self.overview_view),
            ("do/", "do", require_POST(self.do_view)),
            ("explain/", "explain", self.explain_view),
            ("held/", "held", self.held_view),
            ("held.csv", "held_csv", self.held_csv_view),
            ("forecast/", "forecast", self.forecast_view),
        )
        new = self.admin_site.admin_view(self.forecast_view)
        return [
            *(self._path(*page) for page in pages),
            path("add/forecast/", new, name="buckets_bucket_forecast_new"),
            *super().get_urls(),
        ]

    def _path(self, end: str, name: str, view: Callable[..., HttpResponseBase]) -> URLPattern:
        view = self.admin_site.admin_view(view)
        return path(f"<int:pk>/{end}", view, name=f"buckets_bucket_{name}")

    # --- overview

    def overview_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Show how the bucket is: facts, scans, events."""
        bucket = self._bucket(request, pk)
        context = self._context(request, bucket) | {"page": bucket_page.look_at(bucket)}
        return TemplateResponse(request, "admin/buckets/bucket/overview.html", context)

    def do_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Do what a button of the overview asks for."""
        bucket = self._bucket(request, pk)
        if not self.has_change_permission(request, bucket):
            raise PermissionDenied
        action = request.POST.get("action", "")
        if action not in bucket_actions.ACTIONS:
            raise Http404
        bucket_actions.do(request, bucket, action)
        self.note_written(request, bucket.name)
        self.after_writing(request)
        return HttpResponseRedirect(_overview_of(bucket))

    def explain_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Say what is known of one key, and what the next scan would announce of it."""
        bucket = self._bucket(request, pk)
        key = request.GET.get("key", "")
        context = self._context(request, bucket) | {"key": key}
        if key:
            try:
                context["explanation"] = engine.explain(bucket.name, key)
            except BucketwatchError as exc:
                context["problem"] = str(exc)
        return TemplateResponse(request, "admin/buckets/bucket/explain.html", context)

    def held_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Show the first objects that are held, and how many there are."""
        bucket = self._bucket(request, pk)
        context = self._context(request, bucket)
        try:
            held = engine.held_objects(bucket.name)
            context |= {"held": held, "shown": list(islice(held.objects, MOST_HELD_SHOWN))}
        except BucketwatchError as exc:
            context["problem"] = str(exc)
        return TemplateResponse(request, "admin/buckets/bucket/held.html", context)

    def held_csv_view(self, request: HttpRequest, pk: int) -> HttpResponseBase:
        """Stream all of them; a download that cannot be completed breaks off."""
        bucket = self._bucket(request, pk)
        try:
            lines = csv_lines(engine.held_objects(bucket.name).objects)
            begin = next(lines)
        except BucketwatchError:  # the page says why
            return HttpResponseRedirect(reverse("admin:buckets_bucket_held", args=[pk]))
        answer = StreamingHttpResponse(chain([begin], lines), content_type=CSV)
        name = f"{bucket.name}-held.csv"
        answer["Content-Disposition"] = content_disposition_header(
            as_attachment=True, filename=name
        )
        return answer

    def forecast_view(self, request: HttpRequest, pk: int | None = None) -> HttpResponse:
        """Say what a bucket would cost as the form has it."""
        stored = None if pk is None else self._bucket(request, pk)
        if not self._may_save(request, stored):
            raise PermissionDenied
        form: Any = self.get_form(request, stored, change=stored is not None)
        filled: forms.BucketForm = form(request.GET, instance=stored)
        return HttpResponse(filled.forecast(), content_type="text/plain; charset=utf-8")

    @admin.display(description="forecast")
    def forecast(self, bucket: Bucket) -> str:
        """Say it of what is stored, for the script to say it of what is typed."""
        where = (
            reverse("admin:buckets_bucket_forecast", args=[bucket.pk])
            if bucket.pk
            else reverse("admin:buckets_bucket_forecast_new")
        )
        return format_html(
            '<output data-forecast="{}" data-fields="{}">{}</output>',
            where,
            " ".join(forms.BucketForm.FORECAST),
            costs_in_words.forecast_of(bucket, objects=bucket.object_count),
        )

    def _bucket(self, request: HttpRequest, pk: int) -> Bucket:
        bucket: Bucket | None = self.get_object(request, str(pk))
        if bucket is None:
            raise Http404
        if not self.has_view_or_change_permission(request, bucket):
            raise PermissionDenied
        return bucket

    def _context(self, request: HttpRequest, bucket: Bucket) -> dict[str, Any]:
        return {
            **self.admin_site.each_context(request),
            "title": bucket.name,
            "opts": self.opts,
            "original": bucket,
            "may_change": self.has_change_permission(request, bucket),
        }

    # --- settings

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        context = extra_context or {}
        if request.method == "POST" and "_test" in request.POST:
            context = context | {"test": self._test(request, object_id)}
            request.refused = {"__all__": [ONLY_A_TEST]}  # type: ignore[attr-defined]
        return super().changeform_view(request, object_id, form_url, context)

    def _test(self, request: HttpRequest, object_id: str | None) -> services.ConnectionCheck:
        """List the bucket as the form has it now."""
        stored = self.get_object(request, object_id) if object_id else None
        if not self._may_save(request, stored):
            raise PermissionDenied
        form: Any = self.get_form(request, stored, change=stored is not None)
        filled: forms.BucketForm = form(request.POST, instance=stored)
        problems = [str(text) for texts in filled.errors.values() for text in texts]
        if problems:
            return services.ConnectionCheck.impossible(problems)
        try:
            return filled.test(by=actor(request))
        except ValidationError as exc:
            return services.ConnectionCheck.impossible(exc.messages)

    def _may_save(self, request: HttpRequest, stored: Model | None) -> bool:
        if stored is None:
            return self.has_add_permission(request)
        return self.has_change_permission(request, stored)

    def response_post_save_add(self, request: HttpRequest, obj: Bucket) -> HttpResponseRedirect:
        if note := services.note_on_overlaps(obj):
            messages.warning(request, note)
        return HttpResponseRedirect(_overview_of(obj))

    response_post_save_change = response_post_save_add


def _overview_of(bucket: Bucket) -> str:
    return reverse("admin:buckets_bucket_overview", args=[bucket.pk])
