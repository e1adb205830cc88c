"""What is accepted of a bucket, and what the database itself refuses."""

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from buckets import validators
from buckets.models import Bucket, Credential, Outbox, Revision
from scanning.config.settings import EngineSettings, SecuritySection

pytestmark = pytest.mark.django_db

AWS = "s3.eu-west-1.amazonaws.com"
CEPH = "us-iad-1.linodeobjects.com"


@pytest.fixture
def credential() -> Credential:
    return Credential.objects.create(name="shared", vault_prefix="SHARED")


@pytest.fixture
def make(credential):
    def make(**values: Any) -> Bucket:
        defaults = {"name": "media-in", "region": "us-iad-1", "endpoint": "us-iad-1.example.com"}
        return Bucket(**defaults | {"credential": credential} | values)

    return make


@pytest.mark.parametrize(
    "name", ["abc", "a-b", "a.b.c", "0-9", "media--in", "x" * 63, "1.2.3", "1.2.3.4.5", "a1.2.3.4"]
)
def test_names_that_s3_allows_are_accepted(name):
    validators.bucket_name(name, AWS)
    validators.watch_name(name)


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        pytest.param("", "3 to 63", id="empty"),
        pytest.param("ab", "3 to 63", id="too-short"),
        pytest.param("x" * 64, "3 to 63", id="too-long"),
        pytest.param("Media", "lower-case", id="upper-case"),
        pytest.param("a_b", "lower-case", id="underscore"),
        pytest.param("a b", "lower-case", id="space"),
        pytest.param("médias", "lower-case", id="accent"),
        pytest.param("٣٤٥", "lower-case", id="other-digits"),
        pytest.param("media\n", "lower-case", id="line-end"),
        pytest.param("s3://media", "without s3://", id="url"),
        pytest.param("media/in", "without a path", id="path"),
        pytest.param("-media", "begins and ends", id="hyphen-first"),
        pytest.param("media-", "begins and ends", id="hyphen-last"),
        pytest.param(".media", "begins and ends", id="dot-first"),
        pytest.param("media.", "begins and ends", id="dot-last"),
        pytest.param("me..dia", "two dots", id="two-dots"),
        pytest.param("192.168.5.4", "not an IP address", id="ipv4"),
        pytest.param("xn--media", "reserves", id="xn--"),
        pytest.param("sthree-media", "reserves", id="sthree-"),
        pytest.param("media-s3alias", "own name", id="-s3alias"),
        pytest.param("media--ol-s3", "own name", id="--ol-s3"),
    ],
)
def test_names_that_break_s3s_rules_are_refused_with_the_fix(name, fix):
    with pytest.raises(ValidationError, match=fix):
        validators.bucket_name(name, AWS)


@pytest.mark.parametrize("name", ["Media_In", "tenant:bucket", "_media-", "a..b", "x" * 255])
def test_a_server_that_is_not_awss_may_have_names_as_ceph_takes_them(name):
    validators.bucket_name(name, CEPH)
    with pytest.raises(ValidationError):
        validators.bucket_name(name, AWS)


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        pytest.param("ab", "3 to 255", id="too-short"),
        pytest.param("x" * 256, "3 to 255", id="too-long"),
        pytest.param("two words", "without s3://", id="space"),
        pytest.param("media\n", "without s3://", id="line-end"),
        pytest.param("média", "without s3://", id="accent"),
        pytest.param("media/in", "without a path", id="path"),
        pytest.param("s3://media", "without s3://", id="url"),
        pytest.param("a:b:media", "tenant and colon", id="two-tenants"),
        pytest.param("10.0.0.1", "not an IP address", id="ipv4"),
        pytest.param("arn:media", "ARN", id="arn"),
    ],
)
def test_names_that_no_server_has_are_refused_with_the_fix(name, fix):
    with pytest.raises(ValidationError, match=fix):
        validators.bucket_name(name, CEPH)


@pytest.mark.parametrize(
    "name", [":media", "_media", "media-", "a:b:c", "a:notifications_disabled"]
)
def test_a_name_that_redis_could_not_tell_apart_is_not_a_watchs(make, name):
    with pytest.raises(ValidationError) as refused:
        make(name=name, bucket_name="media-in").full_clean()
    assert "a name of its own" in refused.value.message_dict["name"][0]


