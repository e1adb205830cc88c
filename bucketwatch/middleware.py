"""What stands before Django's own middleware."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from django.conf import settings
from django.http import HttpResponseRedirect

from buckets.accounts import second_factor
from buckets.api.probes import PROBES
from scanning import engine

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponse


class OneWaitForRedis:
    """Keep nobody waiting twice in one request for a Redis that hangs."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        with engine.one_wait():
            return self.get_response(request)


class ProbesFirst:
    """Answer the probes before anything looks at Host, session or CSRF cookie.

    Kubernetes and Prometheus ask a pod by its address, which nobody can list in ALLOWED_HOSTS;
    what the probes answer does not depend on it.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        view = PROBES.get(request.path_info.strip("/"))
        return view(request) if view else self.get_response(request)


class ClientAddress:
    """Put the client's own address into ``REMOTE_ADDR`` where proxies stand in front.

    Each proxy appends to X-Forwarded-For whom it was asked by, so that only as many entries from
    the right as there are trusted proxies are their word; whatever stands before is the client's.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if (proxies := settings.SITE.trusted_proxies) and (address := _forwarded(request, proxies)):
            request.META["REMOTE_ADDR"] = address
        return self.get_response(request)


def _forwarded(request: HttpRequest, proxies: int) -> str | None:
    """Read the address that asked the outermost proxy; None if the header does not say."""
    hops = request.headers.get("X-Forwarded-For", "").split(",")
    if len(hops) < proxies:  # it came around some of them
        return None
    try:
        return str(ip_address(hops[-proxies].strip()))
    except ValueError:
        return None


class SecondFactorFirst:
    """Show nothing to somebody who has given his password and still owes the second factor."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if second_factor.is_owed(request):
            return HttpResponseRedirect(second_factor.page_url(request))
        return self.get_response(request)
