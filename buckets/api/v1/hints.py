"""/api/v1/hints/: where something may have changed."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rest_framework import status
from rest_framework.response import Response
from rest_framework.views import APIView

from buckets import services
from buckets.api import auth, hint_budget
from buckets.api.errors import InvalidBody
from buckets.api.negotiation import HintsParser
from buckets.api.v1 import responses, schema
from scanning.core import hints
from scanning.core.hints import UnreadableHint

if TYPE_CHECKING:
    from rest_framework.request import Request


class Hints(APIView):
    authentication_classes = (auth.ApiClientAuthentication, auth.ClientSecretAuthentication)
    permission_classes = (auth.MayGiveHints,)
    parser_classes = (HintsParser,)

    @schema.GIVE_HINTS
    def post(self, request: Request) -> Response:
        given = _read(request)
        if not given:
            return _answer(services.HintsTaken(), status.HTTP_200_OK)
        hint_budget.spend(auth.client_of(request), number=len(given))
        return _answer(services.give_hints(hints=given), status.HTTP_202_ACCEPTED)


def _read(request: Request) -> list[hints.Hint]:
    headers = {name.lower(): value for name, value in request.headers.items()}
    body: Any = request.data or b""  # a dict where there is none
    try:
        return hints.read_hints(body, headers)
    except UnreadableHint as exc:
        raise InvalidBody({exc.member: [exc.problem]}) from None


def _answer(taken: services.HintsTaken, code: int) -> Response:
    return Response(responses.HintsAnswer(asdict(taken)).data, code)
