"""What the pages of all models share: writing through services, and saying what those refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.forms import Media
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect

from buckets import selectors, services
from buckets.admin import forms
from scanning.core.errors import ConfigurationError, TransientError, VaultRefused

if TYPE_CHECKING:
    from django.db.models import Model, QuerySet
    from django.forms import ModelForm

    ModelAdmin = admin.ModelAdmin[Any]
else:  # generic for type checkers only
    ModelAdmin = admin.ModelAdmin

VAULT_WAITS = "It is deleted; what the vault still holds of it is removed by itself."
REFUSALS = (
    ValidationError,
    services.BucketExists,
    TransientError,
    ConfigurationError,
    VaultRefused,
)


def actor(request: HttpRequest) -> services.Actor:
    return cast("services.Actor", request.user)


class LightPages(ModelAdmin):
    """Pages without the scripts for slugs, a quarter of a megabyte that nobody here needs."""

    @property
    def media(self) -> Media:
        names = ("vendor/jquery/jquery.min", "jquery.init", "core", "admin/RelatedObjectLookups")
        return Media(js=[f"admin/js/{name}.js" for name in (*names, "actions")])

    def get_action_choices(self, request: HttpRequest, *_: Any) -> list[tuple[str, str]]:
        return super().get_action_choices(request, [("", "Choose an action")])


class ServiceAdmin(LightPages):
    """Writes through the form's service, and shows what a service refused at its field."""

    SECRET_FIELDS: ClassVar[tuple[str, ...]] = ()

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        try:
            # Django's own view wraps all of it in a transaction: nobody else could write while the
            # vault takes its time. Each service has a transaction of its own.
            view: Any = self._changeform_view  # type: ignore[attr-defined]
            response: HttpResponse = view(request, object_id, form_url, extra_context)
        except REFUSALS as exc:
            # Nothing was written. The same again, with the reasons: nothing typed is lost.
            request.refused = forms.refusals(exc)  # type: ignore[attr-defined]
            return super().changeform_view(request, object_id, form_url, extra_context)
        self.after_writing(request)
        return response

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        try:
            response = super().delete_view(request, object_id, extra_context)
        except REFUSALS as exc:
            return self._say_no(request, exc)
        self._after_deleting(request)
        return response

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        try:
            response = super().changelist_view(request, extra_context)
        except REFUSALS as exc:
            if request.method != "POST":
                raise
            return self._say_no(request, exc)
        self._after_deleting(request)
        return response

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        """Let nobody guess what no page shows, letter by letter, by whether a row is listed."""
        is_secret = lookup.startswith(self.SECRET_FIELDS)
        return not is_secret and super().lookup_allowed(lookup, value, request)

    def get_form(
        self, request: HttpRequest, obj: Model | None = None, change: bool = False, **kwargs: Any
    ) -> type[ModelForm[Any]]:
        form = super().get_form(request, obj, change=change, **kwargs)
        form.refused = getattr(request, "refused", {})  # type: ignore[attr-defined]
        return form

    def save_form(self, request: HttpRequest, form: Any, change: bool) -> Model:
        """Write; the row that comes back is stored, so ``save_model`` has nothing left to do."""
        row: Model = form.write(by=actor(request))
        form.instance = row
        self.note_written(request, str(row))
        return row

    def save_model(self, request: HttpRequest, obj: Model, form: Any, change: bool) -> None:
        pass

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        pass

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        for row in queryset:
            self.delete_model(request, row)

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Leave it to the services, which log whoever changes something."""

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        pass

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        pass

    def note_written(self, request: HttpRequest, name: str) -> None:
        """Remember what this request wrote; ``after_writing`` is called once that is committed."""

    def after_writing(self, request: HttpRequest) -> None:
        pass

    def _after_deleting(self, request: HttpRequest) -> None:
        self.after_writing(request)
        if request.method == "POST" and selectors.vault_removals_wait():
            messages.warning(request, VAULT_WAITS)

    def _say_no(self, request: HttpRequest, exc: Exception) -> HttpResponse:
        for field, texts in forms.refusals(exc).items():
            for text in texts:
                about = "" if field == "__all__" else f"{field}: "
                messages.error(request, about + text)
        return HttpResponseRedirect(request.get_full_path().replace("/delete/", "/change/"))
