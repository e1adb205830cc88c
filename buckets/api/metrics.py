"""/metrics: the documented JSON, or what Prometheus reads (`docs/metrics.md`)."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, Literal

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.crypto import constant_time_compare

from buckets.api.errors import error_body
from scanning import engine
from scanning.core.addresses import networks_in
from scanning.core.errors import RedisUnavailable

if TYPE_CHECKING:
    Form = Literal["json", "prometheus", "openmetrics"]

FORMS: Final[dict[str, Form]] = {
    "json": "json",
    "prometheus": "prometheus",
    "openmetrics": "openmetrics",
}
_BY_TYPE: Final[dict[str, Form]] = {
    "application/json": "json",
    "application/*": "json",
    "*/*": "json",
    "text/plain": "prometheus",
    "application/openmetrics-text": "openmetrics",
}


def metrics(request: HttpRequest) -> HttpResponse:
    """Answer in the format that ``?format=`` or ``Accept`` asks for; asks Redis only."""
    refusal = _refusal(request)
    if refusal is not None:
        return refusal
    named = request.GET.get("format")
    form = FORMS.get(named) if named else _accepted(request)
    if form is None:
        error = f"format: one of {', '.join(FORMS)}."
        return JsonResponse(error_body(error, {"format": [error]}), status=400)
    if form != "json":
        text, content_type = engine.metrics_text(form)
        return HttpResponse(text, content_type=content_type)
    try:
        return JsonResponse(engine.metrics())
    except RedisUnavailable as exc:
        return JsonResponse(error_body(str(exc)), status=503)


def _accepted(request: HttpRequest) -> Form:
    """Choose the format that the client accepts best; JSON if it accepts none of ours."""
    for accepted in request.accepted_types:
        form = _BY_TYPE.get(f"{accepted.main_type}/{accepted.sub_type}".lower())
        if form:
            return form
    return "json"


def _refusal(request: HttpRequest) -> HttpResponse | None:
    """Refuse a client that may not read the metrics; None if it may (the default)."""
    site = settings.SITE
    if site.metrics_networks and not _is_in(request.META["REMOTE_ADDR"], site.metrics_networks):
        error = "This address may not read the metrics: METRICS_NETWORKS does not name it."
        return JsonResponse(error_body(error), status=403)
    if site.metrics_token is None:
        return None
    token = site.metrics_token.get_secret_value()
    if constant_time_compare(request.headers.get("Authorization", ""), f"Bearer {token}"):
        return None
    error = "Send the header 'Authorization: Bearer TOKEN', with the token in METRICS_TOKEN."
    return JsonResponse(error_body(error), status=401, headers={"WWW-Authenticate": "Bearer"})


def _is_in(address: str, networks: str) -> bool:
    try:
        client = ip_address(address)
    except ValueError:  # over a Unix socket there is none
        return False
    client = getattr(client, "ipv4_mapped", None) or client
    return any(client in network for network in networks_in(networks))
