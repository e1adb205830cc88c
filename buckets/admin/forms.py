"""The admin's forms. They read what was typed; ``services`` decide what is right and write it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from django import forms
from django.contrib.admin import widgets as admin_widgets
from django.core.exceptions import ValidationError
from django.db.models import Model, Q
from django.utils.html import format_html, format_html_join

from buckets import services, validators
from buckets.models import ApiClient, Bucket, Credential, Endpoint
from buckets.pages import costs as costs_in_words
from scanning import wiring
from scanning.core.probing import AUTO
from scanning.core.providers import PROVIDERS
from scanning.core.request_costs import MOST_REQUESTS
from scanning.core.types import MOST_LANES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.utils.safestring import SafeString

M = TypeVar("M", bound=Model)

if TYPE_CHECKING:
    ModelForm = forms.ModelForm
else:

    class ModelForm(forms.ModelForm, Generic[M]):
        """Django's, generic for type checkers only."""


def secret_field(label: str, help_text: str = "") -> forms.CharField:
    """Make an input whose value is never sent back to the browser, not even after an error."""
    widget = forms.PasswordInput(render_value=False, attrs={"autocomplete": "new-password"})
    return forms.CharField(
        label=label, required=False, strip=False, widget=widget, help_text=help_text
    )


class ProviderInput(admin_widgets.AdminTextInputWidget):
    """A text input that offers the endpoints of providers; browsers do so without a script."""

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> SafeString:
        list_id = f"{name}-providers"
        offered = ((p.pattern, title) for title, p in PROVIDERS.items() if p.pattern)
        return format_html(
            '{}<datalist id="{}">{}</datalist>',
            super().render(name, value, {**(attrs or {}), "list": list_id}, renderer),
            list_id,
            format_html_join("", '<option value="{}">{}</option>', offered),
        )


class ServiceForm(ModelForm[M]):
    """A form that is written by a service function, and shown again with what that refused."""

    refused: ClassVar[Mapping[str, list[str]]] = {}

    def clean(self) -> dict[str, Any]:
        for field, messages in self.refused.items():
            for message in messages:
                self.add_error(field if field in self.fields else None, message)
        return self.cleaned_data

    def _post_clean(self) -> None:
        """Leave the row alone: the service validates what it is going to write."""

    def given(self, *fields: str) -> dict[str, Any]:
        return {field: self.cleaned_data.get(field, "") for field in fields}

    def changed(self, fields: frozenset[str]) -> dict[str, Any]:
        return {field: self.cleaned_data[field] for field in self.changed_data if field in fields}

    def write(self, *, by: services.Actor) -> M:
        """Write what the form says through a service; returns the row as stored."""
        raise NotImplementedError


