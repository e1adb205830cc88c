"""The members of requests under /api/v1/, and their types; the services check the rest."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from buckets import selectors
from buckets.api.fields import (
    LONGEST_SECRET,
    LONGEST_TEXT,
    REQUIRED,
    Seconds,
    Strict,
    Switch,
    Text,
    longest,
)
from buckets.models import EVENT_TYPES, Bucket
from scanning.core.endpoint_profile import CHOICES, Fact
from scanning.core.hints import LONGEST_BUCKET_NAME
from scanning.core.holds import Release
from scanning.core.listing.body import MOST_KEY_BYTES

LARGEST_PAGE = 500
MOST_EVENTS = 1000
MOST_HELD = 1000
# Far past the last page of any site, and small enough for every database.
_LAST_PAGE = 1_000_000

STATES = tuple(state.name.lower() for state in selectors.State)
# What a list of buckets can be sorted by -> the model's field.
ORDERS = {
    "name": "name",
    "region": "region",
    "added_at": "added_at",
    "updated_at": "updated_at",
    "last_scan_at": "last_scan_at",
    "last_error_at": "last_error_at",
    "held_since": "held_since",
    "objects": "object_count",
}


class Choice(serializers.ChoiceField):
    default_error_messages = {
        "required": REQUIRED,
        "invalid_choice": "This must be one of: {known}.",
    }

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str) or data not in self.choices:
            self.fail("invalid_choice", known=", ".join(map(str, self.choices)))
        return data


class Flag(serializers.BooleanField):
    """True or false as a query says it."""

    default_error_messages = {"invalid": "This must be true or false."}

    def to_internal_value(self, data: Any) -> bool:
        if data not in {"true", "false"}:
            self.fail("invalid")
        return bool(data == "true")


class WholeNumber(Seconds):
    default_error_messages = {"invalid": "This must be a whole number."}


class EventTypes(serializers.ListField):
    child = Choice(choices=EVENT_TYPES)
    default_error_messages = {"not_a_list": "This must be a list of event types."}


class SomeText(Text):
    """May be empty, which clears a setting, and keeps its spaces."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"required": False, "allow_blank": True, **kwargs})


class BucketSettings(Strict):
    """What creating and changing a bucket have in common."""

    bucket_name = SomeText(
        max_length=longest("bucket_name"),
        help_text="What S3 calls the bucket; empty: as the watch is called.",
    )
    region = SomeText(max_length=longest("region"))
    endpoint = SomeText(max_length=longest("endpoint"))
    credential = Text(
        required=False, max_length=longest("name"), help_text="Name of an existing credential."
    )
    access_key = Text(
        required=False,
        max_length=LONGEST_SECRET,
        help_text="Instead of a credential; goes to the vault.",
    )
    secret_key = Text(
        required=False, max_length=LONGEST_SECRET, help_text="With access_key; goes to the vault."
    )
    prefix = SomeText(
        max_length=longest("prefix"),
        trim_whitespace=False,
        help_text="Watch only keys that begin so.",
    )
    suffix = SomeText(
        max_length=longest("suffix"),
        trim_whitespace=False,
        help_text="Announce only keys that end so.",
    )
    polling_interval = Seconds(
        required=False, allow_null=True, help_text="1 to 604800; null: the configured default."
    )
    polling_longest = Seconds(
        required=False,
        allow_null=True,
        help_text="What the interval may grow to while nothing changes, at most 604800; 0: it does "
        "not grow; null: the configured default.",
    )
    probe_interval = Seconds(
        required=False,
        allow_null=True,
        help_text="Seconds between two probes, 0 to 604800, 0 for none; null: the configured "
        "default.",
    )
    monitoring_enabled = Switch(required=False)
    notifications_enabled = Switch(required=False)
    events = EventTypes(required=False, help_text="The event types to announce.")
    first_scan = Choice(choices=Bucket.FirstScan.values, required=False)
    fetch_metadata = Switch(required=False)
    trust_etags = Switch(
        required=False, help_text="Objects of which only the time moved are no updates."
    )
    lanes = WholeNumber(
        required=False, allow_null=True, help_text="Listings at once; null: the configured default."
    )
    requests_per_day = WholeNumber(
        required=False,
        allow_null=True,
        help_text="A budget (UTC) that stretches intervals; 0: any; null: the configured default.",
    )
    most_objects = WholeNumber(
        required=False,
        allow_null=True,
        help_text="Objects that may be known, 0: any number; null: the configured default.",
    )
    webhook_url = SomeText(max_length=longest("webhook_url"))
    webhook_client_id = SomeText(max_length=longest("webhook_client_id"))
    webhook_client_secret = Text(
        required=False, max_length=LONGEST_SECRET, help_text="Goes to the vault."
    )
    webhook_token_url = SomeText(max_length=longest("webhook_token_url"))
    webhook_secret_in_redis = Switch(required=False)


class BucketCreate(BucketSettings):
    name = Text(max_length=longest("name"))


