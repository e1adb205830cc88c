"""The buckets that are watched, and how."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models, transaction
from django.db.models import Case, F, Q, Value, When
from django.db.models.functions import Greatest
from django.utils import timezone

from buckets import validators
from buckets.models.credentials import Credential
from scanning.core import scan_warnings
from scanning.core.endpoints import endpoint_name
from scanning.core.request_costs import MOST_REQUESTS
from scanning.core.types import LONGEST_INTERVAL_S, MOST_LANES, MOST_OBJECTS, EventType

if TYPE_CHECKING:
    from datetime import datetime

    from django.db.models import QuerySet

    from scanning.core.scan_warnings import ScanWarning

EVENT_TYPES = tuple(kind.value for kind in EventType)


def _none_or_within(field: str, least: int, most: int) -> Q:
    return Q((f"{field}__isnull", True)) | Q((f"{field}__range", (least, most)))


class Bucket(models.Model):
    """One bucket that is watched. Change it through ``services``.

    Saving or deleting an instance, however it is done, mirrors it to Redis (``signals``,
    ``sync.outbox``). ``QuerySet.update`` and ``bulk_create`` send no signals: nothing that they do
    reaches the scanner, so they are for the status columns only.

    The status columns belong to ``sync.scan_status``: ``save`` of an existing bucket does not write
    them, so that a form that was open for an hour cannot put back what it showed.
    """

    class FirstScan(models.TextChoices):
        ANNOUNCE = "announce", "announce them"
        BASELINE = "baseline", "only remember them"

    # What may be changed of a bucket; the services and the form go by it.
    CHANGEABLE = (
        "bucket_name",
        "endpoint",
        "region",
        "credential",
        "polling_interval",
        "polling_longest",
        "probe_interval",
        "monitoring_enabled",
        "notifications_enabled",
        "fetch_metadata",
        "trust_etags",
        "prefix",
        "suffix",
        "announce_created",
        "announce_updated",
        "announce_detected",
        "announce_deleted",
        "first_scan",
        "lanes",
        "requests_per_day",
        "most_objects",
        "webhook_url",
        "webhook_client_id",
        "webhook_token_url",
        "webhook_secret_in_redis",
    )
    CONFIGURATION = (
        "name",
        *CHANGEABLE,
        "taken_over",
        "generation",
        "resumed_at",
        "added_at",
        "updated_at",
    )
    # What `remembered_commit_at` goes by.
    EXPECTATION = (
        "generation",
        "resumed_at",
        "last_commit_at",
        "last_commit_generation",
        "last_commit_number",
    )

    name = models.CharField(
        max_length=63,
        unique=True,
        help_text="The bucket's, as S3 knows it; or one of the watch's own, with the bucket's "
        "below. Redis keys, routes and commands go by this one.",
        error_messages={"unique": "This bucket is watched already: change the existing one."},
    )
    bucket_name = models.CharField(
        "name in S3",
        max_length=255,
        blank=True,
        default="",
        db_default="",  # hosts of an earlier version add rows without it
        help_text="What S3 calls the bucket; left empty, the same. For one name at two endpoints, "
        "several watches on one bucket, or a name of more than 63 characters. Changing it starts "
        "with a first scan again.",
    )
    region = models.CharField(
        max_length=255,
        blank=True,
        db_index=True,
        validators=[validators.region],
        help_text="Such as us-iad-1. Groups buckets for the limits per region; "
        "left empty, it is the endpoint's host.",
    )
    endpoint = models.CharField(
        max_length=255,
        blank=True,
        help_text="Host, host:port or http:// URL of the S3 server; "
        "left empty, it is Linode's for the region.",
    )
    credential = models.ForeignKey(Credential, on_delete=models.PROTECT, related_name="buckets")
    polling_interval = models.PositiveIntegerField(
        "polling interval (s)",
        null=True,
        blank=True,
        validators=[
            MinValueValidator(1, "Enter at least 1 second, or leave it empty for the default."),
            MaxValueValidator(
                LONGEST_INTERVAL_S,
                f"Enter at most {LONGEST_INTERVAL_S} seconds (7 days).",
            ),
        ],
        help_text="Seconds between two scans; left empty, the configured default.",
    )
    polling_longest = models.PositiveIntegerField(
        "longest interval (s)",
        null=True,
        blank=True,
        validators=[
            MaxValueValidator(
                LONGEST_INTERVAL_S,
                f"Enter at most {LONGEST_INTERVAL_S} seconds (7 days), or 0 for none.",
            ),
        ],
        help_text="Seconds that the interval may grow to while nothing changes; 0: it does not "
        "grow. Left empty, the configured default.",
    )
    probe_interval = models.PositiveIntegerField(
        "probe interval (s)",
        null=True,
        blank=True,
        validators=[
            MaxValueValidator(
                LONGEST_INTERVAL_S,
                f"Enter at most {LONGEST_INTERVAL_S} seconds (7 days).",
            ),
        ],
        help_text="Seconds between two probes, which ask for the bucket's totals and have it "
        "looked at when they move; 0: none; left empty, the configured default.",
    )
    monitoring_enabled = models.BooleanField(
        "monitoring", default=True, help_text="Off: the bucket is not scanned at all."
    )
    notifications_enabled = models.BooleanField(
        "notifications",
        default=True,
        help_text="Off: the bucket is scanned, and what changes meanwhile is not announced.",
    )
    fetch_metadata = models.BooleanField(
        default=True,
        help_text="Ask for content type and metadata of each new object (one request an object).",
    )
    trust_etags = models.BooleanField(
        "trust ETags",
        default=False,
        help_text="Objects of which only the time moved, not ETag or size, are no updates.",
    )
    prefix = models.CharField(
        max_length=1024,
        blank=True,
        help_text="Watch only keys that begin so. Changing it starts with a first scan again.",
    )
    suffix = models.CharField(
        max_length=1024, blank=True, help_text="Announce only keys that end so, such as .mp4."
    )
    announce_created = models.BooleanField(
        "created", default=True, help_text="New objects, at most 24 hours old."
    )
    announce_updated = models.BooleanField(
        "updated", default=True, help_text="Objects whose ETag or time of change differs."
    )
    announce_detected = models.BooleanField(
        "detected", default=True, help_text="Objects seen for the first time, older than that."
    )
    announce_deleted = models.BooleanField(
        "deleted", default=False, help_text="Objects that a complete listing no longer shows."
    )
    first_scan = models.CharField(
        max_length=10,
        choices=FirstScan,
        default=FirstScan.ANNOUNCE,
        help_text="What becomes of the objects that are there when watching begins.",
    )
    lanes = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        validators=[
            MinValueValidator(1, "Enter at least 1 lane, or leave it empty for the default."),
            MaxValueValidator(MOST_LANES, f"Enter at most {MOST_LANES}."),
        ],
        help_text="Most listings at once in this bucket, if it is large; "
        "left empty, the configured default.",
    )
    requests_per_day = models.PositiveBigIntegerField(
        "requests a day",
        null=True,
        blank=True,
        validators=[MaxValueValidator(MOST_REQUESTS, f"Enter at most {MOST_REQUESTS:,}.")],
        help_text="A budget (UTC): passes and probes that would exceed it come less often; "
        "0: any number; left empty, the configured default.",
    )
    most_objects = models.BigIntegerField(
        null=True,
        blank=True,
        validators=[
            MinValueValidator(0, "Enter 0 for any number, or leave it empty for the default."),
            MaxValueValidator(MOST_OBJECTS, f"Enter at most {MOST_OBJECTS}."),
        ],
        help_text="How many objects may be known of this bucket, 0 for any number: others are left "
        "out, and the bucket says so; left empty, the configured default.",
    )
    webhook_url = models.CharField(
        "webhook URL",
        max_length=2000,
        blank=True,
        validators=[validators.url],
        help_text="Where the consumer of the queue delivers this bucket's notifications.",
    )
    webhook_client_id = models.CharField("webhook OAuth2 client id", max_length=255, blank=True)
    webhook_token_url = models.CharField(
        "webhook OAuth2 token URL", max_length=2000, blank=True, validators=[validators.url]
    )
    webhook_secret_in_redis = models.BooleanField(
        "client secret in Redis too",
        default=False,
        help_text="For a consumer that reads it from the bucket's configuration there, "
        "as the older monitor wrote it.",
    )
    taken_over = models.BooleanField(
        default=False,
        editable=False,
        help_text="Imported from the older monitor: what it knew of objects counts as known.",
    )
    generation = models.BigIntegerField(default=0, editable=False)
    resumed_at = models.DateTimeField(
        null=True,
        editable=False,
        help_text="When somebody last said how to go on after Redis forgot the bucket.",
    )
    added_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    last_scan_at = models.DateTimeField("last scan", null=True, editable=False)
    last_scan_duration_s = models.FloatField("duration (s)", null=True, editable=False)
    last_lag_s = models.FloatField(
        "lag (s)",
        null=True,
        editable=False,
        help_text="How long after its scheduled start the last scan began.",
    )
    object_count = models.BigIntegerField("objects", null=True, editable=False)
    last_changes = models.BigIntegerField("changes", null=True, editable=False)
    last_error = models.TextField(blank=True, default="", editable=False)
    last_error_class = models.CharField(max_length=64, blank=True, default="", editable=False)
    last_error_at = models.DateTimeField(null=True, editable=False)
    held_since = models.DateTimeField(null=True, editable=False)
    held_missing = models.BigIntegerField("objects missing", default=0, editable=False)
    held_moved_since = models.DateTimeField(null=True, editable=False)
    held_moved = models.BigIntegerField(
        "objects with another time only", default=0, db_default=0, editable=False
    )
    next_scan_at = models.DateTimeField(
        "next scan",
        null=True,
        editable=False,
        help_text="As the last scan left it; saving the bucket brings a failing one forward.",
    )
    last_commit_at = models.DateTimeField(null=True, editable=False)
    last_commit_generation = models.BigIntegerField(null=True, editable=False)
    last_commit_number = models.BigIntegerField(null=True, editable=False)
    lost_since = models.DateTimeField("forgotten by Redis since", null=True, editable=False)
    scan_warnings = models.JSONField(
        null=True,
        editable=False,
        help_text="What the last complete scan warned of: kind, number of objects, examples.",
    )

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(name__regex=validators.WATCH_NAME),
                name="bucket_name",
                violation_error_message="Enter the bucket's name as S3 knows it.",
            ),
            models.CheckConstraint(
                condition=~Q(region="") & ~Q(endpoint=""),
                name="bucket_region_and_endpoint",
                violation_error_message="A stored bucket has a region and an endpoint.",
            ),
            models.CheckConstraint(
                condition=_none_or_within("polling_interval", 1, LONGEST_INTERVAL_S),
                name="bucket_polling_interval",
                violation_error_message=(
                    f"Enter a polling interval from 1 to {LONGEST_INTERVAL_S} seconds."
                ),
            ),
            models.CheckConstraint(
                condition=_none_or_within("polling_longest", 0, LONGEST_INTERVAL_S),
                name="bucket_polling_longest",
                violation_error_message=(
                    f"Enter a longest interval of at most {LONGEST_INTERVAL_S} seconds, or 0."
                ),
            ),
            models.CheckConstraint(
                condition=_none_or_within("probe_interval", 0, LONGEST_INTERVAL_S),
                name="bucket_probe_interval",
                violation_error_message=(
                    f"Enter a probe interval from 0 to {LONGEST_INTERVAL_S} seconds."
                ),
            ),
            models.CheckConstraint(
                condition=Q(webhook_client_id="", webhook_token_url="")
                | (~Q(webhook_client_id="") & ~Q(webhook_token_url="")),
                name="bucket_webhook_auth",
                violation_error_message="Webhook OAuth2 needs client id and token URL, or neither.",
            ),
            models.CheckConstraint(
                condition=_none_or_within("lanes", 1, MOST_LANES),
                name="bucket_lanes",
                violation_error_message=f"Enter 1 to {MOST_LANES} lanes.",
            ),
            models.CheckConstraint(
                condition=_none_or_within("most_objects", 0, MOST_OBJECTS),
                name="bucket_most_objects",
                violation_error_message=f"Enter 0 to {MOST_OBJECTS} objects.",
            ),
            models.CheckConstraint(
                condition=Q(first_scan__in=["announce", "baseline"]), name="bucket_first_scan"
            ),
        ]

    # The bucket's name before the last save, when that renamed it: the outbox has it removed.
    renamed_from: str = ""

    def __str__(self) -> str:
        return self.name

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save the configuration; a bucket that now is another one gets a new generation."""
        with transaction.atomic():
            fields = kwargs.get("update_fields")
            if fields is None and not self._state.adding and not kwargs.get("force_insert"):
                fields = self.CONFIGURATION
            if fields is None or set(fields) & set(self.CONFIGURATION):
                self._bump_generation_if_moved()
                fields = fields and {*fields, "generation", "taken_over", "updated_at"}
            super().save(*args, **kwargs | {"update_fields": fields})

    def clean(self) -> None:
        """Fill in region or endpoint from the other, and check what concerns several fields."""
        errors: dict[str, list[str]] = {}
        if not self.region and not self.endpoint:
            message = "Enter a region such as us-iad-1, or an endpoint (or both)."
            errors["region"] = errors["endpoint"] = [message]
        else:
            try:
                self.endpoint = (
                    validators.endpoint(self.endpoint, self.region)
                    if self.endpoint
                    else validators.endpoint_of(self.region)
                )
                self.region = self.region or validators.region_of(self.endpoint)
            except ValidationError as exc:
                errors["endpoint" if self.endpoint else "region"] = exc.messages
        if bool(self.webhook_client_id) != bool(self.webhook_token_url):
            absent = "webhook_token_url" if self.webhook_client_id else "webhook_client_id"
            errors[absent] = [validators.ALL_OF_OAUTH2]
        if self.webhook_client_id and not self.webhook_url:
            errors["webhook_url"] = ["Enter the webhook URL that the OAuth2 client is for."]
        for field, problem in self._refused_addresses().items():
            errors.setdefault(field, []).append(problem)
        for field, problem in self._wrong_names().items():
            errors.setdefault(field, []).append(problem)
        if errors:
            raise ValidationError(errors)

    @staticmethod
    def begin_new_generation(chosen: QuerySet[Bucket]) -> None:
        """Begin a new generation of each, as `save` does of those that moved; mirror them then."""
        chosen.update(
            generation=Greatest(F("generation") + 1, Value(time.time_ns() // 1000)),
            taken_over=Case(When(object_count=None, then=F("taken_over")), default=False),
            updated_at=timezone.now(),
        )

    @property
    def remembered_commit_at(self) -> datetime | None:
        """When the last commit was that Redis has to know; None if there is none that counts."""
        at = self.last_commit_at
        if at is None or self.last_commit_generation != self.generation:
            return None
        if self.last_commit_number is not None or self.resumed_at is None:
            return at
        # An earlier version stored no number, and left what was given up to be told by its time.
        return at if self.resumed_at < at else None

    def remember_commit(self, *, generation: int, number: int, at: datetime) -> None:
        """Note the last commit that Redis says it has; an older one only if none is known.

        Redis may have been restored from a backup a moment ago.
        """
        if generation < (self.last_commit_generation or 0):
            return
        known_at, known = self.remembered_commit_at, self.last_commit_number
        if known_at is not None and generation == self.last_commit_generation:
            is_older = at < known_at if known is None else number < known
            if is_older:
                return
        self.last_commit_at, self.last_commit_generation = at, generation
        self.last_commit_number = number

    @property
    def s3_name(self) -> str:
        """What S3 calls the bucket."""
        return self.bucket_name or self.name

    def overlaps(self, other: Bucket) -> bool:
        """Tell whether both watches list some of the same objects."""
        return (
            self.s3_name == other.s3_name
            and endpoint_name(self.endpoint) == endpoint_name(other.endpoint)
            and (self.prefix.startswith(other.prefix) or other.prefix.startswith(self.prefix))
        )

    @property
    def wanted_events(self) -> list[str]:
        """The event types that are announced, as the wire contract names them."""
        return [kind for kind in EVENT_TYPES if getattr(self, f"announce_{kind}")]

    @property
    def warnings(self) -> tuple[ScanWarning, ...]:
        """What the last complete scan warned of."""
        return scan_warnings.from_rows(self.scan_warnings or [])

    def _wrong_names(self) -> dict[str, str]:
        if self.bucket_name == self.name:
            self.bucket_name = ""
        at = "bucket_name" if self.bucket_name else "name"
        try:
            if self.s3_name:
                validators.bucket_name(self.s3_name, self.endpoint)
            at = "name"
            if self.name:
                validators.watch_name(self.name)
        except ValidationError as exc:
            return {at: exc.messages[0]}
        return {}

    def _refused_addresses(self) -> dict[str, str]:
        """Check new addresses only: a bucket with a refused one can still be paused."""
        fields = ("endpoint", "webhook_url", "webhook_token_url")
        stored = self.pk and Bucket.objects.filter(pk=self.pk).values(*fields).first()
        problems = {}
        for field in fields:
            value = getattr(self, field)
            if value and not (stored and value == stored[field]):
                try:
                    validators.reachable(value, settings.SCANNING.address_rules)
                except ValidationError as exc:
                    problems[field] = exc.messages[0]
                except ValueError:  # no URL at all: its field says so
                    continue
        return problems

    def _bump_generation_if_moved(self) -> None:
        stored = (
            Bucket.objects.select_for_update()
            .filter(pk=self.pk)
            .only("name", "bucket_name", "endpoint", "prefix", "generation", "object_count")
            .first()
        )
        self.renamed_from = stored.name if stored and stored.name != self.name else ""
        if stored and stored.place == self.place:
            self.generation = stored.generation
            return
        now_us = time.time_ns() // 1000
        self.generation = max(now_us, stored.generation + 1 if stored else 0, self.generation)
        # An older monitor's states were for before the first complete scan, and for that bucket.
        self.taken_over = self.taken_over and (stored is None or stored.object_count is None)

    @property
    def place(self) -> tuple[str, ...]:
        """What is compared with what is known: at another place, that no longer counts."""
        return self.name, self.s3_name, self.endpoint, self.prefix
