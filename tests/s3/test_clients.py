"""`S3ClientCache`: who gets which client, and what may influence it."""

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from typing import Any

import botocore.handlers
import pytest

from scanning.adapters.s3 import listing
from scanning.adapters.s3.clients import signing_region
from scanning.adapters.s3.storage import S3ClientCache, S3Storage
from scanning.config.settings import DefaultsSection, EngineSettings, StorageSection
from scanning.core.errors import AddressRefused, StorageUnavailable
from scanning.core.types import BucketConfig, KeyPair
from tests.support.canned_http import Answer, CannedServer
from tests.support.listing_bodies import Row, rgw
from tests.support.servers import LOCAL

BODY = rgw([Row("a")])


@pytest.fixture
def cache():
    cache = S3ClientCache(LOCAL)
    yield cache
    cache.clear_cache()


def test_the_same_endpoint_and_keys_get_the_same_client(cache):
    one = cache.get_client("s3.example", "id", "secret")
    assert cache.get_client("s3.example", "id", "secret") is one
    assert cache.get_client("https://s3.example/", "id", "secret") is one
    assert cache.get_stats() == {
        "cache_hits": 2,
        "cache_misses": 1,
        "total_clients": 1,
        "evictions": 0,
        "unrecognised_bodies": 0,
    }


@pytest.mark.parametrize(
    "other",
    [
        ("s3.example:443", "id", "secret"),
        ("s3.example", "id2", "secret"),
        ("s3.example", "id", "x"),
    ],
    ids=["endpoint", "access key", "secret key"],
)
def test_another_endpoint_or_key_gets_another_client(cache, other):
    assert cache.get_client("s3.example", "id", "secret") is not cache.get_client(*other)


def test_parts_of_a_key_cannot_be_mistaken_for_each_other(cache):
    assert cache.get_client_key("e", "ab", "c") != cache.get_client_key("e", "a", "bc")


def test_a_client_key_tells_neither_half_of_the_pair(cache):
    key = cache.get_client_key("s3.example", "AKIDPUBLIC", "very-secret")
    assert "AKIDPUBLIC" not in key
    assert "very-secret" not in key
    assert key == cache.get_client_key("s3.example", "AKIDPUBLIC", "very-secret")


def test_the_least_recently_used_client_goes_first():
    cache = S3ClientCache(LOCAL, limit=2)
    first, second = (cache.get_client("s3.example", name, "s") for name in "ab")
    assert cache.get_client("s3.example", "a", "s") is first
    cache.get_client("s3.example", "c", "s")
    assert cache.get_client("s3.example", "a", "s") is first
    assert cache.get_client("s3.example", "b", "s") is not second
    assert cache.get_stats()["total_clients"] == 2
    assert cache.get_stats()["evictions"] == 2


def test_a_client_that_was_evicted_still_works_for_whoever_holds_it():
    cache = S3ClientCache(LOCAL, limit=1)
    with CannedServer(Answer(200, BODY)) as server:
        held = cache.get_client(server.url, "a", "s")
        held.list_objects_v2(Bucket="photos")
        cache.get_client(server.url, "b", "s")
        held.list_objects_v2(Bucket="photos")
        assert len(server.asked) == 2
        cache.clear_cache()


def test_clients_of_an_endpoint_share_connections_whatever_their_keys(cache):
    with CannedServer(Answer(200, BODY)) as server:
        for access_key in "abc":
            cache.get_client(server.url, access_key, "s").list_objects_v2(Bucket="photos")
        assert len(server.asked) == 3
        assert len(server.peers) == 1


def test_clearing_closes_idle_connections_and_later_requests_connect_again(cache):
    with CannedServer(Answer(200, BODY)) as server:
        held = cache.get_client(server.url, "a", "s")
        held.list_objects_v2(Bucket="photos")
        cache.clear_cache()
        held.list_objects_v2(Bucket="photos")
        assert len(server.peers) == 2


def test_clearing_forgets_the_clients_and_keeps_the_counts(cache):
    one = cache.get_client("s3.example", "id", "s")
    cache.clear_cache()
    assert cache.get_stats()["total_clients"] == 0
    assert cache.get_client("s3.example", "id", "s") is not one
    assert cache.get_stats()["cache_misses"] == 2


def test_many_threads_asking_at_once_make_one_client(cache):
    start = threading.Barrier(8)

    def ask(_: int) -> object:
        start.wait()
        return cache.get_client("s3.example", "id", "s")

    with ThreadPoolExecutor(8) as pool:
        clients = set(pool.map(ask, range(8)))
    assert len(clients) == 1
    assert cache.get_stats() == {
        "cache_hits": 7,
        "cache_misses": 1,
        "total_clients": 1,
        "evictions": 0,
        "unrecognised_bodies": 0,
    }