def test_a_long_or_odd_name_in_s3_is_that_of_a_watch_with_a_name_of_its_own(make):
    for name in (":media", "tenant:" + "x" * 200):
        bucket = make(bucket_name=name)
        bucket.full_clean()
        assert bucket.s3_name == name


def test_a_name_in_s3_that_is_the_watchs_is_stored_once(make):
    bucket = make(bucket_name="media-in")
    bucket.full_clean()
    assert (bucket.bucket_name, bucket.s3_name) == ("", "media-in")


def test_a_bucket_with_cephs_name_cannot_move_to_aws(make):
    with pytest.raises(ValidationError) as refused:
        make(name="Media_In", endpoint=AWS).full_clean()
    assert "lower-case" in refused.value.message_dict["name"][0]
    with pytest.raises(ValidationError) as refused:
        make(bucket_name="tenant:media", endpoint=AWS).full_clean()
    assert "lower-case" in refused.value.message_dict["bucket_name"][0]


@pytest.mark.parametrize(
    ("one", "other", "do"),
    [
        ({}, {"name": "copy", "bucket_name": "media-in"}, True),
        ({"prefix": "a/"}, {"prefix": "a/b/"}, True),
        ({"prefix": "a/"}, {"prefix": "b/"}, False),
        ({}, {"endpoint": "eu-1.example.com"}, False),
        ({}, {"endpoint": "https://US-IAD-1.example.com"}, True),
        ({}, {"name": "media-out"}, False),
    ],
)
def test_watches_overlap_if_they_list_the_same_objects(make, one, other, do):
    assert make(**one).overlaps(make(**other)) is do
    assert make(**other).overlaps(make(**one)) is do


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("us-iad-1.linodeobjects.com", "us-iad-1.linodeobjects.com"),
        (" US-IAD-1.LinodeObjects.com ", "us-iad-1.linodeobjects.com"),
        ("https://s3.example.com/", "s3.example.com"),
        ("https://s3.example.com:443", "s3.example.com"),
        ("s3.example.com:8443", "s3.example.com:8443"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("http://localhost:80/", "http://localhost"),
        ("http://minio_1:9000", "http://minio_1:9000"),
        ("http://[::1]:9000", "http://[::1]:9000"),
    ],
)
def test_endpoints_are_stored_in_one_form(typed, stored):
    assert validators.endpoint(typed) == stored
    assert validators.endpoint(stored) == stored


@pytest.mark.parametrize(
    ("typed", "fix"),
    [
        ("", "host name"),
        ("two words", "host name"),
        ("http://", "host name"),
        ("-host", "host name"),
        ("host..com", "host name"),
        ("a" * 254, "host name"),
        ("http://[::1", "host name"),
        ("http://[v1.x]", "host name"),
        ("[v1.x]:9000", "host name"),
        ("ftp://host", "begins with https:// or http://"),
        ("host/bucket", "no path"),
        ("host?x=1", "no path"),
        ("host#x", "no path"),
        ("https://me:secret@host", "no user name"),
        ("https://@host", "no user name"),
        ("host:0", "1 to 65535"),
        ("host:", "1 to 65535"),
        ("host:65536", "1 to 65535"),
        ("host:port", "1 to 65535"),
    ],
)
def test_endpoints_that_are_none_are_refused_with_the_fix(typed, fix):
    with pytest.raises(ValidationError, match=fix) as refused:
        validators.endpoint(typed)
    assert "secret@" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "fix"),
    [
        ("api.example.com/hook", "begins with https://"),
        ("ftp://api.example.com", "begins with https://"),
        ("https://", "names a host"),
        ("https://two words", "names a host"),
        ("https://host:99999", "names a host"),
        ("https://[::1", "names a host"),
        ("https://[v1.x]/hook", "names a host"),
        ("https://10.0.0%2e1/", "names a host"),
        ("https://exa%6dple.com/", "names a host"),
        ("https://10.0.0.1\\.example.com/", "names a host"),
        ("https://a..example.com/", "names a host"),
        ("https://" + "a" * 254, "names a host"),
        ("https://me:secret@host/", "must not hold a user name"),
    ],
)
def test_webhook_urls_that_are_none_are_refused_with_the_fix(url, fix):
    with pytest.raises(ValidationError, match=fix) as refused:
        validators.url(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.com/hook?a=b",
        "http://consumer:8080/",
        "https://API.example.com./%2e/",
        "https://hook_1.example.com",
        "https://[2606:4700::1111]:8443/",
    ],
)
def test_webhook_urls_may_be_inside_the_own_network(url):
    validators.url(url)


