"""Every error under /api, /ready and /metrics is one shape: ``{"error": …, "fields": {…}}``.

``error`` is one line for people; ``fields`` maps each member that is wrong to its messages, and is
empty when none is.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ObjectDoesNotExist, SuspiciousOperation, ValidationError
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views import defaults
from django.views.decorators.csrf import csrf_exempt
from rest_framework import exceptions, status
from rest_framework.response import Response
from rest_framework.views import exception_handler

from buckets import services
from buckets.accounts import login_throttle
from scanning.core.errors import BucketwatchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

log = logging.getLogger(__name__)

DATABASE_AWAY = "The database does not answer; try again."
INTERNAL = "Something went wrong here; the server's log says what."
NO_TOKEN = "Send the header 'Authorization: Bearer TOKEN', with a token from POST /api/auth/token."  # noqa: S105
TOO_MANY_FAILURES = "Too many failed log-ins."
NO_ROUTE = "There is no such route; /api/docs/ lists them."

_ABOUT_THE_WHOLE = {"__all__", "non_field_errors"}


class InvalidBody(exceptions.APIException):
    """400 that says which members are wrong; ``fields`` maps a member to its messages."""

    status_code = status.HTTP_400_BAD_REQUEST

    def __init__(self, fields: Mapping[str, list[str]]) -> None:
        super().__init__()
        self.fields = dict(fields)


class Conflict(exceptions.APIException):
    """409: the request is right, and what is there stands against it."""

    status_code = status.HTTP_409_CONFLICT


def error_body(error: str, fields: Mapping[str, list[str]] | None = None) -> dict[str, Any]:
    return {"error": error, "fields": dict(fields or {})}


def answer(exc: Exception, context: dict[str, Any]) -> Response:
    """Turn whatever a view raised into an answer; nothing internal or secret leaves the process."""
    known = _known(exc)
    if known is None:
        log.error("%s failed", _path(context), exc_info=exc)
        return Response(error_body(INTERNAL), status=status.HTTP_500_INTERNAL_SERVER_ERROR)
    response = exception_handler(known, context)  # status, headers, roll-back
    if response is None:  # pragma: no cover - it knows every APIException
        raise exc
    response.data = _body(known)
    return response


def _known(exc: Exception) -> exceptions.APIException | None:
    """Translate an error for REST framework; None if it is an unexpected one."""
    known: exceptions.APIException | None = None
    match exc:
        case exceptions.NotAuthenticated():
            exc.detail = exceptions.ErrorDetail(NO_TOKEN)  # REST framework's names no fix
            known = exc
        case exceptions.APIException():
            known = exc
        case ValidationError():
            known = InvalidBody(_fields(exc))
        case login_throttle.TooManyFailures():
            known = exceptions.Throttled(wait=login_throttle.WINDOW_S, detail=TOO_MANY_FAILURES)
        case services.BucketExists():
            known = Conflict(str(exc))
        case ObjectDoesNotExist():  # deleted by somebody else meanwhile
            known = exceptions.NotFound(str(exc))
        case BucketwatchError():  # the vault or Redis: the message says which, and the fix
            known = _unavailable(str(exc))
        case OperationalError() | InterfaceError():
            log.error("The database failed: %s", exc)
            known = _unavailable(DATABASE_AWAY)
        case SuspiciousOperation():
            known = exceptions.ParseError("The request is not one that can be read.")
    return known


@contextmanager
def refusals_as_conflicts() -> Iterator[None]:
    """Answer 409 where nothing in the request is wrong, and a service refuses all the same."""
    try:
        yield
    except ValidationError as exc:
        raise Conflict(" ".join(exc.messages)) from None


def _unavailable(text: str) -> exceptions.APIException:
    unavailable = exceptions.APIException(text)
    unavailable.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    return unavailable


def _fields(exc: ValidationError) -> dict[str, list[str]]:
    if not hasattr(exc, "error_dict"):
        return {"__all__": list(exc.messages)}
    return dict(exc.message_dict)


def _body(exc: exceptions.APIException) -> dict[str, Any]:
    if not isinstance(exc, InvalidBody):
        return error_body(_one_line(exc.detail))
    about: dict[str, list[str]] = {}  # a message -> the members that it is about
    for member, messages in exc.fields.items():
        for message in messages:
            about.setdefault(_one_line(message), []).append(member)
    error = "; ".join(_about(members, message) for message, members in about.items())
    return error_body(error, exc.fields)


def _about(members: list[str], message: str) -> str:
    named = [member for member in members if member not in _ABOUT_THE_WHOLE]
    return f"{', '.join(named)}: {message}" if named else message


def _one_line(detail: Any) -> str:
    if isinstance(detail, dict):
        return _one_line(list(detail.values()))
    if isinstance(detail, list):
        return "; ".join(_one_line(inner) for inner in detail)
    return " ".join(str(detail).split())


def _path(context: dict[str, Any]) -> str:
    request = context.get("request")
    return f"{request.method} {request.path}" if request is not None else "A request"


def _speaks_json(request: HttpRequest) -> bool:
    return request.path_info.split("/")[1] in {"api", "health", "ready", "metrics"}


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer a request that Django refused before any view saw it (an unknown Host, for one)."""
    if _speaks_json(request):
        error = "The request was refused: is its Host one of ALLOWED_HOSTS?"
        return JsonResponse(error_body(error), status=status.HTTP_400_BAD_REQUEST)
    return defaults.bad_request(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    if _speaks_json(request):
        return JsonResponse(error_body(INTERNAL), status=status.HTTP_500_INTERNAL_SERVER_ERROR)
    return defaults.server_error(request)


def method_not_allowed(request: HttpRequest) -> HttpResponse:
    """Answer 405 for a route that can only be read."""
    error = f"{request.method} is not allowed here: use GET."
    return JsonResponse(
        error_body(error), status=status.HTTP_405_METHOD_NOT_ALLOWED, headers={"Allow": "GET, HEAD"}
    )


@csrf_exempt
def no_such_route(request: HttpRequest) -> HttpResponse:
    """Answer 404 for every other path under /api, with or without a token."""
    return JsonResponse(error_body(NO_ROUTE), status=status.HTTP_404_NOT_FOUND)
