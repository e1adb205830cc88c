"""What scans warn of reaches pages, API, metrics and commands: number, examples, next step."""

import json
from dataclasses import replace

import pytest
from django.urls import reverse

from buckets import services
from buckets.health.alerts import AlertKind, alerts
from buckets.models import Bucket
from buckets.sync import scan_status
from scanning import engine, wiring
from scanning.core import scan_warnings
from scanning.core.errors import TooManyObjects
from scanning.core.remedies import REMEDIES
from scanning.core.scan_warnings import EXPLAINED, ScanWarnings, WarningKind
from scanning.management.output import result_line
from tests.support import engine_buckets

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def result(store):
    """A complete scan that found two rows that cannot be read, as it is recorded."""
    services.add_bucket(name="media-in", region="us-iad-1", access_key="A", secret_key="S")
    warnings = ScanWarnings()
    warnings.add(WarningKind.ODD_ROW, "caf\xe9\x1b[2J", "b" * 500)
    found = replace(engine_buckets.result("media-in"), warnings=tuple(warnings))
    bucket = wiring.background().bucket_configs.get("media-in")
    assert bucket is not None
    claim = wiring.background().leases.claim(bucket, slots=15)
    assert claim is not None
    wiring.background().leases.finish(claim, found, next_due=None)
    scan_status.flush()
    return found


def test_the_page_of_the_bucket_names_the_keys_and_the_next_step(result, operator):
    bucket = Bucket.objects.get(name="media-in")
    page = operator.get(reverse("admin:buckets_bucket_overview", args=[bucket.pk])).text
    assert "2 objects listed in a way that cannot be read" in page
    assert "caf\xe9\\x1b[2J" in page
    assert EXPLAINED[WarningKind.ODD_ROW].next_step in page


def test_an_alert_a_line_and_a_counter_tell_of_them(result):
    found = alerts(engine.telemetry(), ())
    [alert] = [one for one in found if one.kind is AlertKind.SCAN_WARNING]
    assert (alert.bucket, alert.count) == ("media-in", 1)
    assert alert.next_step == EXPLAINED[WarningKind.ODD_ROW].next_step
    assert "2 listed in a way that cannot be read" in result_line(result)
    text, _ = engine.metrics_text("prometheus")
    assert b'bucketwatch_scan_warnings_total{kind="odd_row"} 2.0' in text
    assert json.loads(json.dumps(result.as_json()))["warnings"] == {"odd_row": 2}


def test_examples_are_few_printable_and_cut():
    warnings = ScanWarnings()
    for number in range(9):
        warnings.add(WarningKind.ODD_ROW, f"{number}\x1b\u202e" + "k" * 400)
    [warning] = warnings
    assert warning.count == 9
    assert len(warning.examples) == scan_warnings.MOST_EXAMPLES
    assert all(text.isprintable() and len(text) <= 200 for text in warning.examples)


def test_warnings_survive_redis_and_kinds_of_a_later_version_are_left_out():
    warnings = ScanWarnings()
    warnings.add(WarningKind.HEAD_REFUSED, "b", "a")
    text = scan_warnings.as_json(warnings)
    assert scan_warnings.from_json(text) == tuple(warnings)
    assert scan_warnings.from_json('[["from_the_future", 1]]') == ()
    assert scan_warnings.as_json(()) == ""


def test_every_kind_says_what_to_do():
    assert set(EXPLAINED) == set(WarningKind)


def test_a_bucket_with_too_many_objects_is_one_line_with_numbers_and_the_remedy(store, operator):
    services.add_bucket(name="media-in", region="us-iad-1", access_key="A", secret_key="S")
    error = TooManyObjects.of("media-in", limit=200_000_000, left_out=25)
    warnings = ScanWarnings()
    warnings.add(WarningKind.LEFT_OUT, "z-1", count=25)
    found = replace(
        engine_buckets.result("media-in"),
        warnings=tuple(warnings),
        error=str(error),
        error_class="TooManyObjects",
        permanent=True,
        commit=0,
    )
    bucket = wiring.background().bucket_configs.get("media-in")
    assert bucket is not None
    claim = wiring.background().leases.claim(bucket, slots=15)
    assert claim is not None
    wiring.background().leases.finish(claim, found, next_due=None)
    scan_status.flush()

    about_it = [one for one in alerts(engine.telemetry(), ()) if one.bucket == "media-in"]
    [alert] = about_it
    assert alert.kind is AlertKind.FAILING
    assert "more than 200,000,000 objects, the most that it may (SCAN_MOST_OBJECTS" in alert.reason
    assert alert.next_step == REMEDIES[TooManyObjects].next_step
    text, _ = engine.metrics_text("prometheus")
    assert b'bucketwatch_scan_errors_total{class="TooManyObjects"} 1.0' in text
    assert b'bucketwatch_scan_warnings_total{kind="left_out"} 25.0' in text
    pk = Bucket.objects.get(name="media-in").pk
    page = operator.get(reverse("admin:buckets_bucket_overview", args=[pk])).text
    assert "200,000,000 objects" in page
    assert "z-1" in page
    form = operator.get(reverse("admin:buckets_bucket_change", args=[pk])).text
    assert "the configured default, 200,000,000." in form
