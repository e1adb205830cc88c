"""OpenAPI 3.1 of every route, made from the serializers and views that answer, and a page of it."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from csp.constants import SELF
from csp.decorators import csp_update
from django.utils.decorators import method_decorator
from django.views.decorators.csrf import csrf_exempt
from django.views.generic import TemplateView
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.generators import SchemaGenerator
from rest_framework.response import Response
from rest_framework.views import APIView

from buckets.api.errors import method_not_allowed
from buckets.api.fields import Strict
from buckets.api.openapi.probe_paths import PLAIN_PATHS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.http import HttpRequest, HttpResponse
    from rest_framework.request import Request

_WITH_A_SLASH = "/api/v1/"
_KEY_PAIR = frozenset({"access_key", "secret_key"})  # one half alone is refused


class TokenScheme(OpenApiAuthenticationExtension):
    target_class = "buckets.api.auth.ApiClientAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "From `POST /api/auth/token`. A client of scope `read` may only GET, "
            "one of scope `hint` only give hints.",
        }


class ClientSecretScheme(OpenApiAuthenticationExtension):
    target_class = "buckets.api.auth.ClientSecretAuthentication"
    name = "clientSecret"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {
            "type": "http",
            "scheme": "basic",
            "description": "Id and secret of an API client, for S3 servers that send hints.",
        }


def name_paths(endpoints: list[Any]) -> list[Any]:
    """Name the documented routes without a slash at their end, as their documentation does."""
    return [
        (path if path.startswith(_WITH_A_SLASH) else path.rstrip("/"), *rest)
        for path, *rest in endpoints
    ]


def finish(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Add what the generator cannot know; drop what only the generator reads."""
    result["paths"] |= PLAIN_PATHS
    schemas = result["components"]["schemas"]
    for kind in _kinds_of(Strict):
        if described := schemas.get(kind.__name__):
            described["additionalProperties"] = False
    for described in schemas.values():
        if halves := _KEY_PAIR & described.get("properties", {}).keys():
            described["dependentRequired"] = {half: sorted(_KEY_PAIR - {half}) for half in halves}
    _drop(result, "x-spec-enum-id")
    return result


def _kinds_of(kind: type) -> Iterator[type]:
    for child in kind.__subclasses__():
        yield child
        yield from _kinds_of(child)


def _drop(node: Any, name: str) -> None:
    if isinstance(node, dict):
        node.pop(name, None)
        node = list(node.values())
    if isinstance(node, list):
        for inner in node:
            _drop(inner, name)


@cache
def document() -> dict[str, Any]:
    """Describe all routes; once per process, because routes do not change."""
    described: dict[str, Any] = SchemaGenerator().get_schema(public=True)
    return described


class Schema(APIView):
    authentication_classes = ()
    permission_classes = ()
    schema = None  # described with the other plain ones

    def get(self, request: Request) -> Response:
        return Response(document())


# Other methods are refused as what they are, not for the cookie that they lack.
@method_decorator(csrf_exempt, name="dispatch")
# Swagger UI's style sheet holds its icons itself.
@method_decorator(csp_update({"img-src": [SELF, "data:"]}), name="dispatch")
class ApiDocsPage(TemplateView):
    """Swagger UI from our own static files: no CDN, no inline script."""

    template_name = "buckets/api_docs.html"
    http_method_names = ("get", "head")

    def http_method_not_allowed(self, request: HttpRequest, *_: Any, **__: Any) -> HttpResponse:
        return method_not_allowed(request)
