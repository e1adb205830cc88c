"""The list of buckets: its columns, what Redis knows of those on one page, and the actions."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.urls import reverse
from django.utils.html import format_html

from buckets import selectors, services
from buckets.admin import confirmations
from buckets.admin.base import ServiceAdmin, actor
from buckets.admin.bucket_filters import (
    CredentialFilter,
    ErrorFilter,
    NotificationsFilter,
    StateFilter,
)
from buckets.formatting import format_number
from buckets.models import Bucket
from buckets.pages import badges
from buckets.pages.bucket import next_scan_in_words
from scanning import engine
from scanning.core.errors import RedisUnavailable
from scanning.core.holds import Release
from scanning.core.remedies import remedy_for

if TYPE_CHECKING:
    from django.db.models import Model, QuerySet
    from django.http import HttpRequest, HttpResponse

    from scanning.core.metrics.telemetry import NextScan


class BucketList(ChangeList):
    """Django's list; each bucket of the page gets a ``next_scan`` and its ``events_today``."""

    redis_problem = ""

    def url_for_result(self, result: Model) -> str:
        return reverse("admin:buckets_bucket_overview", args=[result.pk])

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        rows: list[Bucket] = list(self.result_list)
        self.result_list = rows
        try:
            next_scans = engine.next_scans({row.name: row.region for row in rows})
            events = engine.events_today(row.name for row in rows)
        except RedisUnavailable as exc:
            self.redis_problem = str(exc)
            return
        for row in rows:
            vars(row).update(next_scan=next_scans[row.name], events_today=events[row.name])


NOT_IN_REDIS_YET = "The change is saved, and not in Redis yet: it will reach the scanner by itself."


def state_of(bucket: Bucket) -> selectors.State:
    next_scan: NextScan | None = getattr(bucket, "next_scan", None)
    is_late = next_scan is not None and next_scan.is_late(now=time.time())
    return selectors.state(bucket, late=is_late)


def next_scan_of(bucket: Bucket) -> str:
    """Say when a row of `BucketList` is scanned next."""
    return next_scan_in_words(bucket, getattr(bucket, "next_scan", None))


