"""What went wrong at an S3 endpoint, in our words.

The messages name the bucket, the endpoint and the way out. They hold S3's error code, never its
message text: servers put access keys and signatures into that.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    EndpointProviderError,
    HTTPClientError,
    ReadTimeoutError,
    SSLError,
)

from scanning.core.endpoint_profile import Addressing, Fact, ListVersion
from scanning.core.errors import (
    AccessDenied,
    AddressRefused,
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
from scanning.core.remedies import REMEDIES
from scanning.core.texts import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scanning.core.types import BucketConfig


class AnswerTooSlow(ReadTimeoutError):
    """An answer came byte by byte, and was broken off."""


class AuthoritiesUnreadable(SSLError):
    """The file of certificate authorities that was set for an endpoint cannot be used here."""


_TIME_OUTS: Final = {
    ConnectTimeoutError: "no connection within the connect time-out",
    AnswerTooSlow: "the answer came too slowly, and was broken off",
    ReadTimeoutError: "no answer within the read time-out",
}
_REJECTED: Final = {
    "InvalidAccessKeyId": "does not know the access key",
    "SignatureDoesNotMatch": "says that the secret key does not belong to the access key",
    "InvalidToken": "does not accept the access key",
    "ExpiredToken": "says that the access key has expired",
}
_THROTTLED: Final = {
    "429",
    "BandwidthLimitExceeded",
    "EC2ThrottledException",
    "LimitExceededException",
    "PriorRequestNotComplete",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "SlowDownRead",
    "SlowDownWrite",
    "TooManyRequestsException",
}
_OTHER_REGION: Final = "AuthorizationHeaderMalformed"
# Alibaba's, Huawei's.
_VIRTUAL_HOST_ONLY: Final = {"SecondLevelDomainForbidden", "VirtualHostDomainRequired"}
_NOT_IMPLEMENTED: Final = {"NotImplemented", "501"}
_ELSEWHERE: Final = {
    _OTHER_REGION,
    "IllegalLocationConstraintException",
    "IncorrectEndpoint",
    "InvalidRegion",
    "PermanentRedirect",
    "Redirect",
    "TemporaryRedirect",
}
_REDIRECTS: Final = range(300, 400)
_FAILURES: Final = range(500, 600)
_TRANSIENT: Final = {"InternalError", "RequestTimeout", "RequestTimeoutException"}


def _is_throttled(code: str, status: int) -> bool:
    return bool({code, str(status)} & _THROTTLED) or code.startswith("Throttl")


# Which error an answer with this code and status is, and how the message puts it: the first rule
# that applies. What to do about it is said by `remedies.py`.
_RULES: Final[tuple[tuple[Callable[[str, int], bool], type[BucketwatchError], str], ...]] = (
    (
        lambda code, _: code in _REJECTED,
        CredentialsRejected,
        "the endpoint {rejected}",
    ),
    (
        lambda code, _: code in {"RequestTimeTooSkewed", "RequestExpired"},
        ClockSkewed,
        "this host's clock and the endpoint's differ too much",
    ),
    (
        lambda code, _: code == "NoSuchBucket",
        BucketNotFound,
        "there is no such bucket",
    ),
    (
        _is_throttled,
        Throttled,
        "the endpoint asks for fewer requests",
    ),
    (
        lambda code, _: code in _VIRTUAL_HOST_ONLY,
        WrongEndpoint,
        "the endpoint wants the bucket's name in front of the host",
    ),
    (
        lambda code, status: code in _ELSEWHERE or status in _REDIRECTS,
        WrongEndpoint,
        "{wanted}",
    ),
    (
        lambda _, status: status in {404, 405, 501},
        WrongEndpoint,
        "the endpoint does not answer as S3 does",
    ),
    (
        lambda code, status: code in _TRANSIENT or status in _FAILURES,
        StorageUnavailable,
        "the endpoint failed",
    ),
    (
        lambda _, status: status in {401, 403},
        AccessDenied,
        "the credential may not read the bucket",
    ),
    (lambda *_: True, PermanentError, "the endpoint refuses the request"),
)


def s3_error(exc: Exception, bucket: BucketConfig) -> BucketwatchError:
    """Turn whatever boto3 raised while talking about ``bucket`` into one of our errors."""
    if isinstance(exc, BucketwatchError):
        return AddressRefused(f"{_at(bucket)}: {exc}") if isinstance(exc, AddressRefused) else exc
    if isinstance(exc, ClientError):
        return _answered(exc, bucket)
    if isinstance(exc, EndpointConnectionError):
        return _not_connected(exc, bucket)
    if isinstance(exc, EndpointProviderError | AuthoritiesUnreadable):
        return wrong_endpoint(bucket, exc)
    return StorageUnavailable(f"{_at(bucket)}: {_transport(exc)}")


def wrong_name(bucket: BucketConfig) -> PermanentError:
    """Refuse a name that no server has a bucket of: it would be taken for a part of the path."""
    return PermanentError(f"{_at(bucket)}: this is not a bucket name that S3 knows; correct it")


def wrong_endpoint(bucket: BucketConfig, exc: Exception | None = None) -> WrongEndpoint:
    """Refuse an endpoint that cannot be asked: no address, or a file without authorities."""
    reason = "the endpoint is not a host name or an http(s) address"
    if isinstance(exc, AuthoritiesUnreadable):
        reason = f"the endpoint's file of certificate authorities cannot be used{_os_reason(exc)}"
    return WrongEndpoint(f"{_at(bucket)}: {reason}{_way_out(WrongEndpoint)}")


def out_of_order(bucket: BucketConfig, reason: str) -> UnsupportedKeyOrder:
    return UnsupportedKeyOrder(f"{_at(bucket)}: the listing cannot be used: {reason}")


def unreadable(bucket: BucketConfig, reason: str) -> StorageUnavailable:
    return StorageUnavailable(f"{_at(bucket)}: the listing cannot be used: {reason}")


def lessons_of(exc: BaseException | None) -> dict[Fact, str]:
    """Read what a refusal says of the endpoint: how to ask so that it is none."""
    if not isinstance(exc, ClientError):
        return {}
    code = _code(exc)
    if code == _OTHER_REGION:
        return {Fact.SIGNING_REGION: _region(exc)}
    if code in _VIRTUAL_HOST_ONLY:
        return {Fact.ADDRESSING: Addressing.VIRTUAL}
    if code in _NOT_IMPLEMENTED and exc.operation_name == "ListObjectsV2":
        return {Fact.LIST_VERSION: ListVersion.V1}
    return {}


def throttles(exc: Exception) -> bool:
    """Tell whether the endpoint asks for fewer requests; some say no more than "unavailable"."""
    if not isinstance(exc, ClientError):
        return False
    code, status = _code(exc), _status(exc)
    return status == 503 or _is_throttled(code, status)


def timed_out(exc: Exception) -> bool:
    return isinstance(exc, ConnectTimeoutError | ReadTimeoutError)


def silence(exc: Exception) -> str:
    """Explain to people why the endpoint gave no answer; "" for every other error."""
    if isinstance(exc, EndpointConnectionError):
        return f"cannot connect{_os_reason(exc)}"
    return _transport(exc) if isinstance(exc, HTTPClientError | OSError) else ""


def is_missing(exc: ClientError) -> bool:
    """Recognise a HEAD's 404 (HEAD errors have no body, so no code either)."""
    return _status(exc) == 404 and _code(exc) != "NoSuchBucket"


