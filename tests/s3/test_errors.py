"""What an operator reads when a bucket cannot be listed: real HTTP, canned answers."""

import gzip
import socket
import ssl
import tracemalloc
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from scanning.adapters.s3.storage import S3ClientCache, S3Storage
from scanning.config.settings import EngineSettings
from scanning.core.errors import (
    AccessDenied,
    BucketNotFound,
    BucketwatchError,
    ClockSkewed,
    CredentialsRejected,
    PermanentError,
    StorageUnavailable,
    Throttled,
    UnsupportedKeyOrder,
    WrongEndpoint,
)
from scanning.core.types import BucketConfig, KeyPair
from tests.support.canned_http import Answer, CannedServer, Reset, Stall, error, never_listening
from tests.support.listing_bodies import Row, aws, plain, rgw
from tests.support.servers import LOCAL

PAIR = KeyPair("AKIDPUBLIC", "very-secret")
CONF = EngineSettings.model_validate(
    {
        "storage": {"connect_timeout": 2, "read_timeout": 0.2},
        "security": {"allow_private_endpoints": True},
    }
)
BODY = rgw([Row("a"), Row("b")])
THREE = rgw([Row("a"), Row("b"), Row("c")])
NEST = b"<a>" * 60_000 + b"</a>" * 60_000
FORGED = "\x1b[2J\x9b31m\u202e"


def storage(
    url: str, *, name: str = "photos", attempts: int = 1, conf: EngineSettings = CONF
) -> S3Storage:
    bucket = BucketConfig(name, url, "r", "C")
    return S3Storage(S3ClientCache(conf, attempts=attempts), bucket, PAIR)


def listed(answering: S3Storage) -> list[str]:
    page = answering.page("", 1000)
    return answering.rows(page.entries).columns.keys


def complaint(kind: type[Exception], answering: S3Storage) -> str:
    """The message, after checking what holds for all of them."""
    with pytest.raises(kind) as caught:
        listed(answering)
    assert type(caught.value) is kind
    message = str(caught.value)
    assert message.startswith("bucket photos at ")
    assert message.isprintable()
    assert len(message) < 700
    assert PAIR.secret_key not in message
    assert PAIR.access_key not in message
    return message


