"""What the v1 routes answer. No member of these holds a secret."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field, extend_schema_serializer
from rest_framework import serializers

from buckets import selectors
from buckets.api.v1.requests import STATES
from buckets.models import EVENT_TYPES, Bucket
from scanning.core.scan_warnings import EXPLAINED, ScanWarning, WarningKind

_Serializer = serializers.Serializer[Any]


class Shown(serializers.CharField):
    """Text that may be empty."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"allow_blank": True, **kwargs})


@extend_schema_serializer(component_name="ScanWarning")
class ScanWarningAnswer(_Serializer):
    kind = serializers.ChoiceField(choices=[kind.value for kind in WarningKind])
    count = serializers.IntegerField(help_text="How many objects it concerns.")
    examples = serializers.ListField(child=Shown(), help_text="Some of their keys, escaped.")
    meaning = serializers.SerializerMethodField()

    def get_meaning(self, warning: ScanWarning) -> str:
        return EXPLAINED[warning.kind].meaning


class ScanStatus(_Serializer):
    """How the last scan ended; written a few seconds after it."""

    last_scan_at = serializers.DateTimeField(allow_null=True)
    last_scan_duration_s = serializers.FloatField(allow_null=True)
    last_lag_s = serializers.FloatField(
        allow_null=True, help_text="How long after its scheduled start the last scan began."
    )
    objects = serializers.IntegerField(source="object_count", allow_null=True)
    last_changes = serializers.IntegerField(allow_null=True)
    last_error = Shown(help_text="Empty when the last scan succeeded.")
    last_error_class = Shown()
    last_error_at = serializers.DateTimeField(allow_null=True)
    next_scan_at = serializers.DateTimeField(
        allow_null=True, help_text="As the last scan left it; a failing bucket waits longer."
    )
    held_since = serializers.DateTimeField(
        allow_null=True, help_text="A mass deletion waits for POST …/release/ since then."
    )
    held_missing = serializers.IntegerField(help_text="How many objects that is about.")
    lost_since = serializers.DateTimeField(
        allow_null=True, help_text="Redis forgot it: it waits for POST …/resume/ since then."
    )
    warnings = ScanWarningAnswer(many=True, help_text="What the last complete scan warned of.")


@extend_schema_serializer(component_name="Bucket")
class BucketAnswer(_Serializer):
    name = Shown(help_text="The watch's; routes go by it.")
    bucket_name = Shown(source="s3_name", help_text="What S3 calls the bucket.")
    region = Shown()
    endpoint = Shown()
    credential = Shown(source="credential.name")
    prefix = Shown()
    suffix = Shown()
    polling_interval = serializers.IntegerField(
        allow_null=True, help_text="Seconds; null: the configured default."
    )
    monitoring_enabled = serializers.BooleanField()
    notifications_enabled = serializers.BooleanField()
    events = serializers.ListField(
        source="wanted_events", child=serializers.ChoiceField(choices=EVENT_TYPES)
    )
    first_scan = serializers.ChoiceField(choices=Bucket.FirstScan.values)
    fetch_metadata = serializers.BooleanField()
    lanes = serializers.IntegerField(
        allow_null=True, help_text="Listings at once; null: the configured default."
    )
    webhook_url = Shown()
    webhook_client_id = Shown()
    webhook_token_url = Shown()
    webhook_secret_in_redis = serializers.BooleanField()
    added_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()
    state = serializers.SerializerMethodField()
    mirrored = serializers.SerializerMethodField(
        help_text="False: Redis, and so the scanner, has yet to learn of a change."
    )
    status = ScanStatus(source="*")
    note = Shown(
        required=False, help_text="What else there is to know; only after a change, if at all."
    )

    @extend_schema_field(serializers.ChoiceField(choices=STATES))
    def get_state(self, bucket: Bucket) -> str:
        return selectors.state(bucket, late=bucket.name in self.context["late"]).name.lower()

    def get_mirrored(self, bucket: Bucket) -> bool:
        return bucket.name not in self.context["waiting"]


@extend_schema_serializer(component_name="Credential")
class CredentialAnswer(_Serializer):
    name = Shown()
    vault_prefix = Shown(help_text="Its vault entries begin so.")
    came_with_bucket = serializers.BooleanField(
        help_text="True: it is removed with the last bucket that uses it."
    )
    bucket_count = serializers.IntegerField(help_text="How many buckets use it.")
    endpoint = Shown()
    created_at = serializers.DateTimeField()
    keys_entered_at = serializers.DateTimeField(source="updated_at")
    last_verified_at = serializers.DateTimeField(
        allow_null=True, help_text="When a listing last said whether the keys work."
    )
    last_verified_error = Shown(help_text="Empty: they worked.")


@extend_schema_serializer(component_name="ConnectionTest")
class ConnectionAnswer(_Serializer):
    ok = serializers.BooleanField()
    latency_ms = serializers.FloatField()
    first_keys = serializers.ListField(
        child=Shown(), help_text="A few keys of the bucket; none if it is empty."
    )
    error = Shown(help_text="What went wrong; empty if nothing.")
    fix = Shown(help_text="What to do about it.")


@extend_schema_serializer(component_name="Accepted")
class ActionAnswer(_Serializer):
    bucket = Shown()
    message = Shown()


@extend_schema_serializer(component_name="Resumed")
class ResumedAnswer(_Serializer):
    buckets = serializers.ListField(child=Shown(), help_text="Those that had waited for it.")
    message = Shown()


@extend_schema_serializer(component_name="Event")
class EventAnswer(_Serializer):
    bucket = Shown(help_text="The watch's name.")
    bucket_name = Shown(help_text="What S3 calls the bucket.")
    type = serializers.ChoiceField(source="event_type", choices=EVENT_TYPES)
    key = Shown()
    size = serializers.IntegerField(help_text="Bytes; of a deleted object, what it had.")
    at = serializers.DateTimeField(help_text="When the scan saw it.")


@extend_schema_serializer(component_name="EventWindow")
class WindowAnswer(_Serializer):
    """What of the past can be seen here at all."""

    since = serializers.DateTimeField(
        allow_null=True, help_text="The oldest commit still kept; null if there is none."
    )
    not_listed = serializers.IntegerField(
        help_text="Events that the commits looked at count without naming them."
    )
    note = Shown()


class EventsAnswer(_Serializer):
    window = WindowAnswer()
    results = EventAnswer(many=True)


class PageAnswer(_Serializer):
    count = serializers.IntegerField(help_text="Of all pages together.")
    next = Shown(allow_null=True, help_text="URL of the next page.")
    previous = Shown(allow_null=True, help_text="URL of the page before.")


@extend_schema_serializer(component_name="BucketPage")
class BucketsAnswer(PageAnswer):
    results = BucketAnswer(many=True)


@extend_schema_serializer(component_name="CredentialPage")
class CredentialsAnswer(PageAnswer):
    results = CredentialAnswer(many=True)
