"""One bucket at its S3 endpoint, through boto3."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from botocore.exceptions import ClientError

from scanning.adapters.s3.clients import S3ClientCache
from scanning.adapters.s3.errors import (
    is_missing,
    is_unknown,
    lessons_of,
    out_of_order,
    refuses,
    unreadable,
    wrong_endpoint,
    wrong_name,
)
from scanning.adapters.s3.listing import BODY, ListedPage, read_page
from scanning.adapters.s3.profile_learner import ProfileLearner
from scanning.adapters.s3.sender import RequestSender
from scanning.core.bucket_names import is_bucket_name
from scanning.core.deletions import HeadAnswer
from scanning.core.endpoint_profile import (
    EndpointProfile,
    Fact,
    KeyOrder,
    ListVersion,
    StartAfter,
    TotalsSource,
    UrlEncoding,
)
from scanning.core.endpoints import endpoint_name
from scanning.core.errors import (
    BucketwatchError,
    PermanentError,
)
from scanning.core.listing.body import (
    KeysOutOfOrder,
    UnreadableListing,
    decode_keys,
    has_raw_keys,
    telling_key,
)
from scanning.core.request_costs import RequestKind
from scanning.core.texts import strong_etag
from scanning.core.types import ObjectMetadata
from scanning.pacing.limiter import UNLIMITED

if TYPE_CHECKING:
    from collections.abc import Callable

    from botocore.model import Shape
    from mypy_boto3_s3 import S3Client

    from scanning.core.changes import Version
    from scanning.core.listing.body import ListingBody
    from scanning.core.listing.rows import ListedRows
    from scanning.core.totals import Totals
    from scanning.core.types import BucketConfig, KeyPair
    from scanning.pacing.limiter import EndpointLimiter, UnlimitedEndpoint
    from scanning.ports import EndpointProfileStore

__all__ = ["S3ClientCache", "S3Storage"]

MOST_KEYS: Final = 1000
# Servers that filter after reading send empty pages where they read nothing but delete markers or
# unfinished uploads: many, but not for ever, and they go on with each.
MOST_EMPTY_PAGES: Final = 5000
MOST_AT_ONE_PLACE: Final = 8
# Pages of nothing but rows that cannot be read, one after the other.
MOST_ODD_PAGES: Final = 100
# Its signing region, its addressing, its version of listings: no endpoint has more to say.
_MOST_LESSONS: Final = 3

T = TypeVar("T")


class S3Storage:
    """Implements ``ports.Storage``. Requests wait at ``limiter`` until they may be sent.

    It asks as the endpoint's profile says, and takes in what answers show that the profile does
    not say. Without ``profiles`` nobody else hears of that, and the endpoint is never asked for it.
    """

    def __init__(
        self,
        cache: S3ClientCache,
        bucket: BucketConfig,
        pair: KeyPair,
        *,
        limiter: EndpointLimiter | UnlimitedEndpoint = UNLIMITED,
        profiles: EndpointProfileStore | None = None,
    ) -> None:
        self._cache = cache
        self._bucket = bucket
        self._pair = pair
        self._sender = RequestSender(cache, bucket, limiter)
        self._learner = ProfileLearner(endpoint_name(bucket.endpoint), profiles)
        self._encoding_is_asked = False
        # Where pages ended that are not the last -> how the server would go on from there.
        self._tokens: dict[str, str] = {}
        # Where pages ended that had no readable key -> how many of them.
        self._odd_pages: dict[str, int] = {}
        # The client for a profile: a scan asks for it with each page.
        self._made: tuple[EndpointProfile, S3Client] | None = None

    @property
    def _profile(self) -> EndpointProfile:
        return self._learner.profile

    def page(self, start_after: str, max_keys: int) -> ListedPage:
        """Ask for the next keys after ``start_after``: one request, at most 1000 keys.

        A page without rows is the end of the listing; empty pages before that are followed here.
        """
        if not 1 <= max_keys <= MOST_KEYS:
            # RGW answers -1 and 2^31 with what looks like an empty bucket.
            raise ValueError(f"max_keys must be 1 to {MOST_KEYS}, not {max_keys}")
        self._learner.ask_if_due(self.learn_profile)
        token = self._tokens.pop(start_after, "")
        begins = self._profile.start_after is not StartAfter.IGNORED
        after, reached, at_one_place, empty = start_after if begins else "", "", 0, 0
        while empty < MOST_EMPTY_PAGES and at_one_place < MOST_AT_ONE_PLACE:
            page = self._list(max_keys, after=after, token=token)
            if page.ends_oddly and not page.last_key:
                page = self._ending_at(start_after, page)
            rest = self._after(start_after, page, is_asked_for=bool(after) and not token)
            if rest.entries or not page.is_truncated:
                if page.is_truncated and page.next_token:
                    self._tokens[page.last_key] = page.next_token
                return rest
            # All of it is known already, or there is none: the server must say where to go on.
            if page.entries and (page.last_key <= reached or not page.next_token):
                raise unreadable(self._bucket, "it does not go on after the key that was asked for")
            if not page.next_token:
                raise unreadable(
                    self._bucket,
                    "an empty page says neither that it is the last nor, in "
                    "NextContinuationToken, where to go on",
                )
            empty += not page.entries
            at_one_place = at_one_place + 1 if token == page.next_token else 0
            reached, token = page.last_key or reached, page.next_token
        raise unreadable(self._bucket, "it goes on and on with empty pages")

    def _ending_at(self, start_after: str, page: ListedPage) -> ListedPage:
        """Build a page of rows without a readable key: only its token says where to go on."""
        if page.is_truncated and not page.next_token:
            raise unreadable(self._bucket, "it does not go on after the key that was asked for")
        self._odd_pages[start_after] = self._odd_pages.get(start_after, 0) + 1
        if self._odd_pages[start_after] > MOST_ODD_PAGES:
            raise unreadable(self._bucket, "it goes on and on with rows that cannot be read")
        return replace(page, last_key=start_after)

    def begins_anywhere(self) -> bool:
        self._learner.ask_if_due(self.learn_profile)
        return self._profile.begins_anywhere

    def rows(self, entries: bytes) -> ListedRows:
        if has_raw_keys(entries):
            self._learner.learn({Fact.URL_ENCODING: UrlEncoding.CLAIMED})
            raise unreadable(
                self._bucket,
                "keys are not URL-encoded, as it says they are; the next scan takes them as they "
                "come",
            )
        try:
            return self._cache.parser.rows(entries, _shape(self._client()))
        except KeysOutOfOrder as exc:
            self._learner.learn({Fact.KEY_ORDER: KeyOrder.OTHER})
            raise out_of_order(self._bucket, str(exc)) from exc
        except UnreadableListing as exc:
            raise unreadable(self._bucket, str(exc)) from exc

    def head(self, key: str) -> ObjectMetadata | None:
        def ask() -> Any:
            try:
                return self._client().head_object(Bucket=self._bucket.s3_name, Key=key)
            except ClientError as exc:
                if is_missing(exc):
                    return None
                raise

        answer = self._request(ask, RequestKind.METADATA)
        if answer is None:
            return None
        return ObjectMetadata(
            etag=answer.get("ETag", "").strip('"'),
            content_type=answer.get("ContentType", "application/octet-stream"),
            metadata=answer.get("Metadata", {}),
        )

    def look_up(self, key: str) -> Version | HeadAnswer:
        def ask() -> Version | HeadAnswer:
            try:
                answer = self._client().head_object(Bucket=self._bucket.s3_name, Key=key)
            except ClientError as exc:
                if is_missing(exc):
                    return HeadAnswer.GONE
                if refuses(exc):
                    return HeadAnswer.REFUSED
                raise
            etag = strong_etag(answer.get("ETag", ""))
            modified = answer.get("LastModified")
            size = answer.get("ContentLength", -1)
            return etag, modified.timestamp() if modified else 0.0, size

        return self._request(ask, RequestKind.WITNESS)

    def totals(self) -> Totals | None:
        if not self._profile.may_tell_totals(time.time()):
            return None
        cache, bucket, pair = self._cache, self._bucket, self._pair
        if not is_bucket_name(bucket.s3_name):
            raise wrong_name(bucket)
        keys = pair.access_key, pair.secret_key
        key = f"{cache.get_client_key(bucket.endpoint, *keys, self._profile)} {bucket.s3_name}"
        if cache.heads.is_refused(key):
            return None
        try:
            source, totals = self._request(
                lambda: cache.heads.ask(key, bucket, pair, self._profile), RequestKind.BUCKET
            )
        except PermanentError as error:
            if not isinstance(error.__cause__, ClientError):
                raise
            if is_unknown(error.__cause__):
                self._learner.learn_totals(TotalsSource.NONE)
            cache.heads.refuse(key)
            return None
        if totals is None and self._profile.value(Fact.TOTALS) == TotalsSource.RGW:
            cache.heads.refuse(key)  # others are told theirs
        else:
            self._learner.learn_totals(source)
        return totals

    def learn_profile(self) -> None:
        """Ask the endpoint for all of its facts. Raises what the first request raises."""
        self._learner.ask(self._list)

    # --- requests

    def _list(self, max_keys: int, *, after: str = "", token: str = "") -> ListedPage:
        """Send one request for keys: after one, or where the server said that it would go on."""
        body, page = self._ask(max_keys, after=after, token=token)
        if body is None:
            return page
        if body.is_version_1 and self._learner.learn({Fact.LIST_VERSION: ListVersion.V1}) and after:
            # It listed from the start: to version 1, that key is a stranger.
            return self._list(max_keys, after=after)
        if not self._profile.value(Fact.URL_ENCODING) and self._learns_url_encoding(body):
            return self._list(max_keys, after=after, token=token)
        return page

    def _after(self, key: str, page: ListedPage, *, is_asked_for: bool) -> ListedPage:
        """Keep the rows of a page that are after a key; all of them, where the server knows it."""
        if not (key and page.entries):
            return page
        try:
            first = page.first_key
            if first is None or first > key:
                return page
            if is_asked_for:
                is_same = first == key
                self._learner.learn(
                    {Fact.START_AFTER: StartAfter.INCLUSIVE if is_same else StartAfter.IGNORED}
                )
            return page.after(key)
        except UnreadableListing as exc:
            raise unreadable(self._bucket, str(exc)) from exc

    def _learns_url_encoding(self, body: ListingBody) -> bool:
        """Learn whether keys are encoded as the answer says; True if it has to be read anew.

        A key that looks the same encoded and not shows nothing, and the next page is looked at.
        """
        if not body.url_encoded:
            self._learner.learn({Fact.URL_ENCODING: UrlEncoding.IGNORED})
            return False
        raw = telling_key(body.body)
        if raw is None:
            return False
        if b" " in raw or not raw.isascii():
            return self._learner.learn({Fact.URL_ENCODING: UrlEncoding.CLAIMED})
        if not self._learner.is_shared or self._encoding_is_asked:
            return False
        self._encoding_is_asked = True
        # Under which of its two names is there an object?
        with suppress(BucketwatchError, ValueError):
            decoded, as_it_is = (
                decode_keys([raw], url_encoded=is_encoded)[0] for is_encoded in (True, False)
            )
            if self._ask(1, prefix=decoded)[1].last_key:
                self._learner.learn({Fact.URL_ENCODING: UrlEncoding.HONOURED})
            elif self._ask(1, prefix=as_it_is)[1].last_key:
                return self._learner.learn({Fact.URL_ENCODING: UrlEncoding.CLAIMED})
        return False

    def _ask(
        self, max_keys: int, *, after: str = "", token: str = "", prefix: str = ""
    ) -> tuple[ListingBody | None, ListedPage]:
        asked: dict[str, Any] = {"Bucket": self._bucket.s3_name, "MaxKeys": max_keys}
        if prefix or self._bucket.prefix:
            asked["Prefix"] = prefix or self._bucket.prefix

        def ask() -> tuple[ListingBody | None, ListedPage]:
            client, profile = self._client(), self._profile
            position: dict[str, Any] = {}
            answer: Any
            if profile.list_version == ListVersion.V1:
                if after:
                    position["Marker"] = after
                answer = client.list_objects(**asked, **position)
            else:
                if token:
                    position["ContinuationToken"] = token
                elif after:
                    position["StartAfter"] = after
                answer = client.list_objects_v2(**asked, **position)
            page = read_page(
                answer,
                _shape(client),
                asked=max_keys,
                only_claims=profile.url_encoding is UrlEncoding.CLAIMED,
            )
            return answer.get(BODY), page

        return self._request(ask, RequestKind.LIST)

    def _request(self, ask: Callable[[], T], kind: RequestKind) -> T:
        """Send one request, as the endpoint wants to be asked if it refuses saying how."""
        lessons: dict[Fact, str] = {}
        for _ in range(_MOST_LESSONS):
            try:
                answer = self._sender.send(ask, kind)
            except PermanentError as error:
                lesson = lessons_of(error.__cause__)
                if not self._learner.take_in(lesson):
                    raise
                lessons |= lesson
            else:
                if lessons:  # not before: the refusal may have been of something else
                    self._learner.share(lessons)
                return answer
        return self._sender.send(ask, kind)

    def _client(self) -> S3Client:
        if self._made is not None and self._made[0] is self._profile:
            return self._made[1]  # to find it in the cache costs a digest of the keys
        if not is_bucket_name(self._bucket.s3_name):
            raise wrong_name(self._bucket)
        endpoint, pair = self._bucket.endpoint, self._pair
        try:
            client = self._cache.get_client(
                endpoint, pair.access_key, pair.secret_key, self._profile
            )
        except ValueError as exc:
            raise wrong_endpoint(self._bucket) from exc
        self._made = self._profile, client
        return client


def _shape(client: S3Client) -> Shape:
    listing = client.meta.service_model.operation_model("ListObjectsV2")
    assert listing.output_shape is not None  # noqa: S101 - botocore's own description
    return listing.output_shape