class ListedBuckets(ServiceAdmin):
    """The columns of the list, and what can be done to several buckets."""

    list_display = (
        "names",
        "state",
        "place",
        "objects",
        "last_scan",
        "next_scan",
        "events_today",
        "notify",
        "error",
    )
    list_filter = (
        StateFilter,
        ErrorFilter,
        "region",
        CredentialFilter,
        NotificationsFilter,
    )
    search_fields = ("name", "bucket_name", "region", "endpoint", "webhook_url", "credential__name")
    search_help_text = "Name, region, endpoint, webhook or credential"
    list_per_page = 100
    show_full_result_count = False
    actions = (
        "scan_now",
        "enable_notifications",
        "disable_notifications",
        "pause_monitoring",
        "resume_monitoring",
        "release_holds",
        "announce_updates",
        "take_times",
        "announce_after_loss",
        "remember_after_loss",
        "rebaseline",
        "delete_buckets",
    )

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[BucketList]:
        return BucketList

    @admin.display(description="name", ordering="name")
    def names(self, bucket: Bucket) -> str:
        if not bucket.bucket_name:
            return bucket.name
        return format_html('{} <span class="quiet">{}</span>', bucket.name, bucket.bucket_name)

    @admin.display(description="state", ordering=selectors.worst_first())
    def state(self, bucket: Bucket) -> str:
        return badges.state(state_of(bucket))

    @admin.display(description="region", ordering="region")
    def place(self, bucket: Bucket) -> str:
        return bucket.region

    @admin.display(description="objects", ordering="object_count")
    def objects(self, bucket: Bucket) -> str:
        return format_number(bucket.object_count)

    @admin.display(description="last scan", ordering="last_scan_at")
    def last_scan(self, bucket: Bucket) -> str:
        return badges.moment(bucket.last_scan_at)

    @admin.display(description="next")
    def next_scan(self, bucket: Bucket) -> str:
        return next_scan_of(bucket)

    @admin.display(description="events today")
    def events_today(self, bucket: Bucket) -> str:
        return format_number(getattr(bucket, "events_today", None))

    @admin.display(description="notify", ordering="notifications_enabled")
    def notify(self, bucket: Bucket) -> str:
        return badges.badge(*(("on", "on") if bucket.notifications_enabled else ("off", "off")))

    @admin.display(description="last error", ordering="last_error", empty_value="")
    def error(self, bucket: Bucket) -> str:
        if not bucket.last_error_class:
            return ""
        return format_html(
            '<span title="{}">{}</span>',
            bucket.last_error,
            remedy_for(bucket.last_error_class).meaning,
        )

    def delete_model(self, request: HttpRequest, obj: Bucket) -> None:
        self.note_written(request, obj.name)
        services.delete_bucket(bucket=obj, by=actor(request))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Bucket]) -> None:
        self._note_all_written(request, queryset)
        services.delete_buckets(buckets=queryset, by=actor(request))

    def note_written(self, request: HttpRequest, name: str) -> None:
        request.__dict__.setdefault("written_buckets", set()).add(name)

    def after_writing(self, request: HttpRequest) -> None:
        if selectors.any_waits_for_redis(getattr(request, "written_buckets", ())):
            messages.warning(request, NOT_IN_REDIS_YET)

    @admin.action(description="Scan now", permissions=["change"])
    def scan_now(self, request: HttpRequest, queryset: QuerySet[Bucket]) -> None:
        try:
            scheduled = services.scan_all_now(buckets=queryset, by=actor(request))
        except RedisUnavailable as exc:
            self.message_user(request, f"No scan was asked for: {exc}", messages.ERROR)
            return
        paused = len(queryset) - scheduled
        left_out = f"; {paused:,} paused" if paused else ""
        done = f"{scheduled:,} due now: scanned as soon as a worker is free{left_out}."
        self.message_user(request, done, messages.SUCCESS)

    @admin.action(description="Turn notifications on", permissions=["change"])
    def enable_notifications(self, request: HttpRequest, queryset: QuerySet[Bucket]) -> None:
        self._change_all(request, queryset, "notifications on", notifications_enabled=True)

    @admin.action(description="Turn notifications off", permissions=["change"])
    def disable_notifications(self, request: HttpRequest, queryset: QuerySet[Bucket]) -> None:
        self._change_all(request, queryset, "notifications off", notifications_enabled=False)

    @admin.action(description="Pause", permissions=["change"])
    def pause_monitoring(self, request: HttpRequest, queryset: QuerySet[Bucket]) -> None:
        self._change_all(request, queryset, "paused", monitoring_enabled=False)

    @admin.action(description="Resume", permissions=["change"])
    def resume_monitoring(self, request: HttpRequest, queryset: QuerySet[Bucket]) -> None:
        self._change_all(request, queryset, "resumed", monitoring_enabled=True)

    @admin.action(description="Release holds: announce the deletions …", permissions=["change"])
    def release_holds(
        self, request: HttpRequest, queryset: QuerySet[Bucket]
    ) -> HttpResponse | None:
        held = queryset.filter(held_since__isnull=False)
        if not held:
            self.message_user(request, "None of them holds deletions.", messages.WARNING)
            return None
        done = "the next scan announces the deletions."
        choice = Release.ANNOUNCE_DELETIONS
        return self._release(request, held, confirmations.RELEASE, choice, done)

    @admin.action(description="Release holds: announce the updates …", permissions=["change"])
    def announce_updates(
        self, request: HttpRequest, queryset: QuerySet[Bucket]
    ) -> HttpResponse | None:
        done = "the next scan announces the updates."
        choice = Release.ANNOUNCE_UPDATES
        return self._release_times(request, queryset, confirmations.ANNOUNCE_UPDATES, choice, done)

    @admin.action(
        description="Release holds: take the new times silently …", permissions=["change"]
    )
    def take_times(self, request: HttpRequest, queryset: QuerySet[Bucket]) -> HttpResponse | None:
        done = "the next scan takes the new times, and announces nothing of them."
        choice = Release.TAKE_TIMES
        return self._release_times(request, queryset, confirmations.TAKE_TIMES, choice, done)

    def _release_times(
        self,
        request: HttpRequest,
        queryset: QuerySet[Bucket],
        question: confirmations.Question,
        choice: Release,
        done: str,
    ) -> HttpResponse | None:
        held = queryset.filter(held_moved_since__isnull=False)
        if not held:
            self.message_user(request, "None of them holds moved times.", messages.WARNING)
            return None
        return self._release(request, held, question, choice, done)

    def _release(
        self,
        request: HttpRequest,
        held: QuerySet[Bucket],
        question: confirmations.Question,
        choice: Release,
        done: str,
    ) -> HttpResponse | None:
        if not confirmations.is_confirmed(request):
            return confirmations.page(request, self, held, question)
        try:
            services.release_holds(buckets=held, choice=choice, by=actor(request))
        except RedisUnavailable as exc:
            self.message_user(request, f"Nothing was released: {exc}", messages.ERROR)
            return None
        self.message_user(request, f"{len(held):,} released: {done}", messages.SUCCESS)
        return None

    @admin.action(description="Start over silently (new baseline) …", permissions=["change"])
    def rebaseline(self, request: HttpRequest, queryset: QuerySet[Bucket]) -> HttpResponse | None:
        if not confirmations.is_confirmed(request):
            return confirmations.page(request, self, queryset, confirmations.REBASELINE)
        services.rebaseline_all(buckets=queryset, by=actor(request))
        self._note_all_written(request, queryset)
        done = f"{len(queryset):,} start over: the next scan only remembers what is there."
        self.message_user(request, done, messages.SUCCESS)
        return None

    @admin.action(description="Delete …", permissions=["delete"])
    def delete_buckets(
        self, request: HttpRequest, queryset: QuerySet[Bucket]
    ) -> HttpResponse | None:
        if not confirmations.is_confirmed(request):
            return confirmations.page(request, self, queryset, confirmations.DELETE)
        number = len(queryset)
        self.delete_queryset(request, queryset)
        self.message_user(request, f"{number:,} deleted.", messages.SUCCESS)
        return None

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        actions: dict[str, Any] = super().get_actions(request)
        actions.pop("delete_selected", None)  # ours also takes thousands
        return actions

    @admin.action(description="Announce what Redis forgot …", permissions=["change"])
    def announce_after_loss(
        self, request: HttpRequest, queryset: QuerySet[Bucket]
    ) -> HttpResponse | None:
        if not confirmations.is_confirmed(request):
            return confirmations.page(request, self, queryset, confirmations.ANNOUNCE_LOST)
        self._resume_after_loss(request, queryset, Bucket.FirstScan.ANNOUNCE)
        return None

    @admin.action(description="Only remember what Redis forgot …", permissions=["change"])
    def remember_after_loss(
        self, request: HttpRequest, queryset: QuerySet[Bucket]
    ) -> HttpResponse | None:
        if not confirmations.is_confirmed(request):
            return confirmations.page(request, self, queryset, confirmations.REMEMBER_LOST)
        self._resume_after_loss(request, queryset, Bucket.FirstScan.BASELINE)
        return None

    def _resume_after_loss(
        self, request: HttpRequest, queryset: QuerySet[Bucket], choice: Bucket.FirstScan
    ) -> None:
        names = services.resume_after_loss(buckets=list(queryset), choice=choice, by=actor(request))
        for name in names:
            self.note_written(request, name)
        others = len(queryset) - len(names)
        left_out = f"; {others:,} were not forgotten" if others else ""
        done = f"{len(names):,} go on: the next scan will {choice.label}{left_out}."
        self.message_user(request, done, messages.SUCCESS)

    def _change_all(
        self, request: HttpRequest, queryset: QuerySet[Bucket], done: str, **switches: bool
    ) -> None:
        services.switch_buckets(buckets=queryset, by=actor(request), **switches)
        self._note_all_written(request, queryset)
        self.message_user(request, f"{len(queryset):,} selected: {done}.", messages.SUCCESS)

    def _note_all_written(self, request: HttpRequest, queryset: QuerySet[Bucket]) -> None:
        for bucket in queryset:
            self.note_written(request, bucket.name)