@pytest.mark.parametrize(
    ("region", "endpoint", "stored"),
    [
        ("us-iad-1", "", ("us-iad-1", "us-iad-1.linodeobjects.com")),
        ("us-iad-1.example.com", "", ("us-iad-1.example.com", "us-iad-1.example.com")),
        ("", "https://s3.example.com/", ("s3.example.com", "s3.example.com")),
        ("", "http://127.0.0.1:9000", ("127.0.0.1:9000", "http://127.0.0.1:9000")),
        ("dc1", "s3.example.com:8443", ("dc1", "s3.example.com:8443")),
    ],
)
def test_region_and_endpoint_are_filled_in_from_each_other(make, region, endpoint, stored):
    bucket = make(region=region, endpoint=endpoint)

    bucket.full_clean()

    assert (bucket.region, bucket.endpoint) == stored


@pytest.mark.parametrize(
    ("pattern", "stored"),
    [
        ("s3.{region}.example.com", "s3.nl-1.example.com"),
        ("http://minio-{region}:9000", "http://minio-nl-1:9000"),
    ],
)
def test_the_endpoint_of_a_region_is_the_one_that_the_site_configured(
    make, settings, pattern, stored
):
    conf = settings.SCANNING
    defaults = conf.defaults.model_copy(update={"region_endpoint": pattern})
    settings.SCANNING = conf.model_copy(update={"defaults": defaults})
    bucket = make(region="nl-1", endpoint="")

    bucket.full_clean()

    assert (bucket.region, bucket.endpoint) == ("nl-1", stored)


def test_a_bucket_without_region_and_endpoint_is_refused_at_both(make):
    with pytest.raises(ValidationError) as refused:
        make(region="", endpoint="").full_clean()

    assert set(refused.value.message_dict) == {"region", "endpoint"}


@pytest.mark.parametrize("seconds", [0, 604_801])
def test_a_polling_interval_out_of_bounds_is_refused_with_the_bound(make, seconds):
    with pytest.raises(ValidationError) as refused:
        make(polling_interval=seconds).full_clean()

    assert "Enter at" in refused.value.message_dict["polling_interval"][0]


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"name": "Media "}, id="name"),
        pytest.param({"region": ""}, id="region"),
        pytest.param({"endpoint": ""}, id="endpoint"),
        pytest.param({"polling_interval": 0}, id="interval-too-short"),
        pytest.param({"polling_interval": 604_801}, id="interval-too-long"),
        pytest.param({"polling_longest": 604_801}, id="longest-interval-too-long"),
        pytest.param({"probe_interval": 604_801}, id="probes-too-far-apart"),
        pytest.param({"lanes": 0}, id="no-lane"),
        pytest.param({"lanes": 17}, id="too-many-lanes"),
        pytest.param({"most_objects": -1}, id="less-than-no-objects"),
        pytest.param({"webhook_client_id": "me"}, id="half-of-oauth2"),
    ],
)
def test_the_database_refuses_what_no_form_would_have_let_through(make, values):
    with pytest.raises(IntegrityError), transaction.atomic():
        make(**values).save()
    assert not Bucket.objects.exists()


@pytest.mark.parametrize("lanes", [0, 17])
def test_lanes_out_of_bounds_are_refused_with_the_bound(make, lanes):
    with pytest.raises(ValidationError) as refused:
        make(lanes=lanes).full_clean()

    assert "Enter at" in refused.value.message_dict["lanes"][0]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("endpoint", "http://10.1.2.3:9000"),
        ("endpoint", "0x7f.1"),
        ("endpoint", "169.254.169.254"),
        ("webhook_url", "http://localhost/hook"),
        ("webhook_token_url", "https://[::ffff:192.168.1.1]/token"),
    ],
)
def test_private_addresses_are_refused_with_the_setting_that_allows_them(
    make, settings, field, value
):
    settings.SCANNING = EngineSettings()
    bucket = make(webhook_url="https://api.example.com", webhook_client_id="me")
    bucket.webhook_token_url = "https://auth.example.com"
    setattr(bucket, field, value)

    with pytest.raises(ValidationError) as refused:
        bucket.full_clean()

    [message] = refused.value.message_dict[field]
    assert "SECURITY_ALLOWED_NETWORKS" in message
    settings.SCANNING = EngineSettings(
        security=SecuritySection(
            allowed_networks="10.0.0.0/8,127.0.0.0/8,169.254.0.0/16,192.168.0.0/16"
        )
    )
    bucket.full_clean()