def _page_in_a_child(url: str) -> bytes:
    storage = S3Storage(
        S3ClientCache(LOCAL), BucketConfig("photos", url, "r", "C"), KeyPair("a", "s")
    )
    return storage.page("", 10).entries


def test_a_forked_child_makes_a_cache_of_its_own(cache):
    with CannedServer(Answer(200, BODY)) as server:
        cache.get_client(server.url, "a", "s").list_objects_v2(Bucket="photos")
        with get_context("fork").Pool(1) as pool:
            assert pool.apply(_page_in_a_child, (server.url,)).count(b"<Contents>") == 1
            pool.close()
            pool.join()


@pytest.mark.parametrize(
    ("url", "region"),
    [
        ("https://us-east-1.linodeobjects.com", "us-east-1"),
        ("https://nl-ams-1.linodeobjects.com:443", "nl-ams-1"),
        ("https://s3.eu-west-1.amazonaws.com", "eu-west-1"),
        ("https://s3.amazonaws.com", "us-east-1"),
        ("http://127.0.0.1:9000", "us-east-1"),
        ("http://minio:9000", "us-east-1"),
    ],
)
def test_the_signing_region_is_the_one_that_the_endpoint_names(cache, url, region):
    assert signing_region(url) == region
    assert cache.get_client(url, "a", "s").meta.region_name == region


@pytest.mark.parametrize(
    ("pattern", "url", "region"),
    [
        ("{region}.example.com", "https://nl-1.example.com", "nl-1"),
        ("s3.{region}.cloud.example.com", "https://s3.nl-1.cloud.example.com", "nl-1"),
        ("http://s3-{region}:9000", "http://s3-nl-1:9000", "nl-1"),
        ("http://s3-{region}:9000", "http://s3-nl-1:9001", "us-east-1"),
        ("{region}.example.com", "https://a.nl-1.example.com", "us-east-1"),
        ("{region}.example.com", "https://nl-1.example.com.evil.org", "us-east-1"),
        ("{region}.example.com", "https://nl-ams-1.linodeobjects.com", "nl-ams-1"),
    ],
)
def test_the_signing_region_is_the_one_of_the_sites_own_pattern(pattern, url, region):
    conf = EngineSettings(defaults=DefaultsSection(region_endpoint=pattern))
    assert S3ClientCache(conf).get_client(url, "a", "s").meta.region_name == region


def test_configured_time_outs_and_bounds_reach_the_client():
    conf = EngineSettings.model_validate({"storage": {"connect_timeout": 1.5, "read_timeout": 2.5}})
    config: Any = S3ClientCache(conf).get_client("s3.example", "a", "s").meta.config
    assert (config.connect_timeout, config.read_timeout) == (1.5, 2.5)
    assert config.retries["total_max_attempts"] == 1


@pytest.mark.parametrize("bucket", ["photos", "my.photos"])
def test_buckets_are_addressed_by_path_so_that_ip_addresses_and_dots_work(cache, bucket):
    with CannedServer(Answer(200, BODY)) as server:
        cache.get_client(server.url, "a", "s").list_objects_v2(Bucket=bucket)
        assert server.lines[0].startswith(f"GET /{bucket}?")


def test_nothing_in_the_environment_or_at_home_matters(monkeypatch, tmp_path):
    aws = tmp_path / ".aws"
    aws.mkdir()
    (aws / "config").write_text(
        "[default]\nregion = mars-1\nendpoint_url = http://127.0.0.1:1\ns3 =\n"
        "  addressing_style = virtual\nretry_mode = legacy\n"
    )
    (aws / "credentials").write_text("[default]\naws_access_key_id = WRONG\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    wrong = {
        "AWS_PROFILE": "no-such-profile",
        "AWS_ACCESS_KEY_ID": "WRONG",
        "AWS_SECRET_ACCESS_KEY": "wrong",
        "AWS_SESSION_TOKEN": "wrong",
        "AWS_DEFAULT_REGION": "mars-1",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "AWS_USE_FIPS_ENDPOINT": "true",
        "AWS_USE_DUALSTACK_ENDPOINT": "true",
        "AWS_MAX_ATTEMPTS": "77",
        "AWS_CA_BUNDLE": "/nowhere.pem",
        "AWS_BEARER_TOKEN_S3": "wrong",
        "AWS_DATA_PATH": str(tmp_path),
        "HTTP_PROXY": "http://127.0.0.1:1",
        "http_proxy": "http://127.0.0.1:1",
        "ALL_PROXY": "http://127.0.0.1:1",
    }
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with CannedServer(Answer(200, BODY)) as server:
        cache = S3ClientCache(LOCAL)
        client = cache.get_client(server.url, "RIGHT", "right")
        seen = []
        client.meta.events.register("before-send.s3", lambda request, **_: seen.append(request))
        client.list_objects_v2(Bucket="photos")
    [request] = seen
    authorization = request.headers["Authorization"].decode()
    assert authorization.startswith("AWS4-HMAC-SHA256 Credential=RIGHT/")
    assert "/us-east-1/s3/aws4_request" in authorization
    assert "X-Amz-Security-Token" not in request.headers
    config: Any = client.meta.config
    assert config.retries["total_max_attempts"] == 1
    cache.clear_cache()