def refuses(exc: ClientError) -> bool:
    """Recognise a HEAD that the endpoint does not allow, or does not know."""
    return _status(exc) in {401, 403, 405, 501} and not throttles(exc)


def is_unknown(exc: ClientError) -> bool:
    """Recognise the refusal of a request that the endpoint does not know, whoever sends it."""
    return _status(exc) in {405, 501}


def _answered(exc: ClientError, bucket: BucketConfig) -> BucketwatchError:
    code, status = _code(exc), _status(exc)
    error, says = next((rule[1], rule[2]) for rule in _RULES if rule[0](code, status))
    found = {
        "rejected": _REJECTED.get(code, ""),
        "wanted": _wanted(exc),
    }
    reason = f"{says.format(**found)}{_way_out(error)}"
    return error(f"{_at(bucket)}: {reason} ({_shown(code, status)})")


def _way_out(error: type[BucketwatchError]) -> str:
    """Name what somebody has to do; what goes away by itself needs nobody."""
    return f"; {REMEDIES[error].clause}" if issubclass(error, PermanentError) else ""


def _wanted(exc: ClientError) -> str:
    error: Any = exc.response.get("Error", {})
    region = _region(exc)
    endpoint = error.get("Endpoint") or clean(_headers(exc).get("location", ""))
    places = [f"endpoint {endpoint}"] * bool(endpoint) + [f"region {region}"] * bool(region)
    if not places:
        return "the bucket lives at another endpoint or in another region"
    return f"the bucket wants {' and '.join(places)}"