class BucketForm(ServiceForm[Bucket]):
    access_key = secret_field("Access key")
    secret_key = secret_field("Secret key", "Kept in the vault, and never shown again.")
    webhook_client_secret = secret_field(
        "Webhook OAuth2 client secret",
        "Kept in the vault. On a change, leave it empty to keep the stored one.",
    )

    expected_objects = forms.IntegerField(
        label="Objects, about",
        required=False,
        min_value=0,
        max_value=MOST_REQUESTS,
        widget=admin_widgets.AdminBigIntegerFieldWidget,
        help_text="Only for the forecast below; not saved.",
    )

    SECRETS = ("access_key", "secret_key", "webhook_client_secret")
    NOT_SAVED = "expected_objects"
    # What the forecast goes by.
    FORECAST = (
        "region",
        "endpoint",
        "polling_interval",
        "polling_longest",
        "probe_interval",
        "fetch_metadata",
        "notifications_enabled",
        "requests_per_day",
        "expected_objects",
    )

    class Meta:
        model = Bucket
        fields = ["name", *Bucket.CHANGEABLE]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "credential" not in self.fields:  # somebody who may only look
            return
        defaults = wiring.conf()
        self.fields["polling_interval"].help_text = (
            "Seconds between the starts of two scans, 1 to 604,800 (7 days). Empty: the configured "
            f"default, {defaults.defaults.polling_interval} s."
        )
        longest_s = defaults.polling.longest
        self.fields["polling_longest"].help_text = (
            "Seconds that the interval may grow to while nothing changes: to an eighth of the time "
            "since the last change. A change that is found brings it back. 0: it does not grow. "
            f"Empty: the configured default, {f'{longest_s} s' if longest_s else '0'}."
        )
        probed = defaults.probe.interval
        self.fields["probe_interval"].help_text = (
            "Seconds between two probes, which ask for the bucket's totals and have it looked at "
            "when they move; 0: none. Empty: the configured default, "
            f"{probed if probed == AUTO else f'{probed} s'}."
        )
        self.fields["endpoint"].help_text = (
            "Host, host:port or http:// URL of the S3 server; in a provider's pattern {region} is "
            f"the region above. Empty: it is {defaults.defaults.region_endpoint}."
        )
        self.fields["endpoint"].widget = ProviderInput(attrs={"maxlength": 255})
        self.fields["lanes"].help_text = (
            f"Most listings at once in this bucket, 1 to {MOST_LANES}, if it is large. Empty: the "
            f"configured default, {defaults.scan.lanes}."
        )
        per_day = defaults.requests.per_day
        self.fields["requests_per_day"].help_text = (
            "A budget of requests (UTC): passes and probes that would exceed it come less often. "
            f"0: any number. Empty: the configured default, {f'{per_day:,}' if per_day else 'any'}."
        )
        most = defaults.scan.most_objects
        self.fields["most_objects"].help_text = (
            "How many objects may be known of this bucket, 0 for any number: others are left out, "
            f"and the bucket says so. Empty: the configured default, {most:,}."
        )
        credential = cast("forms.ModelChoiceField[Credential]", self.fields["credential"])
        # Those that came with a bucket may be thousands, and are seldom meant for another one.
        credential.queryset = Credential.objects.filter(
            Q(came_with_bucket=False) | Q(pk=self.instance.credential_id)
        )
        if not self.instance.pk:
            credential.required = False
            credential.empty_label = "a key pair of its own"
            credential.help_text = (
                "One that is stored to be shared; or enter a key pair of the bucket's own below."
            )
        else:
            self.fields["access_key"].help_text = "Leave both empty to keep the stored keys."

    def _given(self) -> dict[str, Any]:
        return {k: v for k, v in self.cleaned_data.items() if k != self.NOT_SAVED}

    def test(self, *, by: services.Actor) -> services.ConnectionCheck:
        """List the bucket as this form has it. Raises ValidationError."""
        settings = {k: v for k, v in self._given().items() if k not in self.SECRETS}
        if self.instance.pk:
            settings = self.changed(services.CHANGEABLE)
        keys = self.given("access_key", "secret_key")
        return services.check_settings(bucket=self.instance, by=by, **keys, **settings)

    def forecast(self) -> str:
        """Say what the bucket would cost as this form has it, or what is wrong with the form."""
        if wrong := [text for name in self.FORECAST for text in self.errors.get(name, ())]:
            return str(wrong[0])
        given = {name: self.cleaned_data.get(name) for name in self.FORECAST}
        expected = given.pop(self.NOT_SAVED)
        bucket = Bucket(**given, name=self.instance.name or "")
        with suppress(ValidationError):  # then it has the prices that are configured
            bucket.endpoint = (
                validators.endpoint(bucket.endpoint, bucket.region)
                if bucket.endpoint
                else validators.endpoint_of(bucket.region)
            )
        others = {field.name for field in Bucket._meta.fields} - set(self.FORECAST)  # noqa: SLF001
        try:
            bucket.clean_fields(exclude=others)
        except ValidationError as exc:
            return exc.messages[0]
        objects = self.instance.object_count if expected is None else expected
        return costs_in_words.forecast_of(bucket, objects=objects)

    def write(self, *, by: services.Actor) -> Bucket:
        if not self.instance.pk:
            return services.add_bucket(**self._given(), by=by)
        return services.update_bucket(
            bucket=self.instance,
            by=by,
            **self.given(*self.SECRETS),
            **self.changed(services.CHANGEABLE),
        )


class CredentialForm(ServiceForm[Credential]):
    access_key = secret_field("Access key")
    secret_key = secret_field("Secret key", "Kept in the vault, and never shown again.")

    class Meta:
        model = Credential
        fields = ["name", "endpoint"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk and "access_key" in self.fields:
            self.fields["access_key"].help_text = (
                "Both halves, as the provider shows them; all buckets that use the credential get "
                "them at once. Empty: the stored keys stay."
            )

    @property
    def has_keys(self) -> bool:
        return bool(self.cleaned_data.get("access_key"))

    def write(self, *, by: services.Actor) -> Credential:
        given = self.given("endpoint", "access_key", "secret_key")
        if not self.instance.pk:
            return services.add_credential(name=self.cleaned_data["name"], **given, by=by)
        return services.update_credential(credential=self.instance, **given, by=by)


class EndpointForm(ServiceForm[Endpoint]):
    class Meta:
        model = Endpoint
        fields = list(Endpoint.CHANGEABLE)

    def write(self, *, by: services.Actor) -> Endpoint:
        changes = self.changed(frozenset(Endpoint.CHANGEABLE))
        return services.update_endpoint(endpoint=self.instance, by=by, **changes)


class ApiClientForm(ServiceForm[ApiClient]):
    # Shown once, on the page that answers the creation; never stored.
    new_secret = ""

    class Meta:
        model = ApiClient
        fields = ["name", "scope", "enabled"]

    def write(self, *, by: services.Actor) -> ApiClient:
        if not self.instance.pk:
            client, self.new_secret = services.create_api_client(
                **self.given("name", "scope"), by=by
            )
            return client
        return services.update_api_client(
            client=self.instance, **self.given("name", "scope", "enabled"), by=by
        )


def refusals(exc: Exception) -> dict[str, list[str]]:
    """Return a service's refusal as messages by field."""
    if isinstance(exc, services.BucketExists):
        return {"name": [str(exc)]}
    if isinstance(exc, ValidationError):
        return exc.message_dict if hasattr(exc, "error_dict") else {"__all__": exc.messages}
    return {"__all__": [f"Nothing was saved: {exc}"]}
