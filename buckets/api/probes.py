"""What balancers, Kubernetes and monitoring ask for: /health, /ready and /metrics.

Plain functions: they answer before any middleware (``bucketwatch.middleware``).
"""

from __future__ import annotations

import logging
from functools import wraps
from typing import TYPE_CHECKING

from django.db import Error as DatabaseError
from django.http import HttpRequest, HttpResponse, JsonResponse

from buckets import selectors
from buckets.api.errors import DATABASE_AWAY, error_body
from scanning import wiring
from scanning.core.errors import RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    Probe = Callable[[HttpRequest], HttpResponse]

log = logging.getLogger(__name__)


def _probe(view: Probe) -> Probe:
    @wraps(view)
    def answer(request: HttpRequest) -> HttpResponse:
        if request.method in {"GET", "HEAD"}:
            response = view(request)
        else:
            error = f"{request.method} is not allowed here: use GET."
            response = JsonResponse(error_body(error), status=405, headers={"Allow": "GET, HEAD"})
        response["Cache-Control"] = "no-store"
        return response

    return answer


@_probe
def health(request: HttpRequest) -> HttpResponse:
    """Say that this process answers; asks neither the database nor Redis."""
    return JsonResponse({"status": "ok"})


@_probe
def ready(request: HttpRequest) -> HttpResponse:
    """Say whether Redis and the database answer, and whether any bucket has a webhook.

    Sentinel's silence alone does not count: Redis is then reached directly.
    """
    redis = wiring.redis_health()
    error = {}
    try:
        webhook = _webhook()
    except DatabaseError as exc:
        log.warning("/ready: the database failed: %s", exc)
        # The documented members have no place for this reason.
        webhook, error = "missing", {"error": DATABASE_AWAY}
    is_ready = redis.redis == "ok" and webhook == "ok"
    body = {
        "status": "ready" if is_ready else "not_ready",
        "redis": redis.redis,
        "sentinel": redis.sentinel,
        "webhook": webhook,
    }
    return JsonResponse(body | error, status=200 if is_ready else 503)


def _webhook() -> str:
    # The database is asked in any case: without it this process is not ready.
    is_missing = selectors.lacks_webhook()
    return "missing" if is_missing and wiring.conf().ready.require_webhook else "ok"


@_probe
def metrics(request: HttpRequest) -> HttpResponse:
    """The documented JSON, whatever ``Accept`` says; asks Redis only."""
    try:
        return JsonResponse(wiring.metrics())
    except RedisUnavailable as exc:
        return JsonResponse(error_body(str(exc)), status=503)


PROBES: dict[str, Probe] = {"health": health, "ready": ready, "metrics": metrics}
