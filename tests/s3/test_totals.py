"""`S3Storage.totals`: what RGW's headers tell, who is asked, and how often."""

import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth

from scanning.adapters.redis.endpoint_profiles import RedisEndpointProfiles
from scanning.adapters.s3.storage import S3ClientCache, S3Storage
from scanning.core.endpoint_profile import STALE_S, EndpointProfile, EndpointSettings, Fact
from scanning.core.endpoints import endpoint_name
from scanning.core.errors import StorageUnavailable, Throttled
from scanning.core.totals import Totals
from scanning.core.types import BucketConfig, KeyPair
from tests.support.canned_http import Answer, CannedServer, Reset
from tests.support.servers import LOCAL

PAIR = KeyPair("AKID", "secret")
COUNT, BYTES = "x-rgw-object-count", "x-rgw-bytes-used"


@pytest.fixture
def cache() -> Iterator[S3ClientCache]:
    cache = S3ClientCache(LOCAL, attempts=1)
    yield cache
    cache.clear_cache()


@pytest.fixture
def profiles(redis_server, connect) -> RedisEndpointProfiles:
    return RedisEndpointProfiles(connect(url=redis_server.url))


def told(objects: object = 3, size_bytes: object = 70) -> Answer:
    return Answer(headers={COUNT: str(objects), BYTES: str(size_bytes)})


def storage(cache, server, *, bucket="photos", pair=PAIR, profiles=None) -> S3Storage:
    return S3Storage(cache, BucketConfig(bucket, server.url, "r", "C"), pair, profiles=profiles)


def test_the_headers_of_ceph_are_totals_and_are_asked_for(cache, profiles):
    with CannedServer(told(3, 70)) as server:
        assert storage(cache, server, profiles=profiles).totals() == Totals(3, 70)
    assert server.lines == ["HEAD /photos?read-stats=true"]
    assert profiles.read(endpoint_name(server.url)).value(Fact.TOTALS) == "rgw"


def test_a_local_server_that_tells_none_has_none(s3_server, cache):
    pair = KeyPair(s3_server.access_key, s3_server.secret_key)
    name = s3_server.bucket()
    assert storage(cache, s3_server, bucket=name, pair=pair).totals() is None


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {COUNT: "3"},
        {COUNT: "-3", BYTES: "70"},
        {COUNT: "3", BYTES: "7e1"},
        {COUNT: "3", BYTES: ""},
        {COUNT: "٣", BYTES: "70"},
        {COUNT: "9" * 19, BYTES: "70"},
        {COUNT: "9" * 60_000, BYTES: "70"},
        {COUNT: "3, 4", BYTES: "70"},
    ],
    ids=["none", "half", "negative", "no-number", "empty", "digits", "long", "endless", "twice"],
)
def test_headers_that_make_no_sense_are_no_totals(cache, headers):
    answer = Answer(
        headers={name: text.encode().decode("latin-1") for name, text in headers.items()}
    )
    with CannedServer(answer) as server:
        assert storage(cache, server).totals() is None


def test_an_endpoint_that_tells_none_is_asked_once_a_day_for_all_its_buckets(cache, profiles):
    with CannedServer(Answer()) as server:
        for bucket in ("photos", "music"):
            assert storage(cache, server, bucket=bucket, profiles=profiles).totals() is None
        assert len(server.lines) == 1
        learnt = profiles.read(endpoint_name(server.url))
        assert learnt.value(Fact.TOTALS) == "none"
        assert not learnt.may_tell_totals(time.time())
        assert learnt.may_tell_totals(time.time() + STALE_S + 1)


class Remembered:
    """Implements ``ports.EndpointProfileStore`` for one endpoint, in memory."""

    def __init__(self, profile: EndpointProfile) -> None:
        self.profile = profile

    def read(self, endpoint):
        return self.profile

    def learn(self, endpoint, facts, *, asked=False):
        self.profile = self.profile.with_learnt(facts, now=time.time())
        return self.profile


def test_that_an_endpoint_still_tells_none_counts_for_another_day(cache):
    yesterday = EndpointProfile().with_learnt({Fact.TOTALS: "none"}, now=time.time() - STALE_S - 9)
    remembered = Remembered(yesterday)
    with CannedServer(Answer()) as server:
        for _ in range(3):
            assert storage(cache, server, profiles=remembered).totals() is None
    assert len(server.lines) == 1


