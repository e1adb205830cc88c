"""What stands before Django's own middleware."""

from __future__ import annotations

from typing import TYPE_CHECKING

from buckets.api.probes import PROBES

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest, HttpResponse


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