def test_the_check_that_we_take_over_from_botocore_is_still_where_it_was():
    hooks = [spec[:2] for spec in botocore.handlers.BUILTIN_HANDLERS]
    assert ("before-parse.s3.*", listing._error_under_200) in hooks


def test_a_listing_is_never_parsed_by_botocores_check(cache, monkeypatch):
    def never(*_: object) -> bool:
        raise AssertionError("botocore parsed the whole body")

    monkeypatch.setattr(botocore.handlers, "_looks_like_special_case_error", never)
    with CannedServer(Answer(200, BODY)) as server:
        cache.get_client(server.url, "a", "s").list_objects_v2(Bucket="photos")


def test_clients_offer_only_what_is_used_here(cache):
    client = cache.get_client("s3.example", "a", "s")
    assert not hasattr(client, "delete_object")
    assert not hasattr(client, "put_object")


def asked(conf: EngineSettings, url: str) -> str:
    """What a listing fails with."""
    cache = S3ClientCache(conf)
    bucket = BucketConfig("photos", url, "r", "C")
    with pytest.raises(AddressRefused) as refused:
        S3Storage(cache, bucket, KeyPair("a", "s")).page("", 10)
    return str(refused.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_an_address_that_is_not_allowed_is_not_connected_to(host):
    with CannedServer() as server:
        url = server.url.replace("127.0.0.1", host)

        message = asked(EngineSettings(), url)

        assert f"bucket photos at {host}" in message
        assert "a loopback address" in message
        assert "security.allow_private_endpoints (SECURITY_ALLOW_PRIVATE_ENDPOINTS)" in message
        assert server.lines == []


def test_a_name_that_leads_elsewhere_since_it_was_looked_at_is_refused(monkeypatch):
    """What a name server answers is the rare thing that has no door."""
    answers = iter(["93.184.216.34", "169.254.169.254"])
    resolve = socket.getaddrinfo

    def rebinding(host, *arguments: Any, **options: Any) -> Any:
        known = next(answers) if host == "rebinding.example" else host
        return resolve(known, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(socket.socket, "connect", refuse_to_connect)
    conf = LOCAL.model_copy(update={"storage": StorageSection(connect_timeout=1)})
    cache = S3ClientCache(conf, attempts=1)
    storage = S3Storage(
        cache, BucketConfig("photos", "rebinding.example", "r", "C"), KeyPair("a", "s")
    )

    with pytest.raises(StorageUnavailable):
        storage.page("", 10)
    with pytest.raises(AddressRefused, match=r"is at 169\.254\.169\.254, a link-local address"):
        storage.page("", 10)


def test_a_cache_goes_by_the_settings_in_force_unless_it_is_given_others(settings):
    settings.SCANNING = EngineSettings.model_validate({"storage": {"read_timeout": 2.5}})
    config: Any = S3ClientCache().get_client("s3.example", "a", "s").meta.config
    assert config.read_timeout == 2.5
    config = S3ClientCache(LOCAL).get_client("s3.example", "a", "s").meta.config
    assert config.read_timeout == LOCAL.storage.read_timeout


def test_clients_for_another_configuration_are_kept_apart_and_counted_and_cleared_together(
    settings,
):
    settings.SCANNING = EngineSettings()
    cache = S3ClientCache()
    local = cache.under(LOCAL)
    assert cache.under(EngineSettings()) is cache
    assert cache.under(LOCAL) is local
    assert local.under(EngineSettings()) is local

    assert cache.get_client("s3.example", "a", "s") is not local.get_client("s3.example", "a", "s")

    assert cache.get_stats()["total_clients"] == 2
    cache.clear_cache()
    assert cache.get_stats()["total_clients"] == local.get_stats()["total_clients"] == 0


def refuse_to_connect(*_: Any) -> None:
    raise ConnectionRefusedError(111, "Connection refused")