def test_an_endpoint_that_tells_totals_since_lately_is_found_out(cache):
    yesterday = EndpointProfile().with_learnt({Fact.TOTALS: "none"}, now=time.time() - STALE_S - 9)
    remembered = Remembered(yesterday)
    with CannedServer(told()) as server:
        assert storage(cache, server, profiles=remembered).totals() == Totals(3, 70)
    assert remembered.profile.value(Fact.TOTALS) == "rgw"


def test_what_an_operator_set_wins(cache):
    with CannedServer(told()) as server:
        never = Remembered(EndpointProfile(EndpointSettings(totals="none")))
        assert storage(cache, server, profiles=never).totals() is None
        assert server.lines == []
        always = EndpointProfile(EndpointSettings(totals="rgw"))
        always = always.with_learnt({Fact.TOTALS: "none"}, now=time.time())
        assert storage(cache, server, profiles=Remembered(always)).totals() == Totals(3, 70)


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404])
def test_a_refusal_is_the_buckets_alone_and_remembered(cache, profiles, status):
    with CannedServer(Answer(status), told()) as server:
        for _ in range(3):
            assert storage(cache, server, profiles=profiles).totals() is None
        assert len(server.lines) == 1
        assert storage(cache, server, bucket="music", profiles=profiles).totals() == Totals(3, 70)
        # Other keys may be allowed to ask.
        other = replace(PAIR, secret_key="rotated")
        assert storage(cache, server, pair=other, profiles=profiles).totals() == Totals(3, 70)


@pytest.mark.parametrize("status", [405, 501])
def test_an_endpoint_that_knows_no_such_request_is_not_asked_for_any_bucket(
    cache, profiles, status
):
    with CannedServer(Answer(status)) as server:
        for bucket in ("photos", "music"):
            assert storage(cache, server, bucket=bucket, profiles=profiles).totals() is None
        assert len(server.lines) == 1


def test_one_bucket_without_totals_takes_them_from_no_other(cache, profiles):
    with CannedServer(told(), Answer(), told()) as server:
        first = storage(cache, server, profiles=profiles)
        odd = storage(cache, server, bucket="odd", profiles=profiles)
        assert [first.totals(), odd.totals(), odd.totals()] == [Totals(3, 70), None, None]
        assert first.totals() == Totals(3, 70)
    assert len(server.lines) == 3


@pytest.mark.parametrize(
    ("answer", "error"),
    [(Answer(503), Throttled), (Answer(500), StorageUnavailable), (Reset(), StorageUnavailable)],
    ids=["throttled", "failed", "reset"],
)
def test_what_passes_by_itself_is_no_refusal(cache, answer, error):
    with CannedServer(answer, told()) as server:
        asked = storage(cache, server)
        if error is Throttled:
            error = (Throttled, StorageUnavailable)
        with pytest.raises(error):
            asked.totals()
        assert asked.totals() == Totals(3, 70)


def test_a_request_is_signed_once_a_minute_and_anew_where_that_is_refused(cache, monkeypatch):
    signed = []
    sign = S3SigV4Auth.add_auth

    def counting(self: Any, request: Any) -> None:
        signed.append(request.url)
        sign(self, request)

    monkeypatch.setattr(S3SigV4Auth, "add_auth", counting)
    with CannedServer(told(1), told(2), Answer(403), told(3)) as server:
        asked = storage(cache, server)
        assert [asked.totals() for _ in range(3)] == [Totals(n, 70) for n in (1, 2, 3)]
    assert len(signed) == 2


def test_a_bucket_in_front_of_the_host_is_asked_there(cache, monkeypatch):
    resolve = socket.getaddrinfo

    def resolved(
        host: str, *arguments: Any, **options: Any
    ) -> Any:  # what a name server answers has no other door
        return resolve("127.0.0.1" if host == "photos.s3.example" else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    virtual = Remembered(EndpointProfile(EndpointSettings(addressing="virtual")))
    with CannedServer(told()) as server:
        bucket = BucketConfig("photos", f"http://s3.example:{server.port}", "r", "C")
        assert S3Storage(cache, bucket, PAIR, profiles=virtual).totals() == Totals(3, 70)
    assert server.lines == ["HEAD /?read-stats=true"]