def _region(exc: ClientError) -> str:
    error: Any = exc.response.get("Error", {})
    # Our parser has cleaned what was in the body.
    return str(error.get("Region") or clean(_headers(exc).get("x-amz-bucket-region", "")))


def _headers(exc: ClientError) -> dict[str, str]:
    metadata: Any = exc.response.get("ResponseMetadata", {})
    headers: dict[str, str] = metadata.get("HTTPHeaders", {})
    return headers


def _not_connected(exc: EndpointConnectionError, bucket: BucketConfig) -> BucketwatchError:
    lookup = next((e for e in _causes(exc) if isinstance(e, socket.gaierror)), None)
    if lookup is None:
        return StorageUnavailable(f"{_at(bucket)}: cannot connect{_os_reason(exc)}")
    if lookup.errno == socket.EAI_AGAIN:
        return StorageUnavailable(f"{_at(bucket)}: the name server does not answer just now")
    reason = "the host name does not resolve"
    return WrongEndpoint(f"{_at(bucket)}: {reason}{_way_out(WrongEndpoint)}")


def _transport(exc: Exception) -> str:
    for kind, says in _TIME_OUTS.items():
        if isinstance(exc, kind):
            return says
    if isinstance(exc, SSLError):
        return f"TLS failed{_os_reason(exc)}; check the endpoint's certificate"
    if isinstance(exc, ConnectionClosedError):
        return f"the endpoint closed the connection{_os_reason(exc)}"
    if isinstance(exc, HTTPClientError | BotoCoreError):
        return f"the request failed{_os_reason(exc)}"
    return f"the answer cannot be read ({type(exc).__name__})"


def _os_reason(exc: BaseException) -> str:
    """Find the reason of the operating system or TLS, if it is among the causes."""
    found = next((e for e in _causes(exc) if isinstance(e, OSError) and e.strerror), None)
    return f" ({clean(str(found.strerror))})" if found else ""


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """Walk the exception, what botocore wrapped (it keeps that in ``kwargs``), and their causes."""
    pending: list[object] = [exc]
    seen: set[int] = set()
    while pending:
        cause = pending.pop(0)
        if not isinstance(cause, BaseException) or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        kwargs: Any = getattr(cause, "kwargs", None) or {}
        pending += [kwargs.get("error"), cause.__cause__, cause.__context__, *cause.args]


def _code(exc: ClientError) -> str:
    return str(exc.response.get("Error", {}).get("Code", "")) or str(_status(exc))


def _status(exc: ClientError) -> int:
    return int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _shown(code: str, status: int) -> str:
    return f"HTTP {status}" if code == str(status) else f"{code}, HTTP {status}"


def _at(bucket: BucketConfig) -> str:
    watch = f" (watch {bucket.name})" if bucket.s3_name != bucket.name else ""
    return f"bucket {bucket.s3_name}{watch} at {bucket.endpoint_host}"
