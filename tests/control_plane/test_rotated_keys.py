"""Keys that somebody changed in the vault itself: the buckets that failed for them are tried."""

import pytest

from buckets import services
from buckets.models import Bucket, Outbox
from buckets.sync import rotated_keys
from buckets.sync.rotated_keys import RotatedKeyWatcher
from scanning import wiring
from scanning.core import redis_keys
from scanning.core.types import KeyPair
from scanning.core.vault_names import halves_of
from tests.support.infisical_server import configured

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def watch(store, monkeypatch) -> RotatedKeyWatcher:
    monkeypatch.setattr(rotated_keys, "CHECK_S", 0.0)
    return RotatedKeyWatcher()


def failing(store, name: str, error: str = "CredentialsRejected") -> None:
    """A bucket whose scans fail, and that is therefore due in years."""
    services.add_bucket(name=name, region="us-iad-1", access_key="OLD", secret_key="OLD")
    Bucket.objects.filter(name=name).update(last_error_class=error)
    store.sadd(redis_keys.REGIONS, "us-iad-1")
    store.zadd(redis_keys.due("us-iad-1"), {name: 4e9})
    store.hset(redis_keys.bucket(name), "failures", 9)


def tried(store) -> set[str]:
    return {str(name) for name in store.zrangebyscore(redis_keys.due("us-iad-1"), "-inf", 3e9)}


@pytest.mark.parametrize("error", ["CredentialsRejected", "AccessDenied", "CredentialMissing"])
def test_a_bucket_is_tried_when_the_vault_holds_other_keys(store, watch, error):
    failing(store, "media-in", error)
    failing(store, "other", error)
    watch.check()
    watch.check()
    assert tried(store) == set()

    wiring.vault().write("MEDIA_IN", KeyPair("NEW", "NEW"))
    watch.check()

    assert tried(store) == {"media-in"}
    assert not Outbox.objects.exists()


def test_keys_that_were_missing_and_came_are_other_keys(store, watch):
    failing(store, "media-in", "CredentialMissing")
    wiring.vault().delete_many(halves_of("MEDIA_IN"))
    watch.check()
    wiring.vault().write("MEDIA_IN", KeyPair("NEW", "NEW"))
    watch.check()
    assert tried(store) == {"media-in"}


def test_keys_that_went_are_no_reason_to_try(store, watch):
    failing(store, "media-in")
    watch.check()
    wiring.vault().delete_many(halves_of("MEDIA_IN"))
    watch.check()
    assert tried(store) == set()


def test_buckets_that_fail_for_other_reasons_or_are_paused_are_left_alone(store, watch):
    failing(store, "media-in", "BucketNotFound")
    failing(store, "paused")
    Bucket.objects.filter(name="paused").update(monitoring_enabled=False)
    watch.check()
    for prefix in ("MEDIA_IN", "PAUSED"):
        wiring.vault().write(prefix, KeyPair("NEW", "NEW"))
    watch.check()
    assert tried(store) == set()


def test_the_vault_is_not_read_more_often_than_once_a_minute(store, watch, monkeypatch):
    failing(store, "media-in")
    watch.check()
    monkeypatch.setattr(rotated_keys, "CHECK_S", 60.0)
    wiring.vault().write("MEDIA_IN", KeyPair("NEW", "NEW"))
    watch.check()
    assert tried(store) == set()


def test_a_vault_that_answers_again_is_news_to_those_it_refused(
    store, watch, infisical_server, settings
):
    settings.SITE = configured(infisical_server)
    wiring.reset()
    failing(store, "media-in", "VaultRefused")
    infisical_server.fail("locked")
    wiring.reset()  # logs in anew
    watch.check()
    assert tried(store) == set()
    infisical_server.reset()
    wiring.reset()
    wiring.vault().write("MEDIA_IN", KeyPair("OLD", "OLD"))
    watch.check()
    assert tried(store) == {"media-in"}
