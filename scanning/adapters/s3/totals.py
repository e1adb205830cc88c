"""HEAD of a bucket, whose answer tells the bucket's totals at some servers.

    Ceph's gateway      x-rgw-object-count, x-rgw-bytes-used; newer ones if asked for read-stats
    what others have    one more line of `_HEADERS`, and of `TotalsSource`

Ceph's admin API tells more (``ver`` moves with every write), to keys that may ask it: another
request, which would have its place here.

botocore's HeadBucket takes no ``read-stats``, and most of what a request costs is making and
signing it: so botocore signs it, and it is sent as it is again while the signature is young. Only
what asks for something once, as these do, may be sent so; servers take signatures for 15 minutes.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote, urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from scanning.core.endpoint_profile import ASK_AGAIN_S, STALE_S, Addressing, TotalsSource
from scanning.core.endpoints import endpoint_url
from scanning.core.totals import Totals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from botocore.awsrequest import AWSPreparedRequest, AWSResponse

    from scanning.core.endpoint_profile import EndpointProfile
    from scanning.core.types import BucketConfig, KeyPair

T = TypeVar("T")

_HEADERS: Final = {TotalsSource.RGW: ("x-rgw-object-count", "x-rgw-bytes-used")}
_QUERY: Final = "read-stats=true"
_NUMBER: Final = re.compile("[0-9]{1,18}")
_SIGNATURE_S: Final = 60.0
_MOST_KEPT: Final = 10_000
_UNAUTHORISED: Final = (401, 403)


def read_totals(headers: Mapping[str, str]) -> tuple[TotalsSource, Totals | None]:
    """Read where an answer tells totals, and which; NONE where there are none that make sense."""
    for source, names in _HEADERS.items():
        texts = [headers.get(name, "").strip() for name in names]
        if all(map(_NUMBER.fullmatch, texts)):
            return source, Totals(*map(int, texts))
    return TotalsSource.NONE, None


@dataclass(frozen=True, slots=True)
class _Signed:
    request: AWSPreparedRequest
    send: Callable[..., AWSResponse]
    until: float


class BucketHeads:
    """Sends HEAD of buckets, and remembers which keys may not ask. Safe for threads.

    ``sender`` gives what carries the requests of an endpoint (its URL, its authorities);
    ``region_of`` says for which region an endpoint's requests are signed that says none.
    """

    def __init__(
        self,
        sender: Callable[[str, str], Callable[..., AWSResponse]],
        region_of: Callable[[str], str],
    ) -> None:
        self._sender, self._region_of = sender, region_of
        self._signed: OrderedDict[str, _Signed] = OrderedDict()
        self._refused: OrderedDict[str, float] = OrderedDict()
        self._told: OrderedDict[str, None] = OrderedDict()

    def ask(
        self, key: str, bucket: BucketConfig, pair: KeyPair, profile: EndpointProfile
    ) -> tuple[TotalsSource, Totals | None]:
        """Send one request, and read what tells totals; ``key`` stands for bucket and key pair.

        Raises ClientError for every answer but 200, and what sending raises.
        """
        answer = self._answer(key, bucket, pair, profile)
        source, totals = read_totals(answer.headers)
        if totals is not None:
            _keep(self._told, key, None)
        return source, totals

    def refuse(self, key: str) -> None:
        """Note that the key pair is told no totals, for a day; not so long if it once was told."""
        for_s = ASK_AGAIN_S if key in self._told else STALE_S
        _keep(self._refused, key, time.monotonic() + for_s)

    def is_refused(self, key: str) -> bool:
        return self._refused.get(key, 0.0) > time.monotonic()

    def _answer(
        self, key: str, bucket: BucketConfig, pair: KeyPair, profile: EndpointProfile
    ) -> AWSResponse:
        signed = self._signed.get(key)
        if signed is not None and time.monotonic() < signed.until:
            answer = signed.send(signed.request)
            if answer.status_code not in _UNAUTHORISED:
                return _checked(answer)
        # Anew too where a signature that is used again is refused: clocks may differ that much.
        signed = self._sign(bucket, pair, profile)
        _keep(self._signed, key, signed)
        return _checked(signed.send(signed.request))

    def _sign(self, bucket: BucketConfig, pair: KeyPair, profile: EndpointProfile) -> _Signed:
        endpoint = endpoint_url(bucket.endpoint)
        name = quote(bucket.s3_name, safe="")
        if profile.addressing is Addressing.VIRTUAL:
            parts = urlsplit(endpoint)
            url = f"{parts.scheme}://{name}.{parts.netloc}/"
        else:
            url = f"{endpoint}/{name}"
        request = AWSRequest("HEAD", f"{url}?{_QUERY}", headers={"User-Agent": "bucketwatch"})
        keys = Credentials(pair.access_key, pair.secret_key)
        region = profile.signing_region or self._region_of(endpoint)
        S3SigV4Auth(keys, "s3", region).add_auth(request)
        send = self._sender(endpoint, profile.settings.authorities)
        return _Signed(request.prepare(), send, time.monotonic() + _SIGNATURE_S)


def _checked(answer: AWSResponse) -> AWSResponse:
    if answer.status_code == 200:
        return answer
    status: Any = answer.status_code
    metadata: Any = {
        "HTTPStatusCode": status,
        "HTTPHeaders": {name.lower(): text for name, text in answer.headers.items()},
    }
    error: Any = {"Error": {"Code": str(status)}, "ResponseMetadata": metadata}
    raise ClientError(error, "HeadBucket")


def _keep(kept: OrderedDict[str, T], key: str, value: T) -> None:
    kept.pop(key, None)
    kept[key] = value
    while len(kept) > _MOST_KEPT:
        try:
            kept.popitem(last=False)
        except KeyError:  # another thread took the last one
            return
