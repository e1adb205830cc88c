"""Reading the bodies and queries of the v1 routes: what is not known is refused, not ignored.

A misspelt member would otherwise change nothing, and a misspelt filter would list everything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError

from buckets.api.fields import PLAIN_NAME, WHOLE, Strict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rest_framework.request import Request


def body(expected: type[Strict], request: Request) -> dict[str, Any]:
    """Read the members of a request's body. Raises ValidationError with all that is wrong."""
    return _checked(expected(data=request.data))


def query(expected: type[Strict], request: Request) -> dict[str, Any]:
    """Read the parameters of a request. Raises ValidationError with all that is wrong."""
    given = request.query_params
    if twice := [name for name in given if len(given.getlist(name)) > 1]:
        named = {name if PLAIN_NAME.fullmatch(name) else WHOLE for name in twice}
        raise ValidationError({name: ["Give this once."] for name in named})
    return _checked(expected(data=given.dict()))


def _checked(serializer: Strict) -> dict[str, Any]:
    if not serializer.is_valid():
        errors = serializer.errors.items()
        raise ValidationError({name: list(_messages(found)) for name, found in errors})
    given: dict[str, Any] = serializer.validated_data
    return given


def _messages(found: Any) -> Iterator[str]:
    """Flatten the messages of one member; of a list's elements each message once."""
    if isinstance(found, dict):
        yield from dict.fromkeys(m for inner in found.values() for m in _messages(inner))
    elif isinstance(found, list):
        for inner in found:
            yield from _messages(inner)
    else:
        yield str(found)
