"""The documented routes in OpenAPI: names and formats that older programs rely on."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from buckets.api import fields
from buckets.api.fields import Login
from buckets.api.negotiation import FORM
from buckets.api.openapi.route import JSON, query_bucket, route

_Serializer = serializers.Serializer[Any]
_BUCKETS, _NOTIFICATIONS = "older routes: buckets", "older routes: notifications"


class TokenAnswer(_Serializer):
    access_token = serializers.CharField()
    token_type = serializers.ChoiceField(choices=["Bearer"])
    expires_in = serializers.IntegerField(help_text="Seconds.")


class NotificationsOfBucket(_Serializer):
    name = serializers.CharField()
    notifications_enabled = serializers.BooleanField()
    webhook_url = serializers.CharField(allow_blank=True)


class NotificationStatusAnswer(_Serializer):
    buckets = NotificationsOfBucket(many=True)


class Done(_Serializer):
    status = serializers.ChoiceField(choices=["success"])
    note = serializers.CharField(required=False, help_text="What else there is to know.")


class SwitchedAnswer(Done):
    bucket = serializers.CharField()
    notifications = serializers.ChoiceField(choices=["enabled", "disabled"])


class ChangedAnswer(Done):
    message = serializers.CharField()


class AddedAnswer(ChangedAnswer):
    bucket = serializers.CharField()


NEW_BUCKET = {
    "name": "media-in",
    "endpoint": "us-iad-1.linodeobjects.com",
    "access_key": "THE-ACCESS-KEY",
    "secret_key": "THE-SECRET-KEY",
    "webhook_url": "https://api.example.com/hook",
}

TOKEN = route(
    "token",
    "Trade a client's id and secret for a token",
    tag="tokens",
    takes=Login,
    media_types=(JSON, FORM),
    answers={200: TokenAnswer},
    errors=(400, 401, 429),
    example={"client_id": "bw-1f2e3d4c", "client_secret": "THE-CLIENT-SECRET"},
    answered={"access_token": "eyJ…", "token_type": "Bearer", "expires_in": 86400},
    is_public=True,
)
STATUS = route(
    "notification_status",
    "Which buckets have their notifications on",
    tag=_NOTIFICATIONS,
    answers={200: NotificationStatusAnswer},
    answered={
        "buckets": [
            {
                "name": "media-in",
                "notifications_enabled": True,
                "webhook_url": "https://api.example.com/hook",
            }
        ]
    },
)


def _switch(verb: str, word: str) -> Any:
    return route(
        f"{verb}_notifications",
        f"Turn a bucket's notifications {'on' if verb == 'enable' else 'off'}",
        description="Scanning goes on either way; what changes meanwhile is not announced later.",
        tag=_NOTIFICATIONS,
        parameters=[query_bucket()],
        answers={200: SwitchedAnswer},
        errors=(400, 403, 404),
        answered={"status": "success", "bucket": "media-in", "notifications": word},
    )


ENABLE = _switch("enable", "enabled")
DISABLE = _switch("disable", "disabled")
ADD = route(
    "add_bucket",
    "Watch a bucket",
    description="One of `endpoint` and `region` is required. Unknown members are ignored.",
    tag=_BUCKETS,
    takes=fields.NewBucket,
    answers={201: AddedAnswer},
    errors=(400, 403, 409),
    example=NEW_BUCKET,
    answered={
        "status": "success",
        "message": "Bucket media-in added",
        "bucket": "media-in",
        "note": "The first scan begins within 60 seconds; …",
    },
)
UPDATE = route(
    "update_bucket",
    "Change a bucket",
    description="`access_key` and `secret_key` go only together. Unknown members are ignored.",
    tag=_BUCKETS,
    takes=fields.BucketChanges,
    answers={200: ChangedAnswer},
    errors=(400, 403, 404),
    example={"name": "media-in", "polling_interval": 300},
    answered={"status": "success", "message": "Bucket media-in updated"},
)
DELETE = route(
    "delete_bucket",
    "Stop watching a bucket",
    description="Its objects in S3 are not touched.",
    tag=_BUCKETS,
    parameters=[query_bucket()],
    answers={200: ChangedAnswer},
    errors=(400, 403, 404),
    answered={"status": "success", "message": "Bucket media-in deleted"},
)
