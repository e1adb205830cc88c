"""What comes in and goes out: always JSON, whatever the headers say.

The older monitor looked at neither ``Accept`` nor ``Content-Type``, and ``curl -d`` claims a form.
"""

from __future__ import annotations

import json
from typing import IO, TYPE_CHECKING, Any

from django.http import QueryDict, UnreadablePostError
from rest_framework import status
from rest_framework.exceptions import APIException, ParseError
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.parsers import BaseParser

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rest_framework.renderers import BaseRenderer
    from rest_framework.request import Request

LARGEST_BODY_BYTES = 65_536
LARGEST_HINTS_BYTES = 1_048_576
FORM = "application/x-www-form-urlencoded"


class BodyTooLarge(APIException):
    """413."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE


class AlwaysJSON(DefaultContentNegotiation):
    """Answers in JSON to ``Accept: text/html`` as well, instead of 406."""

    def select_renderer(
        self,
        request: Request,
        renderers: Iterable[BaseRenderer],
        format_suffix: str | None = None,
    ) -> tuple[BaseRenderer, str]:
        only = next(iter(renderers))
        return only, only.media_type


class JSONObjectParser(BaseParser):
    """A JSON object under any ``Content-Type``; anything else is a 400 that does not repeat it."""

    media_type = "*/*"

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        return _json_object(_read(stream))


class HintsParser(BaseParser):
    """Whatever servers send, unread: `scanning/core/hints.py` knows their forms."""

    media_type = "*/*"

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        return _read(stream, largest_bytes=LARGEST_HINTS_BYTES)


class LoginParser(JSONObjectParser):
    """A JSON object or a form, as OAuth clients send it."""

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        body = _read(stream)
        is_form = (media_type or "").startswith(FORM) and not body.lstrip().startswith(b"{")
        return QueryDict(body).dict() if is_form else _json_object(body)


def _read(stream: IO[Any], *, largest_bytes: int = LARGEST_BODY_BYTES) -> bytes:
    try:
        body: bytes = stream.read(largest_bytes + 1)
    except UnreadablePostError:
        raise ParseError("The body ended before its announced length.") from None
    if len(body) > largest_bytes:
        raise BodyTooLarge(f"The body is larger than {largest_bytes} bytes.")
    return body


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(body)
    except json.JSONDecodeError as exc:
        raise ParseError(
            f"The body is not JSON: {exc.msg} at line {exc.lineno}, column {exc.colno}."
        ) from None
    except (ValueError, RecursionError):
        raise ParseError("The body is not JSON in UTF-8.") from None
    if not isinstance(parsed, dict):
        raise ParseError('The body must be a JSON object: {"name": …}.')
    return parsed
