"""Endpoints in the database: rows that come with buckets, settings that reach the scanner."""

import pytest
from django.core.exceptions import ValidationError
from django.urls import reverse

from buckets import services
from buckets.models import Endpoint
from buckets.sync import endpoints
from scanning import wiring
from scanning.core.endpoint_profile import EndpointSettings, Fact, KeyOrder, StartAfter
from scanning.core.errors import UnsupportedKeyOrder
from scanning.core.pacing import EndpointLimits
from scanning.core.remedies import REMEDIES

pytestmark = pytest.mark.django_db(transaction=True)
HOST = "s3.example.com"


@pytest.fixture
def bucket(store):
    return services.add_bucket(
        name="media-in", endpoint=f"https://{HOST}", access_key="a", secret_key="s"
    )


@pytest.fixture
def endpoint(bucket) -> Endpoint:
    return Endpoint.objects.get(name=HOST)


def profile():
    return wiring.interactive().endpoint_profiles.read_all([HOST])[HOST]


def test_an_endpoint_has_a_row_as_soon_as_a_bucket_uses_it(bucket):
    assert [row.name for row in Endpoint.objects.all()] == [HOST]
    endpoints.catch_up()
    assert Endpoint.objects.count() == 1


def test_a_row_that_says_nothing_goes_with_the_last_bucket_and_one_that_does_stays(
    bucket, endpoint
):
    services.add_bucket(name="other", endpoint="other.example", access_key="a", secret_key="s")
    services.update_endpoint(endpoint=endpoint, addressing="virtual")
    for row in [bucket, *type(bucket).objects.filter(name="other")]:
        services.delete_bucket(bucket=row)
    endpoints.catch_up()
    assert [row.name for row in Endpoint.objects.all()] == [HOST]


def test_what_is_set_reaches_the_scanner_and_wins_over_what_is_learnt(endpoint):
    wiring.interactive().endpoint_profiles.learn(HOST, {Fact.START_AFTER: StartAfter.EXCLUSIVE})
    services.update_endpoint(
        endpoint=endpoint, start_after="ignored", list_per_s=5, connections=0, authorities="system"
    )
    found = profile()
    assert found.settings == EndpointSettings(
        start_after="ignored", list_per_s=5, connections=0, authorities="system"
    )
    assert found.start_after is StartAfter.IGNORED
    services.update_endpoint(endpoint=endpoint, start_after="")
    assert profile().start_after is StartAfter.EXCLUSIVE


def test_limits_that_are_set_count_for_the_next_request_and_others_stay_configured(
    endpoint, settings
):
    services.update_endpoint(endpoint=endpoint, connections=7)
    assert wiring.interactive().endpoints.limiter_for(HOST).limits == EndpointLimits(0, 7)
    assert wiring.interactive().endpoints.limiter_for("us-iad-1.linodeobjects.com").limits == (
        EndpointLimits(100, 750)
    )


def test_settings_that_redis_lost_are_written_again(endpoint, store):
    services.update_endpoint(endpoint=endpoint, signing_region="garage")
    store.flushall()
    endpoints.catch_up()
    assert profile().signing_region == "garage"


def test_a_database_from_a_backup_is_believed(endpoint):
    services.update_endpoint(endpoint=endpoint, signing_region="garage")
    before = Endpoint.objects.get(pk=endpoint.pk)
    services.update_endpoint(endpoint=endpoint, signing_region="later")
    Endpoint.objects.filter(pk=endpoint.pk).update(
        signing_region="garage", revision=before.revision
    )
    endpoints.catch_up()
    assert profile().signing_region == "garage"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("start_after", "sometimes"),
        ("signing_region", "a b"),
        ("authorities", "mine.pem"),
        ("list_per_s", -1),
        ("connections", -1),
    ],
)
def test_what_makes_no_sense_is_refused_at_its_field(endpoint, field, value):
    with pytest.raises(ValidationError) as refused:
        services.update_endpoint(endpoint=endpoint, **{field: value})
    assert list(refused.value.message_dict) == [field]
    assert profile().settings == EndpointSettings()


def test_learning_again_forgets_what_was_learnt_and_nothing_that_is_set(endpoint):
    services.update_endpoint(endpoint=endpoint, addressing="virtual")
    wiring.interactive().endpoint_profiles.learn(
        HOST, {Fact.START_AFTER: StartAfter.IGNORED}, asked=True
    )
    services.learn_again(endpoint=endpoint)
    found = profile()
    assert (found.learnt, found.asked_at, found.addressing) == ({}, 0, "virtual")


