"""/api/v1/endpoints/: the S3 servers that buckets are at, and what they do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework.response import Response
from rest_framework.views import APIView

from buckets import services
from buckets.api import auth
from buckets.api.v1 import parsing, queries, requests, responses, schema
from buckets.pages import endpoint as endpoint_page

if TYPE_CHECKING:
    from rest_framework.request import Request


class Endpoints(APIView):
    @schema.LIST_ENDPOINTS
    def get(self, request: Request) -> Response:
        filters = parsing.query(requests.EndpointQuery, request)
        rows = queries.endpoints(filters)
        return Response(queries.page(request, rows, filters, responses.EndpointsAnswer))


class OneEndpoint(APIView):
    @schema.RETRIEVE_ENDPOINT
    def get(self, request: Request, name: str) -> Response:
        return Response(_shown(name))

    @schema.PATCH_ENDPOINT
    def patch(self, request: Request, name: str) -> Response:
        endpoint = queries.endpoint_named(name)
        changes = parsing.body(requests.EndpointPatch, request)
        if changes:
            services.update_endpoint(endpoint=endpoint, **changes, by=auth.client_of(request))
        return Response(_shown(name))


def _shown(name: str) -> dict[str, Any]:
    [overview] = endpoint_page.endpoint_overviews([queries.endpoint_named(name)])
    return dict(responses.EndpointAnswer(overview).data)
