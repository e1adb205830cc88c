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
from buckets.api.errors import DATABASE_AWAY, method_not_allowed
from buckets.api.metrics import metrics
from scanning import engine, wiring
from scanning.runtime.database import UNMIGRATED, is_unmigrated

if TYPE_CHECKING:
    from collections.abc import Callable

    Probe = Callable[[HttpRequest], HttpResponse]

log = logging.getLogger(__name__)

NO_WEBHOOK = (
    "Buckets are watched and none has a webhook URL: enter one, or set READY_REQUIRE_WEBHOOK=false "
    "if this site needs none."
)


def _probe(view: Probe) -> Probe:
    @wraps(view)
    def answer(request: HttpRequest) -> HttpResponse:
        if request.method in {"GET", "HEAD"}:
            response = view(request)
        else:
            response = method_not_allowed(request)
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

    Sentinel's silence alone does not count, as Redis is then reached directly, and warnings of
    what Redis may lose do not either.
    """
    redis = engine.redis_health()
    database, webhook = _database_and_webhook()
    checks = {
        "database": database,
        "redis": redis.problem,
        "sentinel": redis.sentinel_problem or ("" if redis.sentinel == "ok" else redis.sentinel),
        "webhook": webhook,
    }
    is_ready = redis.redis == "ok" and not webhook
    body = {
        "status": "ready" if is_ready else "not_ready",
        "redis": redis.redis,
        "sentinel": redis.sentinel,
        "webhook": "missing" if webhook else "ok",
        "checks": {check: problem or "ok" for check, problem in checks.items()},
        "warnings": list(map(str, redis.warnings)),
    }
    # The documented members have no place for this reason.
    error = {"error": database} if database else {}
    return JsonResponse(body | error, status=200 if is_ready else 503)


def _database_and_webhook() -> tuple[str, str]:
    """Say what is wrong with the database, and with webhooks; "" if nothing is."""
    try:
        is_missing = selectors.lacks_webhook()
    except DatabaseError as exc:
        log.warning("/ready: the database failed: %s", exc)
        problem = UNMIGRATED if is_unmigrated(exc) else DATABASE_AWAY
        return problem, problem
    return "", NO_WEBHOOK if is_missing and wiring.conf().ready.require_webhook else ""


PROBES: dict[str, Probe] = {"health": health, "ready": ready, "metrics": _probe(metrics)}
