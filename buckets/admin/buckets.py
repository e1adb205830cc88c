from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin, messages
from django.template.defaultfilters import truncatechars

from buckets import forms, selectors, services
from buckets.admin.base import ServiceAdmin, actor, ago
from buckets.models import Bucket
from scanning.core.errors import RedisUnavailable

if TYPE_CHECKING:
    from django.db.models import Model, QuerySet
    from django.http import HttpRequest

REDIS_AWAY = (
    "The change is saved; Redis is not reachable, and the change will reach the scanner by itself."
)


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state.name.lower(), state.value) for state in selectors.State]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        name = (self.value() or "").upper()
        if name not in selectors.State.__members__:
            return queryset
        return selectors.in_state(queryset, selectors.State[name])


@admin.register(Bucket)
class BucketAdmin(ServiceAdmin):
    form = forms.BucketForm
    list_display = (
        "name",
        "region",
        "state",
        "last_scan",
        "object_count",
        "notifications_enabled",
        "error",
    )
    list_filter = (StateFilter, "notifications_enabled", "region")
    list_select_related = ("credential",)
    search_fields = ("name", "region", "endpoint", "webhook_url")
    search_help_text = "Search name, region, endpoint and webhook URL"
    list_per_page = 100
    actions = (
        "enable_notifications",
        "disable_notifications",
        "pause_monitoring",
        "resume_monitoring",
        "scan_now",
        "release_holds",
    )
    save_on_top = False

    STATUS: ClassVar[tuple[str, ...]] = (
        "state",
        "last_scan",
        "last_scan_duration_s",
        "last_lag_s",
        "object_count",
        "last_changes",
        "last_error",
        "last_error_at",
        "held",
        "configuration_in_redis",
    )
    SETTINGS: ClassVar[tuple[tuple[str | None, dict[str, Any]], ...]] = (
        (None, {"fields": ("name", "region", "endpoint")}),
        ("S3 keys", {"fields": ("credential", "access_key", "secret_key")}),
        (
            "Watching",
            {
                "fields": (
                    "polling_interval",
                    "monitoring_enabled",
                    "notifications_enabled",
                    "fetch_metadata",
                    "lanes",
                )
            },
        ),
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
        status = [("Status", {"fields": self.STATUS})] if obj else []
        return [*status, *self.SETTINGS]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        # A bucket cannot be renamed in S3 either: another name is another bucket.
        return (*self.STATUS, "name") if obj else ()

    @admin.display(description="state", ordering="monitoring_enabled")
    def state(self, bucket: Bucket) -> str:
        return selectors.state(bucket).value

    @admin.display(description="last scan", ordering="last_scan_at")
    def last_scan(self, bucket: Bucket) -> str:
        return ago(bucket.last_scan_at)

    @admin.display(description="last error", ordering="last_error", empty_value="")
    def error(self, bucket: Bucket) -> str:
        return truncatechars(bucket.last_error, 80)

    @admin.display(description="held deletions")
    def held(self, bucket: Bucket) -> str:
        if bucket.held_since is None:
            return "none"
        return (
            f"{bucket.held_missing} objects are gone since {ago(bucket.held_since)}: nothing is "
            "announced of them until you confirm it (action of the bucket list)"
        )

    @admin.display(description="configuration in Redis")
    def configuration_in_redis(self, bucket: Bucket) -> str:
        waiting = selectors.is_waiting_for_redis(bucket.name)
        return "the last change has not arrived yet" if waiting else "up to date"

    def delete_model(self, request: HttpRequest, obj: Bucket) -> None:
        self.note_written(request, obj.name)
        services.delete_bucket(bucket=obj, by=actor(request))

    def note_written(self, request: HttpRequest, name: str) -> None:
        request.__dict__.setdefault("written_buckets", set()).add(name)

    def after_writing(self, request: HttpRequest) -> None:
        written = getattr(request, "written_buckets", ())
        if any(selectors.is_waiting_for_redis(name) for name in written):
            messages.warning(request, REDIS_AWAY)

    @admin.action(description="Enable notifications of selected buckets", permissions=["change"])
    def enable_notifications(self, request: HttpRequest, queryset: QuerySet[Bucket]) -> None:
        self._change_all(request, queryset, "notifications enabled", notifications_enabled=True)

    @admin.action(description="Disable notifications of selected buckets", permissions=["change"])
    def disable_notifications(self, request: HttpRequest, queryset: QuerySet[Bucket]) -> None:
        self._change_all(request, queryset, "notifications disabled", notifications_enabled=False)

    @admin.action(description="Pause monitoring of selected buckets", permissions=["change"])
    def pause_monitoring(self, request: HttpRequest, queryset: QuerySet[Bucket]) -> None:
        self._change_all(request, queryset, "monitoring paused", monitoring_enabled=False)

    @admin.action(description="Resume monitoring of selected buckets", permissions=["change"])
    def resume_monitoring(self, request: HttpRequest, queryset: QuerySet[Bucket]) -> None:
        self._change_all(request, queryset, "monitoring resumed", monitoring_enabled=True)

    @admin.action(description="Scan selected buckets now", permissions=["change"])
    def scan_now(self, request: HttpRequest, queryset: QuerySet[Bucket]) -> None:
        active = [bucket for bucket in queryset if bucket.monitoring_enabled]
        paused = len(queryset) - len(active)
        try:
            for bucket in active:
                services.scan_now(bucket=bucket, by=actor(request))
        except RedisUnavailable as exc:
            self.message_user(request, f"No scan was asked for: {exc}", messages.ERROR)
            return
        left_out = f"; {paused} paused: resume their monitoring first" if paused else ""
        self.message_user(
            request, f"{len(active)} will be scanned at once{left_out}.", messages.SUCCESS
        )

    @admin.action(description="Confirm held deletions of selected buckets", permissions=["change"])
    def release_holds(self, request: HttpRequest, queryset: QuerySet[Bucket]) -> None:
        held = [bucket for bucket in queryset if bucket.held_since]
        try:
            for bucket in held:
                services.release_hold(bucket=bucket, by=actor(request))
        except RedisUnavailable as exc:
            self.message_user(request, f"Nothing was confirmed: {exc}", messages.ERROR)
            return
        self.message_user(
            request,
            f"{len(held)} confirmed: the next scan announces the deletions.",
            messages.SUCCESS,
        )

    def _change_all(
        self, request: HttpRequest, queryset: QuerySet[Bucket], done: str, **changes: Any
    ) -> None:
        for bucket in queryset:
            services.update_bucket(bucket=bucket, by=actor(request), **changes)
            self.note_written(request, bucket.name)
        self.message_user(request, f"{len(queryset)} selected: {done}.", messages.SUCCESS)