class BucketPatch(BucketSettings):
    """What is left out stays as it is."""


class KeyPairFields(Strict):
    """Keys to try instead of the credential's; both or none."""

    access_key = Text(required=False, max_length=LONGEST_SECRET)
    secret_key = Text(required=False, max_length=LONGEST_SECRET)


class HintedKeys(Strict):
    """The form for programs of one's own; `scanning/core/hints.py` reads it, and the others."""

    bucket = Text(max_length=LONGEST_BUCKET_NAME, help_text="What S3 calls it.")
    keys = serializers.ListField(
        child=Text(max_length=MOST_KEY_BYTES, trim_whitespace=False), min_length=1
    )


class Resumption(Strict):
    """How to go on with what Redis forgot."""

    choice = Choice(
        choices=Bucket.FirstScan.values,
        help_text="`announce` what Redis does not know, or only remember it: `baseline`.",
    )


class CredentialPatch(KeyPairFields):
    """Both keys of a new pair, for every bucket that uses the credential; or a note of where."""

    endpoint = SomeText(max_length=longest("endpoint"))


class CredentialCreate(Strict):
    name = Text(max_length=longest("name"))
    access_key = Text(max_length=LONGEST_SECRET)
    secret_key = Text(max_length=LONGEST_SECRET)
    endpoint = SomeText(
        max_length=longest("endpoint"), help_text="A note of where these keys are valid."
    )


class PageQuery(Strict):
    page = serializers.IntegerField(default=1, min_value=1, max_value=_LAST_PAGE)
    page_size = serializers.IntegerField(default=100, min_value=1, max_value=LARGEST_PAGE)


class BucketQuery(PageQuery):
    region = Text(required=False, max_length=255)
    state = Choice(choices=STATES, required=False)
    credential = Text(required=False, max_length=63, help_text="Name of a credential.")
    notifications_enabled = Flag(required=False)
    monitoring_enabled = Flag(required=False)
    search = Text(
        required=False, max_length=200, help_text="Part of name, region, endpoint or webhook URL."
    )
    ordering = Choice(
        choices=[*ORDERS, *(f"-{name}" for name in ORDERS)],
        default="name",
        help_text="With - before it: descending. What was never set comes last.",
    )


class CredentialQuery(PageQuery):
    search = Text(required=False, max_length=200, help_text="Part of the name.")


class EndpointQuery(PageQuery):
    search = Text(required=False, max_length=200, help_text="Part of the name.")


class FactChoice(Choice):
    """A fact; empty leaves it to what is learnt."""

    def __init__(self, fact: Fact, **kwargs: Any) -> None:
        choices = ["", *map(str, CHOICES[fact])]
        super().__init__(choices=choices, **{"required": False, **kwargs})


class EndpointPatch(Strict):
    """What is left out stays; empty, or null of a limit, leaves it to what is known otherwise."""

    start_after = FactChoice(Fact.START_AFTER)
    list_version = FactChoice(Fact.LIST_VERSION)
    url_encoding = FactChoice(Fact.URL_ENCODING)
    signing_region = SomeText(max_length=63)
    addressing = FactChoice(Fact.ADDRESSING)
    key_order = FactChoice(Fact.KEY_ORDER)
    totals = FactChoice(Fact.TOTALS)
    authorities = SomeText(
        max_length=255, help_text="`bundled`, `system`, or the path of a PEM file on every host."
    )
    list_per_s = WholeNumber(
        required=False, allow_null=True, help_text="LIST requests a second in one bucket; 0: any."
    )
    connections = WholeNumber(
        required=False, allow_null=True, help_text="Requests at once, of all processes; 0: any."
    )
    requests_per_day = WholeNumber(
        required=False,
        allow_null=True,
        help_text="A budget (UTC) that all buckets here share; 0 or null: any.",
    )
    request_price = SomeText(
        max_length=64,
        help_text="Of 1,000 requests: LIST/HEAD/HEAD of buckets, or one for all; empty: as "
        "REQUEST_PRICE_PER_1000 says.",
    )


class EventQuery(Strict):
    bucket = Text(required=False, max_length=63)
    type = Choice(choices=EVENT_TYPES, required=False)
    prefix = Text(
        required=False,
        max_length=LONGEST_TEXT,
        trim_whitespace=False,
        help_text="How the object's key begins.",
    )
    limit = serializers.IntegerField(default=100, min_value=1, max_value=MOST_EVENTS)


class ExplainQuery(Strict):
    key = Text(trim_whitespace=False, help_text="The whole key.")


class ReleaseChoice(Strict):
    """What the next scan does with what is held."""

    choice = Choice(
        choices=list(Release),
        default=str(Release.ANNOUNCE_DELETIONS),
        help_text="Of a mass deletion: `announce_deletions`. Of a storm of moved times: "
        "`announce_updates`, or `take_times` silently.",
    )


class HeldQuery(Strict):
    limit = serializers.IntegerField(default=100, min_value=1, max_value=MOST_HELD)
