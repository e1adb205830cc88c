"""The members by which programs describe a bucket, and their types; the services check the rest.

Types are strict: a number is not a name, and ``"60"`` is not an interval.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from rest_framework import serializers

from buckets import validators
from buckets.models import Bucket

if TYPE_CHECKING:
    from collections.abc import Mapping

WHOLE = "__all__"
# Other names are not repeated: one may be a secret that went to the wrong place.
PLAIN_NAME = re.compile(r"[a-z_]{1,30}")
REQUIRED = "This member is required."
# Longer than any text that is not stored, such as a name to look for.
LONGEST_TEXT = 2048
LONGEST_SECRET = validators.LONGEST_SECRET


def longest(field: str) -> int:
    """Return the most characters of a member that is stored as this field of a bucket."""
    column: Any = Bucket._meta.get_field(field)  # noqa: SLF001 - documented
    return int(column.max_length)


class Text(serializers.CharField):
    default_error_messages = {
        "required": REQUIRED,
        "null": REQUIRED,
        "blank": "This must not be empty.",
        "invalid": "This must be text.",
        "max_length": "This must have at most {max_length} characters.",
    }

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"max_length": LONGEST_TEXT, **kwargs})

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class OptionalText(Text):
    """Left out and null are the same: not given. Empty is a value, which may clear a setting."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"required": False, "allow_null": True, "allow_blank": True, **kwargs})


class Seconds(serializers.IntegerField):
    default_error_messages = {"invalid": "This must be a whole number of seconds, such as 60."}

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, int):
            self.fail("invalid")
        return data


class Switch(serializers.BooleanField):
    default_error_messages = {"invalid": "This must be true or false."}

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("invalid")
        return data


class BucketMembers(serializers.Serializer[Any]):
    """What add and update have in common."""

    name = Text()
    bucket_name = OptionalText(
        max_length=longest("bucket_name"), help_text="What S3 calls the bucket, if not `name`."
    )
    region = OptionalText(max_length=longest("region"))
    endpoint = OptionalText(max_length=longest("endpoint"))
    client_id = OptionalText(max_length=longest("webhook_client_id"))
    client_secret = OptionalText(max_length=LONGEST_SECRET)
    token_url = OptionalText(max_length=longest("webhook_token_url"))
    polling_interval = Seconds(required=False, allow_null=True)
    fetch_metadata = Switch(required=False, allow_null=True)
    notifications_enabled = Switch(required=False, allow_null=True)


class NewBucket(BucketMembers):
    name = Text(max_length=longest("name"))
    access_key = Text(max_length=LONGEST_SECRET)
    secret_key = Text(max_length=LONGEST_SECRET)
    webhook_url = Text(max_length=longest("webhook_url"))


class BucketChanges(BucketMembers):
    """``name`` says which bucket; everything else is optional.

    Empty keys are refused: whoever sends them, from a variable that is not set for one, would
    believe that they were replaced.
    """

    access_key = OptionalText(allow_blank=False, max_length=LONGEST_SECRET)
    secret_key = OptionalText(allow_blank=False, max_length=LONGEST_SECRET)
    webhook_url = OptionalText(max_length=longest("webhook_url"))


class BucketName(serializers.Serializer[Any]):
    name = Text()


class Login(serializers.Serializer[Any]):
    client_id = Text()
    client_secret = Text(trim_whitespace=False)


class Strict(serializers.Serializer[Any]):
    """Members as they are declared, and no others."""

    def to_internal_value(self, data: Mapping[str, Any]) -> Any:
        errors: dict[str, Any] = {}
        try:
            given = super().to_internal_value(data)
        except serializers.ValidationError as exc:
            errors = dict(exc.detail) if isinstance(exc.detail, dict) else {WHOLE: exc.detail}
        if unknown := data.keys() - self.fields.keys():
            known = f"This is not known here; known are: {', '.join(self.fields)}."
            errors |= {n if PLAIN_NAME.fullmatch(n) else WHOLE: [known] for n in sorted(unknown)}
        if errors:
            raise serializers.ValidationError(errors)
        return given
