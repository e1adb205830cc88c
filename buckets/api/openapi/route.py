"""How a route is described in OpenAPI: one way to say request, answers, errors and examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers

from buckets.api.errors import error_body
from buckets.api.fields import REQUIRED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rest_framework.serializers import Serializer

    Kind = type[Serializer[Any]]

F = TypeVar("F", bound="Callable[..., Any]")

JSON = "application/json"


class Error(serializers.Serializer[Any]):
    """Every answer from 400 up."""

    error = serializers.CharField(help_text="What is wrong and how to mend it, in one line.")
    fields = serializers.DictField(  # type: ignore[assignment]  # the wire's name
        child=serializers.ListField(child=serializers.CharField()),
        help_text="Each member that is wrong, with its messages.",
    )


_ERRORS = {
    400: (
        "The request is wrong; `fields` says where.",
        error_body(f"name: {REQUIRED}", {"name": [REQUIRED]}),
    ),
    401: (
        "No token, or one that is no longer good.",
        error_body("Send the header 'Authorization: Bearer TOKEN', with a token from …"),
    ),
    403: (
        "The client's scope does not allow this.",
        error_body("This needs an API client with the scope 'manage', and this one's is 'read': …"),
    ),
    404: ("There is none of this name.", error_body("There is no bucket 'media-in' here; …")),
    409: (
        "What is there already stands against it.",
        error_body("Bucket media-in is watched already: change the existing one."),
    ),
    413: (
        "The body has more than 64 KiB; 1 MiB of hints.",
        error_body("The body is larger than 65536 bytes."),
    ),
    429: (
        "Too many failed log-ins, or hints; `Retry-After` says when to go on.",
        error_body("Too many failed log-ins. Expected available in 60 seconds."),
    ),
    503: (
        "Something needed does not answer (database, vault, Redis); nothing was changed.",
        error_body("The database does not answer; try again."),
    ),
}


def path_name(what: str) -> OpenApiParameter:
    return OpenApiParameter(
        "name", OpenApiTypes.STR, OpenApiParameter.PATH, description=f"The {what}'s name."
    )


def query_bucket() -> OpenApiParameter:
    return OpenApiParameter(
        "bucket", OpenApiTypes.STR, required=True, description="The bucket's name."
    )


def route(  # noqa: PLR0913 - what OpenAPI says of a route
    operation_id: str,
    summary: str,
    *,
    tag: str,
    answers: dict[int, Kind | None],
    errors: Sequence[int] = (),
    description: str = "",
    takes: Kind | None = None,
    media_types: Sequence[str] = (JSON,),
    parameters: Sequence[Any] = (),
    example: Any = None,
    answered: Any = None,
    is_public: bool = False,
) -> Callable[[F], F]:
    """Describe a view's method.

    ``example`` is a body that it takes, ``answered`` one that it answers on success.
    """
    examples = []
    if example is not None:
        examples += [
            OpenApiExample("A request", value=example, request_only=True, media_type=media_type)
            for media_type in media_types
        ]
    if answered is not None:
        codes = list(map(str, answers))
        examples.append(
            OpenApiExample("An answer", value=answered, response_only=True, status_codes=codes)
        )
    codes_of_errors = {*errors, *([413] if takes else []), *(() if is_public else (401, 403)), 503}
    return extend_schema(
        operation_id=operation_id,
        summary=summary,
        description=description,
        tags=[tag],
        parameters=list(parameters),
        request=dict.fromkeys(media_types, takes) if takes else None,
        responses={
            **{code: OpenApiResponse(kind, "Done.") for code, kind in answers.items()},
            **{code: _error(code) for code in sorted(codes_of_errors)},
        },
        examples=examples,
        auth=[] if is_public else None,
    )


def _error(code: int) -> OpenApiResponse:
    description, value = _ERRORS[code]
    example = OpenApiExample(description, value=value, status_codes=[str(code)])
    return OpenApiResponse(Error, description, [example])
