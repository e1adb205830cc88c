"""What the v1 routes answer. No member of these holds a secret."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field, extend_schema_serializer
from rest_framework import serializers

from buckets import selectors
from buckets.api.v1.requests import STATES
from buckets.models import EVENT_TYPES, Bucket
from scanning.core.endpoint_profile import Fact
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
    trust_etags = serializers.BooleanField()
    lanes = serializers.IntegerField(
        allow_null=True, help_text="Listings at once; null: the configured default."
    )
    most_objects = serializers.IntegerField(
        allow_null=True,
        help_text="Objects that may be known, 0: any number; null: the configured default.",
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


@extend_schema_serializer(component_name="EndpointFact")
class FactAnswer(_Serializer):
    name = serializers.ChoiceField(choices=[fact.value for fact in Fact])
    value = Shown(help_text="What counts; empty of a signing region: what the host's name says.")
    source = serializers.ChoiceField(  # type: ignore[assignment]  # the wire's name
        choices=["set", "learnt", "default"]
    )
    learnt = Shown(help_text="What the endpoint showed; empty: nothing yet.")
    learnt_at = serializers.DateTimeField(allow_null=True)


@extend_schema_serializer(component_name="EndpointPace")
class PaceAnswer(_Serializer):
    state = serializers.ChoiceField(choices=["normal", "slowed", "dead"])
    list_per_s = serializers.FloatField(help_text="What it takes while it is slowed; else 0.")
    why = Shown(help_text="Why it is dead.")


@extend_schema_serializer(component_name="EndpointLimits")
class LimitsAnswer(_Serializer):
    """What counts: what is set, or else what is configured; 0: no limit."""

    list_per_s = serializers.FloatField()
    connections = serializers.IntegerField()


@extend_schema_serializer(component_name="Endpoint")
class EndpointAnswer(_Serializer):
    """The ten members after the name are what is set."""

    name = Shown(source="endpoint.name")
    start_after = Shown(source="endpoint.start_after")
    list_version = Shown(source="endpoint.list_version")
    url_encoding = Shown(source="endpoint.url_encoding")
    signing_region = Shown(source="endpoint.signing_region")
    addressing = Shown(source="endpoint.addressing")
    key_order = Shown(source="endpoint.key_order")
    totals = Shown(source="endpoint.totals")
    authorities = Shown(source="endpoint.authorities")
    list_per_s = serializers.FloatField(source="endpoint.list_per_s", allow_null=True)
    connections = serializers.IntegerField(source="endpoint.connections", allow_null=True)
    bucket_count = serializers.IntegerField(source="buckets")
    limits = LimitsAnswer()
    pace = PaceAnswer(
        source="load", allow_null=True, help_text="Null: not asked lately, or Redis is away."
    )
    facts = FactAnswer(many=True)
    asked_at = serializers.DateTimeField(
        allow_null=True, help_text="When it was last asked for all of its facts."
    )


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


@extend_schema_serializer(component_name="HeldObject")
class HeldObjectAnswer(_Serializer):
    """What was last known of an object that is missing."""

    key = Shown()
    size = serializers.IntegerField(help_text="Bytes.")
    last_modified = serializers.DateTimeField()
    etag = Shown()


@extend_schema_serializer(component_name="HeldObjects")
class HeldObjectsAnswer(_Serializer):
    bucket = Shown()
    held_since = serializers.DateTimeField(allow_null=True, help_text="Null: nothing is held.")
    count = serializers.IntegerField(help_text="All that are missing.")
    results = HeldObjectAnswer(many=True, help_text="The first of them, by key.")


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


@extend_schema_serializer(component_name="EndpointPage")
class EndpointsAnswer(PageAnswer):
    results = EndpointAnswer(many=True)
