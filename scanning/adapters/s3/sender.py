"""Requests to one bucket: sent when they may be, again if they failed, and counted as answers."""

from __future__ import annotations

import time
from itertools import count
from typing import TYPE_CHECKING, Final, TypeVar

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from scanning.adapters.s3.errors import s3_error, silence, throttles, timed_out, unreadable
from scanning.core import pacing
from scanning.core.errors import AddressRefused, StorageUnavailable, Throttled
from scanning.core.listing.body import UnreadableListing

if TYPE_CHECKING:
    from collections.abc import Callable

    from scanning.adapters.s3.clients import S3ClientCache
    from scanning.core.request_costs import RequestKind
    from scanning.core.types import BucketConfig
    from scanning.pacing.limiter import EndpointLimiter, UnlimitedEndpoint

# A request that failed for now is sent again after this and up to twice as much, then after twice
# of it; but not one that took so long already: a lease and a slot are waiting.
AGAIN_S: Final = 0.5
LONGEST_S: Final = 20.0

# The built-in ones are what botocore stumbles with over numbers, times and members that are none.
_VENDOR_ERRORS: Final = (
    ClientError,
    BotoCoreError,
    ResponseParserError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    RecursionError,
    MemoryError,
    AddressRefused,  # names the address; s3_error adds the bucket
)

T = TypeVar("T")


class RequestSender:
    """Sends a bucket's requests as its endpoint's ``limiter`` permits, and tells it of answers.

    Every error of boto3 becomes one of `core/errors.py`. ``cache`` says how often to try.
    """

    def __init__(
        self,
        cache: S3ClientCache,
        bucket: BucketConfig,
        limiter: EndpointLimiter | UnlimitedEndpoint,
    ) -> None:
        self._cache, self._bucket, self._limiter = cache, bucket, limiter

    def send(self, ask: Callable[[], T], kind: RequestKind) -> T:
        """Send one request, and send it again if it failed for now."""
        began = time.monotonic()
        for attempt in count(1):
            with self._limiter.acquire(self._bucket.name, kind):
                try:
                    return self._send_once(ask)
                except (StorageUnavailable, Throttled) as exc:
                    problem = exc
            pause_s = pacing.equal_jitter(2 * AGAIN_S * attempt, pacing.draw_jitter())
            is_late = time.monotonic() + pause_s - began > LONGEST_S
            is_last = is_late or attempt == self._cache.attempts
            if is_last or self._limiter.blocks(self._bucket.name):
                self._limiter.wait(0)
                raise problem
            self._limiter.wait(pause_s)
        raise AssertionError("it counts for ever")

    def _send_once(self, ask: Callable[[], T]) -> T:
        try:
            answer = ask()
        except UnreadableListing as exc:
            self._limiter.record_answer()
            raise unreadable(self._bucket, str(exc)) from exc
        except _VENDOR_ERRORS as exc:
            error = s3_error(exc, self._bucket)
            self._record(exc, error)
            raise error from exc
        self._limiter.record_answer()
        return answer

    def _record(self, exc: Exception, error: Exception) -> None:
        """Record an error with the limiter, if it is the endpoint's and not the bucket's."""
        why = silence(exc)
        if why and isinstance(error, StorageUnavailable):
            self._limiter.record_failure(self._bucket.name, why, timed_out=timed_out(exc))
        elif isinstance(exc, ClientError | ResponseParserError):
            self._limiter.record_answer()
        if throttles(exc):
            self._limiter.record_throttling()