ANSWERS = {
    "an unknown access key": (
        error("InvalidAccessKeyId", status=403, more="<AWSAccessKeyId>AKIDPUBLIC</AWSAccessKeyId>"),
        CredentialsRejected,
        "does not know the access key; give the bucket's credential a valid key pair (Inv",
    ),
    "a wrong secret key": (
        error("SignatureDoesNotMatch", status=403),
        CredentialsRejected,
        "key does not belong to the access key; give the bucket's credential a valid key pair",
    ),
    "someone else's bucket": (
        error("AccessDenied", status=403),
        AccessDenied,
        "the credential may not read the bucket; allow the access key to list and read",
    ),
    "a 403 without a body": (Answer(403), AccessDenied, "(HTTP 403)"),
    "a missing bucket": (
        error("NoSuchBucket", status=404),
        BucketNotFound,
        "there is no such bucket; correct its name, endpoint or region",
    ),
    "a clock that is off": (
        error("RequestTimeTooSkewed", status=403),
        ClockSkewed,
        "this host's clock and the endpoint's differ too much; set the clock of the hosts",
    ),
    "another region": (
        error("AuthorizationHeaderMalformed", status=400, more="<Region>eu-west-1</Region>"),
        WrongEndpoint,
        "the bucket wants region eu-west-1; correct the bucket's endpoint",
    ),
    "a permanent redirect": (
        error("PermanentRedirect", status=301, more="<Endpoint>s3.fr.example</Endpoint>"),
        WrongEndpoint,
        "the bucket wants endpoint s3.fr.example; correct the bucket's endpoint",
    ),
    "a redirect in headers": (
        Answer(307, b"", {"Location": "http://b.example/", "x-amz-bucket-region": "fr"}),
        WrongEndpoint,
        "the bucket wants endpoint http://b.example/ and region fr; correct the bucket's endpoint",
    ),
    "a redirect that does not say where": (
        Answer(308),
        WrongEndpoint,
        "the bucket lives at another endpoint or in another region; correct the bucket's endpoint",
    ),
    "a location constraint": (
        error("IllegalLocationConstraintException", status=400),
        WrongEndpoint,
        "lives at another endpoint or in another region",
    ),
    "a web server": (
        Answer(404, b"<html><body>nothing here</body></html>"),
        WrongEndpoint,
        "does not answer as S3 does; correct the bucket's endpoint or region (HTTP 404)",
    ),
    "another 400": (
        error("InvalidRequest", status=400),
        PermanentError,
        "the endpoint refuses the request; correct what the error names, or look up its code",
    ),
    "SlowDown": (
        error("SlowDown", status=503),
        Throttled,
        "the endpoint asks for fewer requests (SlowDown, HTTP 503)",
    ),
    "SlowDown under status 200": (error("SlowDown", status=200), Throttled, "(SlowDown, HTTP 500)"),
    "SlowDown behind blanks under status 200": (
        Answer(200, b" \n" * 400 + error("SlowDown", status=200).body),
        Throttled,
        "(SlowDown, HTTP 500)",
    ),
    "an error code of 1 MB": (
        error("A" * 1_000_000, status=403),
        AccessDenied,
        "or use another credential (HTTP 403)",
    ),
    "an error code of 10 KB": (error("A" * 10_000, status=403), AccessDenied, "AAAA…, HTTP 403"),
    "an endpoint with a log line": (
        error("PermanentRedirect", status=301, more=f"<Endpoint>evil&#10;2026 {FORGED}</Endpoint>"),
        WrongEndpoint,
        r"the bucket wants endpoint evil\n2026 \x1b[2J\x9b31m\u202e; correct",
    ),
    "a region in a header with escape sequences": (
        Answer(301, b"", {"x-amz-bucket-region": "\x1b]0;PWNED\x07\x9b2J"}),
        WrongEndpoint,
        r"the bucket wants region \x1b]0;PWNED\x07\x9b2J; correct",
    ),
    "an error with a document type": (
        Answer(403, b"<!DOCTYPE Error [<!ENTITY a 'b'>]><Error><Code>&a;</Code></Error>"),
        AccessDenied,
        "(HTTP 403)",
    ),
    "an error nested 60,000 deep": (
        Answer(403, b"<Error>" + NEST + b"</Error>"),
        AccessDenied,
        "(HTTP 403)",
    ),
    "a listing nested 60,000 deep": (
        Answer(200, BODY.replace(b"<Name>", b"<!-- -->" + NEST + b"<Name>")),
        StorageUnavailable,
        "it holds more elements than S3 sends",
    ),
    "an entry nested 60,000 deep": (
        Answer(200, BODY.replace(b"<Size>3</Size>", NEST + b"<Size>x</Size>")),
        StorageUnavailable,
        "its rows are longer than S3 sends",
    ),
    "a document type": (
        Answer(200, BODY.replace(b"<ListB", b"<!DOCTYPE l [<!ENTITY e 'a'>]><ListB", 1)),
        StorageUnavailable,
        "or is not a listing",
    ),
    "a document type in UTF-16": (
        Answer(200, f"<!DOCTYPE l [<!ENTITY e 'a'>]>{BODY.decode()}".encode("utf-16")),
        StorageUnavailable,
        "or is not a listing",
    ),
    "a document type inside": (
        Answer(200, BODY.replace(b"<Name>", b"<!DOCTYPE l><Name>")),
        StorageUnavailable,
        "it holds a document type, which is not what S3 sends",
    ),
    **{
        f"more rows than asked for{said}": (
            Answer(200, body),
            StorageUnavailable,
            "it has more keys than the 1000 that were asked for",
        )
        for said, body in {
            "": rgw(Row(f"{n:05}") for n in range(1001)),
            " and not counted": plain(Row(f"{n:05}") for n in range(1001)),
            " and counted wrongly": rgw(Row(f"{n:05}") for n in range(4000)).replace(
                b"<KeyCount>4000", b"<KeyCount>1000"
            ),
            " and read by botocore": aws(Row(f"{n:05}") for n in range(1001)).replace(
                b"<Name>", b"<!-- --><Name>"
            ),
        }.items()
    },
    **{
        f"common prefixes {where}": (
            Answer(
                200, THREE.replace(place, b"<CommonPrefixes>%b</CommonPrefixes>%b" % (what, place))
            ),
            StorageUnavailable,
            "it holds CommonPrefixes, though no delimiter was asked for",
        )
        for where, place, what in [
            ("after the entries", b"</ListB", b"<Prefix>d/</Prefix>"),
            ("before the entries", b"<Name>", b"<Prefix>d/</Prefix>"),
            ("without children", b"</ListB", b""),
            ("between entries", b"<Contents><Key>c<", b"<Prefix>d/</Prefix>"),
        ]
    },
    "429": (Answer(429), Throttled, "the endpoint asks for fewer requests (HTTP 429)"),
    "ThrottlingException": (error("ThrottlingException", status=400), Throttled, "fewer requests"),
    "an internal error": (
        error("InternalError", status=500),
        StorageUnavailable,
        "the endpoint failed (InternalError, HTTP 500)",
    ),
    "an internal error under status 200": (
        error("InternalError", status=200),
        StorageUnavailable,
        "the endpoint failed (InternalError, HTTP 500)",
    ),
    "a proxy's 502": (Answer(502, b"<html>bad gateway</html>"), StorageUnavailable, "(HTTP 502)"),
    "a body that was cut": (
        Answer(200, BODY, {"Content-Length": str(len(BODY))}, cut=200),
        StorageUnavailable,
        "it was cut short, or is not a listing",
    ),
    "a body cut between two entries": (
        Answer(200, BODY[: BODY.index(b"</Contents>") + 11]),
        StorageUnavailable,
        "it was cut short, or is not a listing",
    ),
    "no body": (Answer(200), StorageUnavailable, "it was cut short, or is not a listing"),
    "no XML": (Answer(200, b"hello"), StorageUnavailable, "it was cut short, or is not a listing"),
    "a web page": (
        Answer(200, b"<html><body>hello</body></html>"),
        StorageUnavailable,
        "it was cut short, or is not a listing",
    ),
    "no IsTruncated": (
        Answer(200, plain([Row("a")]).replace(b"<IsTruncated>false</IsTruncated>", b"")),
        StorageUnavailable,
        "it has no IsTruncated, and neither KeyCount nor NextContinuationToken tells",
    ),
    "no IsTruncated, an empty token and fewer rows than are counted": (
        Answer(
            200,
            rgw([Row("a"), Row("b")])
            .replace(b"<IsTruncated>false</IsTruncated>", b"<NextContinuationToken/>")
            .replace(b"<KeyCount>2", b"<KeyCount>3"),
        ),
        StorageUnavailable,
        "it has no IsTruncated, and neither KeyCount nor NextContinuationToken tells",
    ),
    "an empty page with an empty token": (
        Answer(
            200, rgw([], is_truncated=True).replace(b"<Name>", b"<NextContinuationToken/><Name>")
        ),
        StorageUnavailable,
        "an empty page says neither that it is the last nor, in NextContinuationToken, where",
    ),
    "a body that unpacks to more than any listing": (
        Answer(200, gzip.compress(bytes(9 * 2**20)), {"Content-Encoding": "gzip"}),
        StorageUnavailable,
        "the listing cannot be used: unpacked, it is longer than any listing",
    ),
    "half a compressed body": (
        Answer(200, gzip.compress(BODY)[:-30], {"Content-Encoding": "gzip"}),
        StorageUnavailable,
        "it was cut short, or is not a listing",
    ),
    "what is said to be compressed and is not": (
        Answer(200, b"hello", {"Content-Encoding": "gzip"}),
        StorageUnavailable,
        "it was cut short, or is not a listing",
    ),
    "keys out of order": (
        Answer(200, rgw([Row("b"), Row("a\x1b[2J")])),
        UnsupportedKeyOrder,
        "the listing cannot be used: its keys are not in order: a\\x1b[2J comes after b",
    ),
    "a time that is none, read by botocore": (
        Answer(200, BODY.replace(b"<Name>", b"<!-- --><Name>").replace(b"-05-01", b"-13-01", 1)),
        StorageUnavailable,
        "the answer cannot be read",
    ),
    "a connection that breaks": (Reset(), StorageUnavailable, "the endpoint closed the connection"),
    "a stall": (Stall(), StorageUnavailable, "no answer within the read time-out"),
}


