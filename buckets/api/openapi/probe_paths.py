"""The routes that are no REST framework views, as OpenAPI path items."""

from __future__ import annotations

from typing import Any

_Schema = dict[str, Any]


def _answer(description: str, schema: _Schema, example: Any = None) -> _Schema:
    content: _Schema = {"schema": schema}
    if example is not None:
        content["example"] = example
    return {"description": description, "content": {"application/json": content}}


def _get(operation_id: str, summary: str, tag: str, responses: _Schema) -> _Schema:
    operation = {"operationId": operation_id, "summary": summary, "tags": [tag], "security": [{}]}
    return {"get": operation | {"responses": responses}}


def _object(**properties: _Schema) -> _Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _one_of(*values: str) -> _Schema:
    return {"type": "string", "enum": list(values)}


_ERROR = {"$ref": "#/components/schemas/Error"}
_ANY_OBJECT: _Schema = {"type": "object", "additionalProperties": True}

_TEXT: _Schema = {"type": "string"}
_READINESS = _object(
    status=_one_of("ready", "not_ready"),
    redis=_one_of("ok", "error"),
    sentinel=_one_of("ok", "error", "disabled"),
    webhook=_one_of("ok", "missing"),
    checks={
        **_object(database=_TEXT, redis=_TEXT, sentinel=_TEXT, webhook=_TEXT),
        "description": "Of each, ok, or what is wrong and which setting to look at.",
    },
    warnings={
        "type": "array",
        "items": _TEXT,
        "description": "What Redis may lose, and which setting changes that.",
    },
)
_READINESS["properties"]["error"] = {
    "type": "string",
    "description": "Only while the database does not answer.",
}
_READY: _Schema = {
    "status": "ready",
    "redis": "ok",
    "sentinel": "disabled",
    "webhook": "ok",
    "checks": {"database": "ok", "redis": "ok", "sentinel": "disabled", "webhook": "ok"},
    "warnings": [],
}
_NO_WEBHOOK = {
    "status": "not_ready",
    "webhook": "missing",
    "checks": {**_READY["checks"], "webhook": "Buckets are watched and none has a webhook URL: …"},
}
_SECTIONS = ("scan_stats", "client_cache", "redis", "sentinel", "buckets")

PLAIN_PATHS: dict[str, Any] = {
    "/health": _get(
        "health",
        "Whether this process answers",
        "probes",
        {"200": _answer("It does.", _object(status=_one_of("ok")), {"status": "ok"})},
    ),
    "/ready": _get(
        "ready",
        "Whether this process can do its work",
        "probes",
        {
            "200": _answer("It can.", _READINESS, _READY),
            "503": _answer(
                "Redis, the database, or every bucket's webhook is missing.",
                _READINESS,
                _READY | _NO_WEBHOOK,
            ),
        },
    ),
    "/metrics": _get(
        "metrics",
        "Counters of all processes, as JSON or as `?format=` or `Accept` asks for them",
        "probes",
        {
            "200": {
                "description": "The documented sections, or the metrics as text.",
                "content": {
                    "application/json": {
                        "schema": _object(**dict.fromkeys(_SECTIONS, _ANY_OBJECT))
                    },
                    "text/plain": {"schema": _TEXT},
                    "application/openmetrics-text": {"schema": _TEXT},
                },
            },
            "400": _answer("There is no such format.", _ERROR),
            "401": _answer("METRICS_TOKEN is set, and this is not it.", _ERROR),
            "403": _answer("METRICS_NETWORKS is set, and the address is in none.", _ERROR),
            "503": _answer("Redis does not answer, and JSON was asked for.", _ERROR),
        },
    ),
    "/api/schema": _get(
        "schema",
        "This description, OpenAPI 3.1",
        "about",
        {"200": _answer("OpenAPI 3.1.", _ANY_OBJECT)},
    ),
    "/api/docs": _get(
        "docs",
        "This description as a page",
        "about",
        {
            "200": {
                "description": "Swagger UI, from this host alone.",
                "content": {"text/html": {"schema": _TEXT}},
            }
        },
    ),
}
