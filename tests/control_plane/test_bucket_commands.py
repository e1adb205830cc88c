"""Programs change buckets through the monitor's documented methods as they do through the API."""

from typing import Any

import pytest
from django.core.cache import cache
from django.core.exceptions import ValidationError

from buckets import services
from buckets.models import Bucket, Credential
from scanning import wiring
from scanning.core import redis_keys
from scanning.core.types import KeyPair
from scanning.runtime.monitor import MultiRegionMonitor
from tests.support import api_client

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def monitor(redis_server):
    return MultiRegionMonitor(web=False, workers=False)


def test_an_added_bucket_is_scheduled_at_once(monitor, redis_server):
    monitor.add_bucket_to_active_config(api_client.new_bucket_body(polling_interval=30))

    assert monitor.buckets["media-in"].polling_interval_s == 30
    region = "us-iad-1.linodeobjects.com"
    assert monitor.region_pools.keys() == {region}
    assert redis_server.client().zscore(redis_keys.due(region), "media-in") is not None
    assert wiring.vault().read_all() == {
        "MEDIA_IN": KeyPair(api_client.ACCESS_KEY, api_client.SECRET_KEY)
    }


def test_a_changed_bucket_is_known_to_the_monitor_at_once(monitor):
    monitor.add_bucket_to_active_config(api_client.new_bucket_body())
    oauth = {"client_id": "c", "client_secret": "s", "token_url": "https://auth.example.com/token"}
    monitor.update_bucket_config({"name": "media-in", "endpoint": "localhost:9000"} | oauth)

    assert monitor.buckets["media-in"].endpoint == "localhost:9000"
    assert Bucket.objects.get().webhook_client_id == "c"


def test_only_a_changed_endpoint_clears_the_s3_clients(monitor):
    monitor.add_bucket_to_active_config(api_client.new_bucket_body())
    clients = wiring.client_cache()
    clients.get_client(monitor.buckets["media-in"].endpoint, "a", "s")

    monitor.update_bucket_config({"name": "media-in", "polling_interval": 9})
    assert clients.get_stats()["total_clients"] == 1
    monitor.update_bucket_config({"name": "media-in", "endpoint": "localhost:9000"})
    assert clients.get_stats()["total_clients"] == 0


def test_an_update_that_changes_nothing_is_accepted(monitor):
    monitor.add_bucket_to_active_config(api_client.new_bucket_body())
    before = Bucket.objects.get().updated_at
    monitor.update_bucket_config({"name": "media-in", "colour": "blue"})
    assert Bucket.objects.get().updated_at == before


def test_a_deleted_bucket_leaves_no_trace(monitor, redis_server):
    monitor.add_bucket_to_active_config(api_client.new_bucket_body())
    monitor.delete_bucket_config("media-in")

    assert monitor.buckets == {}
    assert not redis_server.client().exists(redis_keys.config("media-in"))
    assert not Credential.objects.exists()
    assert wiring.vault().read_all() == {}


BAD_BODIES: dict[str, dict[str, Any]] = {
    "without anything": dict.fromkeys(api_client.new_bucket_body(), ...),
    "with a bad name": {"name": "Media In"},
    "with a number for a name": {"name": 5},
    "with an interval in text": {"polling_interval": "60"},
    "with neither region nor endpoint": {"endpoint": ...},
    "with half an OAuth client": {"client_id": "c"},
    "with a path in the endpoint": {"endpoint": "https://s3.example.com/media-in"},
    "with a key of two lines": {"secret_key": "one\ntwo"},
}


@pytest.mark.parametrize("changes", BAD_BODIES.values(), ids=BAD_BODIES)
def test_what_is_refused_is_refused_as_by_the_api(changes, monitor):
    api_client.use_fast_hashes()
    cache.clear()
    body = api_client.new_bucket_body(**changes)
    answer = api_client.Caller(api_client.new_client()[0]).post("/api/buckets/add", body)

    with pytest.raises(ValidationError) as caught:
        monitor.add_bucket_to_active_config(body)

    assert answer.status_code == 400
    assert answer.json()["fields"] == caught.value.message_dict
    assert not Bucket.objects.exists()


def test_a_bucket_cannot_be_added_twice(monitor):
    monitor.add_bucket_to_active_config(api_client.new_bucket_body())
    with pytest.raises(services.BucketExists, match="media-in is watched already"):
        monitor.add_bucket_to_active_config(api_client.new_bucket_body())


def test_new_keys_come_as_a_pair(monitor):
    monitor.add_bucket_to_active_config(api_client.new_bucket_body())
    with pytest.raises(ValidationError, match="both halves of the key pair"):
        monitor.update_bucket_config({"name": "media-in", "access_key": "AKIANEW"})


def test_an_unknown_bucket_is_named(monitor):
    with pytest.raises(Bucket.DoesNotExist, match="no bucket 'media-out' here"):
        monitor.delete_bucket_config("media-out")
    with pytest.raises(Bucket.DoesNotExist, match="no bucket 'media-out' here"):
        monitor.update_bucket_config({"name": "media-out", "polling_interval": 5})


def test_a_deletion_names_its_bucket(monitor):
    with pytest.raises(ValidationError, match="must not be empty"):
        monitor.delete_bucket_config("")