@pytest.mark.parametrize(("answer", "kind", "says"), ANSWERS.values(), ids=ANSWERS)
def test_what_goes_wrong_is_told_with_the_way_out(answer, kind, says):
    with CannedServer(answer) as server:
        assert says in complaint(kind, storage(server.url))


MUCH = 7 * 2**20
HUGE = {
    "blanks": b" " * MUCH,
    "an entity": THREE.replace(b"<Name>", b"&e;" * 9_500 + b"<Name>").replace(
        b"<ListB", b'<!DOCTYPE l [<!ENTITY e "%b">]><ListB' % (b"A" * 10_000), 1
    ),
    "elements": THREE.replace(b"<Name>", b"<!-- -->" + b"<a/>" * (MUCH // 4) + b"<Name>"),
    "no children": THREE.replace(b"</ListB", b"<Contents/>" * (MUCH // 11) + b"</ListB"),
    "a key of escapes": rgw([Row("a" + "\x01" * (MUCH // 3)), Row("b")]),
    "keys of escapes": rgw([*(Row(f"{n:03}" + "\x01" * 2_300) for n in range(999)), Row("z")]),
    "keys of references": rgw(Row(f"K{n:03}") for n in range(1000)).replace(b"K", b"&lt;" * 1_700),
    "long ETags": rgw(Row(f"{n:03}", etag="e" * 6_000) for n in range(1000)),
    "many rows": rgw(Row(f"{n:05}") for n in range(20_000)),
    "an error": error("A" * MUCH, status=200).body,
}


@pytest.mark.parametrize("body", HUGE.values(), ids=HUGE)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_no_answer_takes_much_memory(body, packed):
    sent = gzip.compress(body, 1) if packed else body
    answer = Answer(200, sent, {"Content-Encoding": "gzip"} if packed else {})
    with CannedServer(answer) as server:
        asking = storage(server.url, conf=LOCAL)
        with suppress(BucketwatchError):  # a first request loads what botocore knows of S3
            asking.head("k")
        tracemalloc.start()
        try:
            with pytest.raises(StorageUnavailable):
                listed(asking)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 100 * 2**20


def test_nobody_listening_is_told_as_such():
    with never_listening() as url:
        assert "cannot connect (Connection refused)" in complaint(StorageUnavailable, storage(url))


def test_plain_http_behind_an_https_endpoint_is_told_as_tls():
    with CannedServer(Answer(200, BODY)) as server:
        message = complaint(StorageUnavailable, storage(f"https://127.0.0.1:{server.port}"))
    assert "TLS failed" in message
    assert "check the endpoint's certificate" in message


@pytest.fixture
def self_signed(tmp_path) -> ssl.SSLContext:
    """A server's TLS with a certificate that nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "server.pem"
    pem.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + certificate.public_bytes(Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


def test_a_certificate_that_nobody_vouches_for_is_refused(self_signed):
    with CannedServer(Answer(200, BODY), tls=self_signed) as server:
        message = complaint(StorageUnavailable, storage(server.url))
        assert server.asked == []
    assert "TLS failed" in message
    assert "certificate verify failed" in message


@pytest.mark.parametrize("endpoint", ["a..b", "no such host", "http://", "s3.example:port"])
def test_an_endpoint_that_is_no_address_is_told_as_such(endpoint):
    message = complaint(WrongEndpoint, storage(endpoint))
    assert "is not a host name or an http(s) address; correct the bucket's endpoint" in message


@pytest.mark.parametrize(
    ("errno", "kind", "says"),
    [
        (
            socket.EAI_NONAME,
            WrongEndpoint,
            "the host name does not resolve; correct the bucket's endpoint",
        ),
        (socket.EAI_AGAIN, StorageUnavailable, "the name server does not answer just now"),
    ],
    ids=["unknown", "no name server"],
)
def test_a_name_that_does_not_resolve_is_permanent_unless_the_name_server_is_away(
    monkeypatch, errno, kind, says
):
    def lookup(*_: object, **__: object) -> None:
        raise socket.gaierror(errno, "lookup failed")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    assert says in complaint(kind, storage("s3.example.invalid"))


def test_a_name_that_s3_does_not_take_is_permanent():
    with pytest.raises(PermanentError, match="not a bucket name that S3 knows; correct it"):
        listed(storage("http://127.0.0.1:1", name="what is/this"))


def test_a_transient_failure_is_tried_again():
    with CannedServer(Answer(500), Reset(), Answer(200, BODY)) as server:
        assert listed(storage(server.url, attempts=3)) == ["a", "b"]
        assert len(server.asked) == 3


def test_a_cut_body_is_tried_again():
    with CannedServer(Answer(200, BODY[:-30]), Answer(), Answer(200, BODY)) as server:
        assert listed(storage(server.url, attempts=3)) == ["a", "b"]


def test_tries_are_bounded():
    with CannedServer(Answer(500)) as server:
        complaint(StorageUnavailable, storage(server.url, attempts=2))
        assert len(server.asked) == 2


@pytest.mark.parametrize("status", [301, 302, 307, 400])
def test_redirects_are_not_followed_and_no_other_region_is_asked(status):
    elsewhere = error("PermanentRedirect", status=status, x_amz_bucket_region="eu-west-1")
    with CannedServer(elsewhere) as server:
        complaint(WrongEndpoint, storage(server.url, attempts=3))
        assert len(server.lines) == 1


HEADS = {
    "403": (Answer(403), AccessDenied),
    "301": (Answer(301, headers={"x-amz-bucket-region": "fr"}), WrongEndpoint),
    "503": (Answer(503), StorageUnavailable),
    "429": (Answer(429), Throttled),
    "400": (Answer(400), PermanentError),
    "reset": (Reset(), StorageUnavailable),
    "stall": (Stall(), StorageUnavailable),
}


@pytest.mark.parametrize(("answer", "kind"), HEADS.values(), ids=HEADS)
def test_head_raises_the_same_errors_without_a_body(answer, kind):
    with CannedServer(answer) as server, pytest.raises(kind, match=r"^bucket photos at 127") as e:
        storage(server.url).head("k")
    assert type(e.value) is kind


def test_head_of_an_object_that_is_gone_is_none():
    with CannedServer(Answer(404)) as server:
        assert storage(server.url).head("k") is None


def test_head_of_an_endpoint_that_is_no_address_is_told_as_such():
    with pytest.raises(WrongEndpoint, match="the endpoint is not a host name"):
        storage("a..b").head("k")