class TestPage:
    def test_it_shows_how_the_endpoint_stands_and_what_is_known(self, admin_client, endpoint):
        wiring.interactive().endpoint_profiles.learn(HOST, {Fact.START_AFTER: StartAfter.INCLUSIVE})
        page = admin_client.get(reverse("admin:buckets_endpoint_change", args=[endpoint.pk]))
        text = page.content.decode()
        for shown in ("not asked lately", "inclusive", "learnt", "Learn again", "1 bucket<"):
            assert shown in text
        assert HOST in admin_client.get(reverse("admin:buckets_endpoint_changelist")).text

    def test_keys_in_another_order_are_said_at_the_endpoint_and_in_the_list(
        self, admin_client, endpoint
    ):
        page = reverse("admin:buckets_endpoint_change", args=[endpoint.pk])
        every = reverse("admin:buckets_endpoint_changelist")
        said = REMEDIES[UnsupportedKeyOrder].next_step
        assert said not in admin_client.get(page).text
        assert ">key order<" not in admin_client.get(every).text
        wiring.interactive().endpoint_profiles.learn(HOST, {Fact.KEY_ORDER: KeyOrder.OTHER})
        assert said in admin_client.get(page).text
        assert ">key order<" in admin_client.get(every).text

    def test_settings_are_saved(self, admin_client, endpoint):
        url = reverse("admin:buckets_endpoint_change", args=[endpoint.pk])
        admin_client.post(url, {"addressing": "virtual", "list_per_s": "12"})
        assert profile().settings == EndpointSettings(addressing="virtual", list_per_s=12)

    def test_what_is_refused_is_said(self, admin_client, endpoint):
        url = reverse("admin:buckets_endpoint_change", args=[endpoint.pk])
        page = admin_client.post(url, {"authorities": "mine.pem"})
        assert "the path of a file, beginning with /" in page.content.decode()

    def test_the_button_has_it_learn_again(self, admin_client, endpoint):
        wiring.interactive().endpoint_profiles.learn(HOST, {}, asked=True)
        url = reverse("admin:buckets_endpoint_learn", args=[endpoint.pk])
        assert admin_client.get(url).status_code == 405
        assert admin_client.post(url).status_code == 302
        assert profile().asked_at == 0

    def test_who_may_only_look_changes_nothing(self, client, django_user_model, endpoint):
        from django.contrib.auth.models import Group  # noqa: PLC0415

        user = django_user_model.objects.create_user("viewer", is_staff=True)
        user.groups.set(Group.objects.filter(name="viewer"))
        client.force_login(user)
        page = client.get(reverse("admin:buckets_endpoint_change", args=[endpoint.pk]))
        assert page.status_code == 200
        assert "Learn again" not in page.content.decode()
        url = reverse("admin:buckets_endpoint_learn", args=[endpoint.pk])
        assert client.post(url).status_code == 403


class TestProviders:
    @pytest.mark.parametrize(
        ("endpoint", "stored"),
        [
            ("s3.{region}.wasabisys.com", "s3.eu-central-1.wasabisys.com"),
            ("http://{region}.ceph.example:7480", "http://eu-central-1.ceph.example:7480"),
            ("", "eu-central-1.linodeobjects.com"),
        ],
    )
    def test_a_pattern_takes_the_region_in_and_a_region_alone_is_the_configured_one(
        self, store, endpoint, stored
    ):
        made = services.add_bucket(
            name="b-1", endpoint=endpoint, region="eu-central-1", access_key="a", secret_key="s"
        )
        assert (made.endpoint, made.region) == (stored, "eu-central-1")

    def test_a_pattern_without_a_region_is_refused(self, store):
        with pytest.raises(ValidationError, match="Enter the region too"):
            services.add_bucket(
                name="b-1", endpoint="s3.{region}.scw.cloud", access_key="a", secret_key="s"
            )

    def test_the_form_offers_them_without_a_script(self, admin_client):
        page = admin_client.get(reverse("admin:buckets_bucket_add")).content.decode()
        assert 'list="endpoint-providers"' in page
        assert '<option value="s3.{region}.wasabisys.com">Wasabi</option>' in page
