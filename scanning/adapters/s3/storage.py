"""One bucket at its S3 endpoint, through boto3."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any, Final, TypeVar

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from scanning.adapters.s3.clients import S3ClientCache
from scanning.adapters.s3.errors import (
    is_missing,
    s3_error,
    silence,
    throttles,
    timed_out,
    unreadable,
    wrong_endpoint,
)
from scanning.adapters.s3.listing import ListedPage, read_page
from scanning.core import pacing
from scanning.core.errors import AddressRefused, StorageUnavailable, Throttled
from scanning.core.listing.body import UnreadableListing
from scanning.core.types import ObjectMetadata
from scanning.pacing.limiter import UNLIMITED

if TYPE_CHECKING:
    from collections.abc import Callable

    from botocore.model import Shape
    from mypy_boto3_s3 import S3Client

    from scanning.core.listing.rows import ListedRows
    from scanning.core.types import BucketConfig, KeyPair
    from scanning.pacing.limiter import EndpointLimiter, UnlimitedEndpoint

__all__ = ["S3ClientCache", "S3Storage"]

MOST_KEYS: Final = 1000
# Servers that filter after reading send empty pages where they read nothing but delete markers or
# unfinished uploads: many, but not for ever, and they go on with each.
MOST_EMPTY_PAGES: Final = 5000
MOST_AT_ONE_PLACE: Final = 8
# Pages of nothing but rows that cannot be read, one after the other.
MOST_ODD_PAGES: Final = 100
# A request that failed for now is sent again after this and up to twice as much, then after twice
# of it; but not one that took so long already: a lease and a slot are waiting.
AGAIN_S: Final = 0.5
LONGEST_S: Final = 20.0

T = TypeVar("T")

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


class S3Storage:
    """Implements ``ports.Storage``. Requests wait at ``limiter`` until they may be sent."""

    def __init__(
        self,
        cache: S3ClientCache,
        bucket: BucketConfig,
        pair: KeyPair,
        *,
        limiter: EndpointLimiter | UnlimitedEndpoint = UNLIMITED,
    ) -> None:
        self._cache = cache
        self._bucket = bucket
        self._pair = pair
        self._limiter = limiter
        # Where pages ended with rows that cannot be read -> the token that goes on behind them, and
        # how many such pages came one after the other.
        self._odd_ends: dict[str, tuple[str, int]] = {}

    def page(self, start_after: str, max_keys: int) -> ListedPage:
        """Ask for the next keys after ``start_after``: one request, at most 1000 keys.

        A page without rows is the end of the listing; empty pages before that are followed here.
        """
        if not 1 <= max_keys <= MOST_KEYS:
            # RGW answers -1 and 2^31 with what looks like an empty bucket.
            raise ValueError(f"max_keys must be 1 to {MOST_KEYS}, not {max_keys}")
        position = {"StartAfter": start_after} if start_after else {}
        token, odd_pages = self._odd_ends.pop(start_after, ("", 0))
        if token:
            position = {"ContinuationToken": token}
        at_one_place = 0
        for _ in range(MOST_EMPTY_PAGES):
            page = self._ask(MaxKeys=max_keys, **position)
            if start_after:
                page = page.after(start_after)
            if page.ends_oddly:
                return self._note_odd_end(start_after, page, odd_pages)
            if page.entries and page.last_key <= start_after:
                raise unreadable(self._bucket, "it does not go on after the key that was asked for")
            if page.entries or not page.is_truncated:
                return page
            if not page.next_token:
                raise unreadable(
                    self._bucket,
                    "an empty page says neither that it is the last nor, in "
                    "NextContinuationToken, where to go on",
                )
            is_same = position.get("ContinuationToken") == page.next_token
            at_one_place = at_one_place + 1 if is_same else 0
            if at_one_place == MOST_AT_ONE_PLACE:
                break
            position = {"ContinuationToken": page.next_token}
        raise unreadable(self._bucket, "it goes on and on with empty pages")

    def _note_odd_end(self, start_after: str, page: ListedPage, odd_pages: int) -> ListedPage:
        """Remember how to go on behind rows that have no key that one could go on after."""
        page = replace(page, last_key=page.last_key or start_after)
        is_still = page.last_key == start_after
        if page.last_key < start_after or (is_still and page.is_truncated and not page.next_token):
            raise unreadable(self._bucket, "it does not go on after the key that was asked for")
        odd_pages = odd_pages + 1 if is_still else 0
        if odd_pages > MOST_ODD_PAGES:
            raise unreadable(self._bucket, "it goes on and on with rows that cannot be read")
        if page.is_truncated and page.next_token:
            self._odd_ends[page.last_key] = page.next_token, odd_pages
        return page

    def rows(self, entries: bytes) -> ListedRows:
        """The rows in a page's ``entries``, or in some of them."""
        try:
            return self._cache.parser.rows(entries, _shape(self._client()))
        except UnreadableListing as exc:
            raise unreadable(self._bucket, str(exc)) from exc

    def head(self, key: str) -> ObjectMetadata | None:
        """Content type and user metadata of one object; None if it is gone."""
        client = self._client()

        def ask() -> Any:
            try:
                return client.head_object(Bucket=self._bucket.name, Key=key)
            except ClientError as exc:
                if is_missing(exc):
                    return None
                raise

        answer = self._patiently(ask, lists=False)
        if answer is None:
            return None
        return ObjectMetadata(
            etag=answer.get("ETag", "").strip('"'),
            content_type=answer.get("ContentType", "application/octet-stream"),
            metadata=answer.get("Metadata", {}),
        )

    def _ask(self, **asked: Any) -> ListedPage:
        client = self._client()
        if self._bucket.prefix:
            asked["Prefix"] = self._bucket.prefix

        def ask() -> ListedPage:
            answer = client.list_objects_v2(Bucket=self._bucket.name, **asked)
            return read_page(answer, _shape(client), asked=asked["MaxKeys"])

        return self._patiently(ask, lists=True)

    def _patiently(self, ask: Callable[[], T], *, lists: bool) -> T:
        """The answer to one request, sent again if it failed for now."""
        began = time.monotonic()
        for attempt in count(1):
            with self._limiter.acquire(self._bucket.name, lists=lists):
                try:
                    return self._once(ask)
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

    def _once(self, ask: Callable[[], T]) -> T:
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

    def _client(self) -> S3Client:
        endpoint, pair = self._bucket.endpoint, self._pair
        try:
            return self._cache.get_client(endpoint, pair.access_key, pair.secret_key)
        except ValueError as exc:
            raise wrong_endpoint(self._bucket) from exc


def _shape(client: S3Client) -> Shape:
    listing = client.meta.service_model.operation_model("ListObjectsV2")
    assert listing.output_shape is not None  # noqa: S101 - botocore's own description
    return listing.output_shape