def test_a_bucket_at_an_address_that_is_not_allowed_any_more_can_be_changed_otherwise(
    make, settings
):
    bucket = make(endpoint="http://127.0.0.1:9000")
    bucket.save()
    settings.SCANNING = EngineSettings()

    bucket.monitoring_enabled = False
    bucket.full_clean()


def test_names_and_vault_prefixes_are_unique_in_the_database(make):
    make().save()
    with pytest.raises(IntegrityError), transaction.atomic():
        make().save()
    with pytest.raises(IntegrityError), transaction.atomic():
        Credential.objects.create(name="other", vault_prefix="SHARED")
    with pytest.raises(IntegrityError), transaction.atomic():
        Credential.objects.create(name="lower", vault_prefix="lower")


@pytest.mark.parametrize("field", ["name", "bucket_name", "endpoint", "prefix"])
def test_a_bucket_that_now_is_another_one_gets_a_later_generation(make, field):
    bucket = make()
    bucket.save()
    generation = bucket.generation
    assert generation > 0
    bucket.webhook_url = "https://api.example.com"
    bucket.generation = 5
    bucket.save()
    assert bucket.generation == generation

    setattr(bucket, field, "another")
    bucket.save(update_fields=[field])

    assert Bucket.objects.get().generation > generation


def test_a_bucket_in_another_region_is_the_same_one(make):
    bucket = make()
    bucket.save()
    generation = bucket.generation

    bucket.region = "another"
    bucket.save()

    assert Bucket.objects.get().generation == generation


@pytest.mark.parametrize(("scanned", "counts"), [(None, True), (0, False)])
def test_an_older_monitors_states_count_until_a_bucket_that_was_scanned_is_another_one(
    make, scanned, counts
):
    bucket = make(taken_over=True)
    bucket.save()
    Bucket.objects.update(object_count=scanned)

    bucket.webhook_url = "https://api.example.com"
    bucket.save()
    assert Bucket.objects.get().taken_over
    bucket.endpoint = "another"
    bucket.save(update_fields=["endpoint"])

    assert Bucket.objects.get().taken_over is counts


def test_a_bucket_that_is_added_again_gets_a_later_generation(make):
    first = make()
    first.save()
    first.delete()
    second = make()
    second.save()

    assert second.generation > first.generation


def test_saving_does_not_touch_the_status_columns(make):
    bucket = make()
    bucket.save()
    Bucket.objects.update(object_count=12, last_error="Access denied")

    bucket.webhook_url = "https://api.example.com"
    bucket.save()

    stored = Bucket.objects.get()
    assert (stored.object_count, stored.last_error) == (12, "Access denied")
    assert stored.webhook_url == "https://api.example.com"


def test_every_save_and_delete_leaves_a_row_in_the_outbox(make, credential):
    bucket = make()
    bucket.save()
    bucket.save(update_fields=["webhook_url"])
    bucket.name = "renamed"
    bucket.save()
    credential.name = "renamed"
    credential.save()
    credential.vault_prefix = "OTHER"
    credential.save()
    Bucket.objects.all().delete()

    rows = list(Outbox.objects.values_list("bucket", flat=True))
    assert rows == ["media-in", "media-in", "media-in", "renamed", "renamed", "renamed"]


def test_a_change_that_is_rolled_back_leaves_no_row(make):
    def save_and_fail() -> None:
        with transaction.atomic():
            make().save()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        save_and_fail()

    assert not Outbox.objects.exists()


def test_revisions_grow_also_when_the_database_was_restored_from_a_backup():
    revisions = [Revision.following() for _ in range(3)]
    assert revisions == sorted(set(revisions))

    Revision.objects.all().delete()
    assert Revision.following() > revisions[-1]

    in_the_future = Revision.following() + 10**9
    Revision.objects.update(value=in_the_future)
    assert Revision.following() == in_the_future + 1
