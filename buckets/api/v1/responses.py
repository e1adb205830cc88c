"""What the v1 routes answer. No member of these holds a secret."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from drf_spectacular.utils import extend_schema_field, extend_schema_serializer
from rest_framework import serializers

from buckets import selectors
from buckets.api.v1.requests import STATES
from buckets.models import EVENT_TYPES, Bucket
from scanning.core.endpoint_profile import Fact
from scanning.core.request_costs import RequestKind
from scanning.core.scan_warnings import EXPLAINED, ScanWarning, WarningKind

if TYPE_CHECKING:
    from buckets.health.costs import Costs
    from buckets.pages.endpoint import EndpointOverview
    from scanning.core.request_costs import Requests

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
    held_moved_since = serializers.DateTimeField(
        allow_null=True,
        help_text="A storm of moved times waits for POST …/release/ since then.",
    )
    held_moved = serializers.IntegerField(
        help_text="Of how many objects only the time moved, while that waits."
    )
    lost_since = serializers.DateTimeField(
        allow_null=True, help_text="Redis forgot it: it waits for POST …/resume/ since then."
    )
    warnings = ScanWarningAnswer(many=True, help_text="What the last complete scan warned of.")


@extend_schema_serializer(component_name="RequestsByKind")
class RequestsAnswer(_Serializer):
    """How many requests, and what they cost."""

    list = serializers.IntegerField(help_text="LIST: pages of passes.")
    head_metadata = serializers.IntegerField(help_text="HEAD of objects, for their metadata.")
    head_witness = serializers.IntegerField(help_text="HEAD of objects that are missing.")
    head_bucket = serializers.IntegerField(help_text="HEAD of buckets: probes.")
    cost = serializers.FloatField(
        allow_null=True, help_text="In REQUESTS_CURRENCY; null: nobody set a price."
    )

    @classmethod
    def of(cls, requests: Requests, cost: float | None) -> dict[str, Any]:
        numbers = {kind.value: requests.get(kind, 0) for kind in RequestKind}
        return dict(cls(numbers | {"cost": cost}).data)


class _Costly(_Serializer):
    """What has `Costs`: how they are found, a subclass says."""

    requests_today = serializers.SerializerMethodField(
        help_text="Sent since midnight UTC; null while Redis is away."
    )
    forecast = serializers.SerializerMethodField(
        help_text="To be expected in a day, without retries; null before the first scan."
    )

    def costs(self, row: Any) -> Costs:
        raise NotImplementedError

    @extend_schema_field(RequestsAnswer(allow_null=True))
    def get_requests_today(self, row: Any) -> dict[str, Any] | None:
        costs = self.costs(row)
        return RequestsAnswer.of(costs.sent.today, costs.cost_today) if costs.sent else None

    @extend_schema_field(RequestsAnswer(allow_null=True))
    def get_forecast(self, row: Any) -> dict[str, Any] | None:
        expected = self.costs(row).forecast
        return RequestsAnswer.of(expected.requests, expected.cost) if expected else None


@extend_schema_serializer(component_name="Bucket")
class BucketAnswer(_Costly):
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
    polling_longest = serializers.IntegerField(
        allow_null=True,
        help_text="Seconds that the interval may grow to while nothing changes; 0: it does not "
        "grow; null: the configured default.",
    )
    probe_interval = serializers.IntegerField(
        allow_null=True,
        help_text="Seconds between two probes; 0: none; null: the configured default.",
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
    requests_per_day = serializers.IntegerField(
        allow_null=True, help_text="A budget; 0: any number; null: the configured default."
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

    def costs(self, row: Bucket) -> Costs:
        found: Costs = self.context["costs"][row.name]
        return found


@extend_schema_serializer(component_name="HintsTaken")
class HintsAnswer(_Serializer):
    accepted = serializers.IntegerField(help_text="How many hints are looked at.")
    ignored = serializers.IntegerField(
        help_text="How many are of keys that no watch covers, or of paused watches."
    )
    unknown = serializers.ListField(
        child=Shown(), help_text="Buckets that nobody watches, at most 100 of them."
    )


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
class EndpointAnswer(_Costly):
    """The twelve members after the name are what is set."""

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
    requests_per_day = serializers.IntegerField(
        source="endpoint.requests_per_day",
        allow_null=True,
        help_text="A budget that its buckets share; 0 or null: any number.",
    )
    request_price = Shown(
        source="endpoint.request_price", help_text="Empty: as REQUEST_PRICE_PER_1000 says."
    )
    bucket_count = serializers.IntegerField(source="buckets")
    limits = LimitsAnswer()
    pace = PaceAnswer(
        source="load", allow_null=True, help_text="Null: not asked lately, or Redis is away."
    )
    facts = FactAnswer(many=True)
    asked_at = serializers.DateTimeField(
        allow_null=True, help_text="When it was last asked for all of its facts."
    )

    def costs(self, row: EndpointOverview) -> Costs:
        return row.costs


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
    """What was last known of an object that is missing, or of which only the time moved."""

    key = Shown()
    size = serializers.IntegerField(help_text="Bytes.")
    last_modified = serializers.DateTimeField()
    etag = Shown()
    new_last_modified = serializers.DateTimeField(
        allow_null=True, help_text="The time that it moved to. Null: the object is missing."
    )


@extend_schema_serializer(component_name="HeldObjects")
class HeldObjectsAnswer(_Serializer):
    bucket = Shown()
    held_since = serializers.DateTimeField(
        allow_null=True, help_text="Null: no mass deletion is held."
    )
    held_missing = serializers.IntegerField(help_text="How many objects are missing, and held.")
    held_moved_since = serializers.DateTimeField(
        allow_null=True, help_text="Null: no storm of moved times is held."
    )
    held_moved = serializers.IntegerField(
        help_text="Of how many objects only the time moved, which is held."
    )
    known = serializers.IntegerField(help_text="How many objects are known, those included.")
    count = serializers.IntegerField(help_text="All that are held.")
    results = HeldObjectAnswer(many=True, help_text="The first of them, by key.")


@extend_schema_serializer(component_name="ObjectState")
class ObjectStateAnswer(_Serializer):
    size = serializers.IntegerField(help_text="Bytes.")
    last_modified = serializers.DateTimeField()
    etag = Shown()


@extend_schema_serializer(component_name="LastListed")
class LastListedAnswer(_Serializer):
    at = serializers.DateTimeField(help_text="When that scan began.")
    by = serializers.ChoiceField(choices=["pass", "look"])


@extend_schema_serializer(component_name="Explanation")
class ExplanationAnswer(_Serializer):
    bucket = Shown()
    key = Shown()
    stored = ObjectStateAnswer(allow_null=True, help_text="What is known of the key.")
    listed = ObjectStateAnswer(allow_null=True, help_text="What a listing shows of it now.")
    event = serializers.ChoiceField(
        choices=EVENT_TYPES, allow_null=True, help_text="What the next scan would find."
    )
    announced = serializers.BooleanField()
    reasons = serializers.ListField(child=Shown(), help_text="Sentences for people.")
    problem = Shown(help_text="Why it cannot be told; empty if it can.")
    last_listed = LastListedAnswer(
        allow_null=True, help_text="The range of the key: when it was listed last, and by what."
    )
    pass_due = serializers.DateTimeField(allow_null=True, help_text="When it is listed next.")


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
