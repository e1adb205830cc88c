"""What the list of buckets can be narrowed down by."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any

from django.contrib import admin

from buckets import selectors
from buckets.models import Bucket, Credential
from scanning.core.remedies import remedy_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.contrib.admin.views.main import ChangeList
    from django.db.models import QuerySet
    from django.http import HttpRequest


class StateFilter(admin.SimpleListFilter):
    """How many buckets are in each state, and those of one."""

    title = "state"
    parameter_name = "state"
    template = "admin/buckets/bucket/state_filter.html"

    def __init__(self, *args: Any) -> None:
        self._late = selectors.late_buckets()
        super().__init__(*args)

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state.name.lower(), state.value) for state in selectors.WORST_FIRST]

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        counts = selectors.state_counts(late=self._late)
        everything, *states = super().choices(changelist)
        yield {**everything, "count": sum(counts.values())}
        for choice, state in zip(states, selectors.WORST_FIRST, strict=True):
            if state is selectors.State.LOST and not counts[state] and not choice["selected"]:
                continue  # so rare that it would only raise questions
            yield {**choice, "count": counts[state], "symbol": state.name.lower()}

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        name = (self.value() or "").upper()
        if name not in selectors.State.__members__:
            return queryset
        return selectors.in_state(queryset, selectors.State[name], late=self._late)


class ErrorFilter(admin.SimpleListFilter):
    """Buckets that fail alike; only offered while there are any."""

    title = "error"
    parameter_name = "error"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        failing = Bucket.objects.exclude(last_error_class="").order_by()
        found = failing.values_list("last_error_class", flat=True).distinct()
        return sorted(((name, remedy_for(name).meaning) for name in found), key=itemgetter(1))

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(last_error_class=self.value()) if self.value() else queryset


class NotificationsFilter(admin.SimpleListFilter):
    title = "notifications"
    parameter_name = "notifications"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("on", "on"), ("off", "off")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() not in {"on", "off"}:
            return queryset
        return queryset.filter(notifications_enabled=self.value() == "on")


class CredentialFilter(admin.SimpleListFilter):
    """Credentials that were stored to be shared: those that came with a bucket would be as many."""

    title = "credential"
    parameter_name = "credential"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        shared = Credential.objects.filter(came_with_bucket=False).values_list("name", flat=True)
        chosen = request.GET.get(self.parameter_name)
        return [(name, name) for name in sorted({*shared, *([chosen] if chosen else [])})]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(credential__name=self.value()) if self.value() else queryset
