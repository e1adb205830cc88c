"""What S3 servers differ in, one small class each, and what must come of it: every key, once."""

import socket
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

from scanning.adapters.s3 import connections
from scanning.adapters.s3.storage import S3ClientCache, S3Storage
from scanning.core.endpoint_profile import (
    STALE_S,
    Addressing,
    EndpointProfile,
    EndpointSettings,
    Fact,
    KeyOrder,
    ListVersion,
    StartAfter,
    UrlEncoding,
)
from scanning.core.errors import StorageUnavailable, UnsupportedKeyOrder, WrongEndpoint
from scanning.core.types import BucketConfig, KeyPair
from scanning.scan.lane_splitter import Lane
from scanning.scan.prefetch import PageLister, list_pages
from tests.support.canned_http import Answer, CannedServer
from tests.support.listing_bodies import XMLNS, rgw_key
from tests.support.servers import LOCAL
from tests.support.sites import announced, site
from tests.support.tls_front import Authority, TlsFront

PAIR = KeyPair("AKID", "secret")


class S3Like:
    """A server with one bucket, which does all as AWS does it; ``asked`` are its requests."""

    def __init__(self, *keys: str) -> None:
        self.keys = sorted(keys, key=str.encode)
        self.asked: list[dict[str, str]] = []
        self.hosts: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
                asked = {name: values[0] for name, values in query.items()}
                server.asked.append(asked)
                server.hosts.append(self.headers["Host"].partition(":")[0])
                status, body = server.answer(self, asked)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_HEAD(self) -> None:
                is_there = unquote(self.path).rpartition("/")[2] in server.keys
                self.send_response(200 if is_there else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._httpd.daemon_threads = True
        self._thread = threading.Thread(target=self._httpd.serve_forever, args=(0.02,), daemon=True)
        self.url = f"http://127.0.0.1:{self._httpd.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._httpd.shutdown()
        self._thread.join()
        self._httpd.server_close()

    # What the kinds of servers differ in

    def answer(self, request: BaseHTTPRequestHandler, asked: dict[str, str]) -> tuple[int, bytes]:
        return 200, self.listing(asked)

    def begins(self, asked: dict[str, str]) -> list[str]:
        """The keys from the place on that was asked for."""
        if "continuation-token" in asked:
            return self.keys[int(asked["continuation-token"]) :]
        return [key for key in self.keys if self.is_after(key, asked.get("start-after", ""))]

    def is_after(self, key: str, start: str) -> bool:
        return key.encode() > start.encode()

    def written(self, key: str) -> str:
        return rgw_key(key)

    encoding = "<EncodingType>url</EncodingType>"

    def listing(self, asked: dict[str, str]) -> bytes:
        keys = [key for key in self.begins(asked) if key.startswith(asked.get("prefix", ""))]
        page, more = keys[: int(asked["max-keys"])], len(keys) > int(asked["max-keys"])
        token = self.keys.index(page[-1]) + 1 if more else 0
        rows = "".join(self.row(key) for key in page)
        return (
            f'<ListBucketResult xmlns="{XMLNS}"><IsTruncated>{str(more).lower()}</IsTruncated>'
            f"{self.encoding}{self.place(len(page), token)}{rows}</ListBucketResult>"
        ).encode()

    def row(self, key: str) -> str:
        return (
            f"<Contents><Key>{self.written(key)}</Key>"
            "<LastModified>2024-05-01T12:34:56.789Z</LastModified>"
            "<ETag>&quot;e&quot;</ETag><Size>3</Size></Contents>"
        )

    def place(self, count: int, token: int) -> str:
        more = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
        return f"<KeyCount>{count}</KeyCount>{more}"


def refusal(code: str, more: str = "") -> bytes:
    return f"<Error><Code>{code}</Code><Message></Message>{more}</Error>".encode()


class IncludesStartAfter(S3Like):
    def is_after(self, key: str, start: str) -> bool:
        return key.encode() >= start.encode()


class IgnoresStartAfter(S3Like):
    def is_after(self, key: str, start: str) -> bool:
        return True


class RefusesStartAfter(S3Like):
    def answer(self, request: BaseHTTPRequestHandler, asked: dict[str, str]) -> tuple[int, bytes]:
        if "start-after" in asked:
            return 400, refusal("InvalidArgument")
        return super().answer(request, asked)


class KnowsVersion1(S3Like):
    """Takes ``list-type`` for one of those parameters that do not concern it."""

    def begins(self, asked: dict[str, str]) -> list[str]:
        return [key for key in self.keys if self.is_after(key, asked.get("marker", ""))]

    def place(self, count: int, token: int) -> str:
        return "<Marker></Marker>"


class RefusesVersion2(KnowsVersion1):
    def answer(self, request: BaseHTTPRequestHandler, asked: dict[str, str]) -> tuple[int, bytes]:
        if "list-type" in asked:
            return 501, refusal("NotImplemented")
        return super().answer(request, asked)


class IgnoresUrlEncoding(S3Like):
    encoding = ""

    def written(self, key: str) -> str:
        return escape(key)


class OnlyClaimsUrlEncoding(IgnoresUrlEncoding):
    encoding = "<EncodingType>url</EncodingType>"


class HasARegion(S3Like):
    """Garage, and some hosts of OVH."""

    name = "garage"

    def answer(self, request: BaseHTTPRequestHandler, asked: dict[str, str]) -> tuple[int, bytes]:
        if f"/{self.name}/s3/aws4_request" not in request.headers["Authorization"]:
            region = f"<Region>{self.name}</Region>"
            return 400, refusal("AuthorizationHeaderMalformed", region)
        return super().answer(request, asked)


class WantsVirtualHosts(S3Like):
    """Alibaba and Huawei."""

    def answer(self, request: BaseHTTPRequestHandler, asked: dict[str, str]) -> tuple[int, bytes]:
        if not request.headers["Host"].startswith("photos."):
            return 403, refusal("SecondLevelDomainForbidden")
        return super().answer(request, asked)


class SortsOtherwise(S3Like):
    def __init__(self, *keys: str) -> None:
        super().__init__(*keys)
        self.keys.sort(key=str.lower)


KEYS = ["a b", "a%20b", "a+b", "b", "c/d", "é", "z"]
PLAIN = [f"k{number:03}" for number in range(45)]

# What each shows of itself.
KINDS: dict[type[S3Like], dict[Fact, str]] = {
    S3Like: {
        Fact.START_AFTER: StartAfter.EXCLUSIVE,
        Fact.LIST_VERSION: ListVersion.V2,
        Fact.URL_ENCODING: UrlEncoding.HONOURED,
    },
    IncludesStartAfter: {Fact.START_AFTER: StartAfter.INCLUSIVE},
    IgnoresStartAfter: {Fact.START_AFTER: StartAfter.IGNORED},
    RefusesStartAfter: {Fact.START_AFTER: StartAfter.IGNORED},
    KnowsVersion1: {Fact.LIST_VERSION: ListVersion.V1, Fact.START_AFTER: StartAfter.EXCLUSIVE},
    RefusesVersion2: {Fact.LIST_VERSION: ListVersion.V1, Fact.START_AFTER: StartAfter.EXCLUSIVE},
    IgnoresUrlEncoding: {Fact.URL_ENCODING: UrlEncoding.IGNORED},
    OnlyClaimsUrlEncoding: {Fact.URL_ENCODING: UrlEncoding.CLAIMED},
    HasARegion: {Fact.SIGNING_REGION: "garage"},
    WantsVirtualHosts: {Fact.ADDRESSING: Addressing.VIRTUAL},
}
ALL_KINDS = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


class Remembered:
    """Implements ``ports.EndpointProfileStore`` for one endpoint, in memory."""

    def __init__(self, **settings: Any) -> None:
        self.profile = EndpointProfile(EndpointSettings(**settings))
        self.now = 1e12  # no clock comes that far: what is learnt does not get old

    def read(self, endpoint: str) -> EndpointProfile:
        return self.profile

    def learn(
        self, endpoint: str, facts: Mapping[Fact, str], *, asked: bool = False
    ) -> EndpointProfile:
        learnt = self.profile.with_learnt(facts, now=self.now)
        asked_at = self.now if asked else learnt.asked_at
        self.profile = EndpointProfile(learnt.settings, learnt.learnt, asked_at)
        return self.profile

    def learnt(self) -> dict[Fact, str]:
        return {fact: learnt.value for fact, learnt in self.profile.learnt.items()}


@pytest.fixture
def cache() -> Iterator[S3ClientCache]:
    cache = S3ClientCache(LOCAL, attempts=1)
    yield cache
    cache.clear_cache()


@pytest.fixture(autouse=True)
def _buckets_have_hosts(monkeypatch) -> None:
    """What a name server answers is the rare thing that has no door."""
    resolve = socket.getaddrinfo

    def resolved(host, *arguments: Any, **options: Any) -> Any:
        known = "127.0.0.1" if host.endswith("s3.example") else host
        return resolve(known, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)


def at(server: S3Like | CannedServer, cache: S3ClientCache, profiles: Any = None) -> S3Storage:
    # A host, as an address has no hosts below it.
    url = server.url.replace("127.0.0.1", "s3.example")
    return S3Storage(cache, BucketConfig("photos", url, "r", "C"), PAIR, profiles=profiles)


def listed(storage: S3Storage, *, page_size: int = 2, after: str = "") -> list[str]:
    pages = list_pages(storage, Lane(after, None), page_size=page_size)
    return storage.rows(b"".join(page.entries for page in pages)).columns.keys


@ALL_KINDS
@pytest.mark.parametrize("is_known", [False, True], ids=["unknown", "known"])
def test_every_key_is_listed_once_and_exactly(cache, kind, is_known):
    with kind(*KEYS) as server:
        profiles = Remembered()
        if is_known:
            at(server, cache, profiles).learn_profile()
        assert listed(at(server, cache, profiles)) == sorted(KEYS, key=str.encode)


@ALL_KINDS
def test_lanes_that_split_a_listing_see_every_key(cache, kind):
    keys = [f"{prefix}{number:03d}" for prefix in ("", "a/b/", "z") for number in range(60)]
    with kind(*keys) as server:
        storage = at(server, cache, Remembered())
        at_once = 4 if storage.begins_anywhere() else 1
        seen: list[str] = []
        with PageLister(
            storage, [Lane("", None, "")], page_size=10, slow_s=-1.0, at_once=at_once
        ) as lister:
            for number, page in lister:
                lane, _ = lister.lane(number)
                rows = storage.rows(page.entries).columns.keys
                seen += [key for key in rows if lane.until is None or key <= lane.until]
        assert sorted(seen) == sorted(keys)


@ALL_KINDS
def test_every_key_is_listed_where_nothing_is_remembered(cache, kind):
    """`runscan` against a Redis that is away, an embedding program: only what answers show."""
    keys = KEYS if kind is not OnlyClaimsUrlEncoding else PLAIN
    with kind(*keys) as server:
        assert listed(at(server, cache)) == sorted(keys, key=str.encode)


@ALL_KINDS
def test_a_listing_begins_after_any_key(cache, kind):
    with kind(*PLAIN) as server:
        profiles = Remembered()
        for _ in ("unknown", "known"):
            assert listed(at(server, cache, profiles), page_size=7, after="k020") == PLAIN[21:]
            # It need not be there any more.
            assert listed(at(server, cache, profiles), page_size=7, after="k020x") == PLAIN[21:]


@ALL_KINDS
def test_what_a_server_does_is_learnt_by_asking(cache, kind):
    with kind(*KEYS) as server:
        profiles = Remembered()
        at(server, cache, profiles).learn_profile()
        learnt = profiles.learnt()
        assert {fact: learnt.get(fact) for fact in KINDS[kind]} == KINDS[kind]
        assert len(server.asked) <= 6
        assert all(int(asked["max-keys"]) <= 2 for asked in server.asked)


@ALL_KINDS
def test_every_object_is_announced_once_and_no_deletion_whatever_the_server_does(cache, kind):
    with kind(*PLAIN) as server:
        here, profiles = site(page_size=4, lanes=3), Remembered()
        for _ in ("first", "second"):
            here.scan(at(server, cache, profiles))
        assert sorted(key for _, key in announced(here)) == PLAIN
        server.keys = sorted([*server.keys[:10], *server.keys[11:], "new"])
        here.scan(at(server, cache, profiles))
        assert announced(here) == [("created", "new"), ("deleted", "k010")]


@ALL_KINDS
def test_a_scan_that_broke_off_goes_on_where_it_was(cache, kind):
    with kind(*PLAIN) as server:
        here, profiles = site(page_size=4), Remembered()
        pages: list[str] = []

        class BreaksOff(S3Storage):
            def page(self, start_after: str, max_keys: int) -> Any:
                pages.append(start_after)
                if len(pages) == 5:
                    raise StorageUnavailable("broken off")
                return super().page(start_after, max_keys)

        storage = BreaksOff(cache, at(server, cache)._bucket, PAIR, profiles=profiles)
        with pytest.raises(StorageUnavailable):
            here.scan(storage)
        here.states.progress = here.states.progress or here.states.commits[-1].progress
        here.scan(at(server, cache, profiles))
        assert [key for _, key in announced(here)] == PLAIN


@pytest.mark.parametrize("kind", [IgnoresStartAfter, RefusesStartAfter])
def test_where_start_after_is_ignored_a_pass_is_one_lane_without_a_pause(cache, kind):
    with kind(*PLAIN) as server:
        here, profiles = site(page_size=2, lanes=3, slice_s=0), Remembered()
        assert here.scan(at(server, cache, profiles)).complete
        server.asked.clear()
        assert here.scan(at(server, cache, profiles)).complete
        assert len(server.asked) == 23
        assert not any("start-after" in asked for asked in server.asked)


def test_pages_of_a_lane_follow_the_continuation_token(cache):
    with S3Like(*PLAIN) as server:
        listed(at(server, cache), page_size=20, after="k004")
        positions = [(a.get("start-after"), a.get("continuation-token")) for a in server.asked]
    assert positions == [("k004", None), (None, "25")]


def test_a_known_profile_costs_no_request(cache):
    with S3Like(*PLAIN) as server:
        profiles = Remembered()
        listed(at(server, cache, profiles), page_size=1000)
        server.asked.clear()
        listed(at(server, cache, profiles), page_size=1000)
        assert len(server.asked) == 1


def test_what_was_learnt_long_ago_is_asked_again(cache):
    with S3Like(*PLAIN) as server:
        profiles = Remembered()
        profiles.profile = EndpointProfile(asked_at=-STALE_S).with_learnt(
            {Fact.START_AFTER: StartAfter.IGNORED, Fact.LIST_VERSION: ListVersion.V1}, now=0
        )
        assert at(server, cache, profiles).begins_anywhere()
        assert profiles.learnt()[Fact.LIST_VERSION] == ListVersion.V2


def test_an_answer_that_contradicts_what_was_learnt_is_believed(cache):
    with IgnoresStartAfter(*PLAIN) as server:
        profiles = Remembered()
        profiles.learn("", {Fact.START_AFTER: StartAfter.EXCLUSIVE}, asked=True)
        assert listed(at(server, cache, profiles), after="k020") == PLAIN[21:]
        assert profiles.learnt()[Fact.START_AFTER] == StartAfter.IGNORED


def test_a_setting_wins_over_what_a_server_shows(cache):
    with HasARegion(*KEYS) as server:
        profiles = Remembered(signing_region="elsewhere")
        with pytest.raises(WrongEndpoint, match="the bucket wants region garage"):
            listed(at(server, cache, profiles))
        assert listed(at(server, cache, Remembered(signing_region="garage")))
        assert profiles.learnt() == {}


def test_a_region_is_asked_for_once_and_remembered(cache):
    with HasARegion(*PLAIN) as server:
        profiles = Remembered()
        listed(at(server, cache, profiles))
        server.asked.clear()
        at(server, cache, profiles).page("", 10)
        assert len(server.asked) == 1


@pytest.mark.parametrize("region", ["", "x" * 64, "a b", "../x"])
def test_a_region_that_is_no_name_is_not_signed_for(cache, region):
    more = f"<Region>{region}</Region>"
    answer = Answer(400, refusal("AuthorizationHeaderMalformed", more))
    with CannedServer(answer) as server, pytest.raises(WrongEndpoint):
        at(server, cache).page("", 10)
    assert len(server.asked) == 1


def test_a_server_that_wants_another_region_each_time_is_not_asked_for_ever(cache):
    answers = [
        Answer(400, refusal("AuthorizationHeaderMalformed", f"<Region>r{number}</Region>"))
        for number in range(20)
    ]
    with CannedServer(*answers) as server, pytest.raises(WrongEndpoint):
        at(server, cache).page("", 10)
    assert len(server.asked) < 6


def test_with_virtual_hosts_the_bucket_is_in_front_of_the_host_and_nowhere_else(cache):
    with WantsVirtualHosts(*KEYS) as server:
        assert listed(at(server, cache, Remembered(addressing="virtual"))) == sorted(KEYS)
        assert set(server.hosts) == {"photos.s3.example"}


def test_keys_that_only_claim_to_be_encoded_are_noticed_when_they_come(cache):
    with OnlyClaimsUrlEncoding(*PLAIN) as server:
        profiles = Remembered()
        profiles.learn("", {Fact.URL_ENCODING: UrlEncoding.HONOURED}, asked=True)
        server.keys.append("é")
        with pytest.raises(StorageUnavailable, match="not URL-encoded, as it says they are"):
            listed(at(server, cache, profiles), page_size=1000)
        assert listed(at(server, cache, profiles), page_size=1000) == [*PLAIN, "é"]


def test_another_order_of_keys_is_said_and_remembered(cache, caplog):
    with SortsOtherwise("B", "a", "C") as server:
        profiles = Remembered()
        with pytest.raises(UnsupportedKeyOrder, match="not in order: B comes after a"):
            listed(at(server, cache, profiles), page_size=1000)
        assert profiles.learnt()[Fact.KEY_ORDER] == KeyOrder.OTHER
        assert not at(server, cache, profiles).begins_anywhere()
        assert [record.levelname for record in caplog.records if "key_order" in record.message] == [
            "WARNING"
        ]


class TestAuthorities:
    """Whose signature on a server's certificate counts."""

    @pytest.fixture
    def authority(self, tmp_path) -> Authority:
        return Authority(tmp_path / "ca")

    @pytest.fixture
    def front(self, authority) -> Iterator[TlsFront]:
        with S3Like(*PLAIN) as server:
            certificate = authority.issue("s3")
            with TlsFront(int(server.url.rpartition(":")[2]), certificate) as front:
                yield front

    @pytest.fixture
    def system(self, authority, monkeypatch) -> Iterator[None]:
        """A host in whose store the authority is."""
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
        connections.trust_of.cache_clear()
        yield
        connections.trust_of.cache_clear()

    @staticmethod
    def first_page(cache: S3ClientCache, front: TlsFront, **settings: Any) -> str:
        bucket = BucketConfig("photos", f"https://127.0.0.1:{front.port}", "r", "C")
        storage = S3Storage(cache, bucket, PAIR, profiles=Remembered(**settings))
        return storage.page("", 10).last_key

    def test_an_authority_that_nobody_knows_is_refused(self, cache, front):
        with pytest.raises(StorageUnavailable, match="TLS failed"):
            self.first_page(cache, front)

    @pytest.mark.usefixtures("system")
    @pytest.mark.parametrize("chosen", ["", "system"])
    def test_the_systems_store_counts(self, cache, front, chosen):
        assert self.first_page(cache, front, authorities=chosen) == PLAIN[9]

    @pytest.mark.usefixtures("system")
    def test_the_bundled_ones_alone_do_not_know_it(self, cache, front):
        with pytest.raises(StorageUnavailable, match="TLS failed"):
            self.first_page(cache, front, authorities="bundled")

    def test_a_file_counts(self, cache, front, authority):
        assert self.first_page(cache, front, authorities=str(authority.ca)) == PLAIN[9]

    @pytest.mark.parametrize("text", [None, "no certificate"], ids=["absent", "other"])
    def test_a_file_that_cannot_be_used_is_told(self, cache, front, tmp_path, text):
        file = tmp_path / "other.pem"
        if text:
            file.write_text(text)
        with pytest.raises(WrongEndpoint, match="file of certificate authorities cannot be used"):
            self.first_page(cache, front, authorities=str(file))
