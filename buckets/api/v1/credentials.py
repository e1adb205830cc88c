"""/api/v1/credentials/: key pairs that buckets use; the keys go in and never come out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.urls import reverse
from rest_framework import status
from rest_framework.response import Response
from rest_framework.views import APIView

from buckets import services
from buckets.api import auth
from buckets.api.errors import refusals_as_conflicts
from buckets.api.v1 import parsing, queries, requests, responses, schema

if TYPE_CHECKING:
    from rest_framework.request import Request


class Credentials(APIView):
    @schema.LIST_CREDENTIALS
    def get(self, request: Request) -> Response:
        filters = parsing.query(requests.CredentialQuery, request)
        rows = queries.credentials(filters)
        return Response(queries.page(request, rows, filters, responses.CredentialsAnswer))

    @schema.CREATE_CREDENTIAL
    def post(self, request: Request) -> Response:
        given = parsing.body(requests.CredentialCreate, request)
        credential = services.add_credential(**given, by=auth.client_of(request))
        where = reverse("api:v1-credential", args=[credential.name]) + "/"
        shown = _as_json(credential.name)
        return Response(shown, status.HTTP_201_CREATED, headers={"Location": where})


class OneCredential(APIView):
    @schema.RETRIEVE_CREDENTIAL
    def get(self, request: Request, name: str) -> Response:
        return Response(_as_json(name))

    @schema.PATCH_CREDENTIAL
    def patch(self, request: Request, name: str) -> Response:
        credential = queries.credential_named(name)
        given = parsing.body(requests.CredentialPatch, request)
        by = auth.client_of(request)
        if "endpoint" in given:
            services.update_credential(credential=credential, **given, by=by)
        elif given:
            pair = {"access_key": "", "secret_key": ""} | given
            services.rotate_credential(credential=credential, **pair, by=by)
        return Response(_as_json(name))

    @schema.DELETE_CREDENTIAL
    def delete(self, request: Request, name: str) -> Response:
        credential = queries.credential_named(name)
        with refusals_as_conflicts():
            services.delete_credential(credential=credential, by=auth.client_of(request))
        return Response(status=status.HTTP_204_NO_CONTENT)


def _as_json(name: str) -> dict[str, Any]:
    return dict(responses.CredentialAnswer(queries.credential_named(name)).data)
