"""The S3 endpoints that buckets are at, and what an operator set of them."""

from __future__ import annotations

from typing import Any

from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models

from buckets import validators
from scanning.core.endpoint_profile import CHOICES, REGION, EndpointSettings, Fact
from scanning.core.request_costs import MOST_REQUESTS


def _fact(fact: Fact, help_text: str) -> models.CharField[str, str]:
    return models.CharField(
        max_length=16,
        blank=True,
        choices=[(str(value), str(value)) for value in CHOICES[fact]],
        help_text=f"{help_text} Empty: as it is learnt.",
    )


class Endpoint(models.Model):
    """A host of S3, by its `endpoint_name`. Change it through ``services``.

    Rows come and go with the buckets that use them (`sync/endpoints.py`); one that says something
    stays. ``revision`` is of what it says, 0 for nothing yet.
    """

    CHANGEABLE = tuple(EndpointSettings.__slots__)

    name = models.CharField(max_length=255, unique=True, editable=False)
    start_after = _fact(Fact.START_AFTER, "Does a listing begin behind the key asked for?")
    list_version = _fact(Fact.LIST_VERSION, "The newest version of ListObjects that works.")
    url_encoding = _fact(Fact.URL_ENCODING, "Are keys URL-encoded as was asked for?")
    signing_region = models.CharField(
        max_length=63,
        blank=True,
        validators=[
            RegexValidator(rf"\A{REGION}\Z", "Enter a region's name, such as us-east-1 or garage.")
        ],
        help_text="The region that signatures are for. Empty: as it is learnt.",
    )
    addressing = _fact(
        Fact.ADDRESSING, "Is the bucket's name in the path, or in front of the host (virtual)?"
    )
    key_order = _fact(Fact.KEY_ORDER, "Are keys listed in the order of their bytes?")
    totals = _fact(Fact.TOTALS, "Does HEAD of a bucket tell its totals?")
    authorities = models.CharField(
        "certificate authorities",
        max_length=255,
        blank=True,
        validators=[validators.authorities],
        help_text="bundled, system, or the path of a PEM file on every host. "
        "Empty: the bundled ones and the system's.",
    )
    list_per_s = models.FloatField(
        "LIST requests a second",
        null=True,
        blank=True,
        validators=[MinValueValidator(0), MaxValueValidator(100_000)],
        help_text="In one bucket; 0: no limit. Empty: as LIMITS_ENDPOINTS says.",
    )
    connections = models.PositiveIntegerField(
        "requests at once",
        null=True,
        blank=True,
        validators=[MaxValueValidator(100_000)],
        help_text="Of all processes; 0: no limit. Empty: as LIMITS_ENDPOINTS says.",
    )
    requests_per_day = models.PositiveBigIntegerField(
        "requests a day",
        null=True,
        blank=True,
        validators=[MaxValueValidator(MOST_REQUESTS)],
        help_text="A budget (UTC) that all buckets here share; 0 or empty: any number.",
    )
    request_price = models.CharField(
        "price of 1,000 requests",
        max_length=64,
        blank=True,
        default="",
        db_default="",  # hosts of an earlier version add rows without it
        validators=[validators.request_price],
        help_text="Of LIST/HEAD/HEAD of buckets, or one for all, such as 0.005/0.0004. "
        "Empty: as REQUEST_PRICE_PER_1000 says.",
    )
    revision = models.BigIntegerField(default=0, editable=False)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def settings(self) -> EndpointSettings:
        values: dict[str, Any] = {name: getattr(self, name) for name in self.CHANGEABLE}
        return EndpointSettings(**values)
