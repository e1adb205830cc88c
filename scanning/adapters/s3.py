"""One bucket at its S3 endpoint, through boto3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from scanning.adapters.s3_clients import S3ClientCache
from scanning.adapters.s3_errors import is_missing, s3_error, unreadable, wrong_endpoint
from scanning.adapters.s3_listing import ListedPage, read_page
from scanning.core.errors import AddressRefused
from scanning.core.listing import Columns, UnreadableListing
from scanning.core.types import ObjectMetadata

if TYPE_CHECKING:
    from botocore.model import Shape
    from mypy_boto3_s3 import S3Client

    from scanning.conf import ScanningConf
    from scanning.core.types import BucketConfig, KeyPair

__all__ = ["S3ClientCache", "S3Storage"]

MOST_KEYS: Final = 1000
# Servers that filter after reading send empty pages, but not for ever.
MOST_EMPTY_PAGES: Final = 8

# ValueError: what botocore's parser lets through of numbers and times.
_VENDOR_ERRORS: Final = (
    ClientError,
    BotoCoreError,
    ResponseParserError,
    OSError,
    ValueError,
    AddressRefused,  # names the address; s3_error adds the bucket
)


class S3Storage:
    """Implements ``ports.Storage``."""

    def __init__(
        self, cache: S3ClientCache, bucket: BucketConfig, pair: KeyPair, conf: ScanningConf
    ) -> None:
        self._cache = cache
        self._bucket = bucket
        self._pair = pair
        self._conf = conf

    def page(self, start_after: str, max_keys: int) -> ListedPage:
        """Ask for the next keys after ``start_after``: one request, at most 1000 keys.

        A page without rows is the end of the listing; empty pages before that are followed here.
        """
        if not 1 <= max_keys <= MOST_KEYS:
            # RGW answers -1 and 2^31 with what looks like an empty bucket.
            raise ValueError(f"max_keys must be 1 to {MOST_KEYS}, not {max_keys}")
        position = {"StartAfter": start_after} if start_after else {}
        for _ in range(1 + MOST_EMPTY_PAGES):
            page = self._ask(MaxKeys=max_keys, **position)
            if page.entries and page.last_key <= start_after:
                raise unreadable(self._bucket, "it does not go on after the key that was asked for")
            if page.entries or not page.is_truncated:
                return page
            if not page.next_token:
                raise unreadable(
                    self._bucket,
                    "an empty page says neither that it is the last nor where to go on",
                )
            position = {"ContinuationToken": page.next_token}
        raise unreadable(self._bucket, f"{MOST_EMPTY_PAGES} empty pages in a row")

    def rows(self, entries: bytes) -> Columns:
        """The rows in a page's ``entries``, or in some of them."""
        try:
            return self._cache.parser.rows(entries, _shape(self._client()))
        except UnreadableListing as exc:
            raise unreadable(self._bucket, str(exc)) from exc

    def head(self, key: str) -> ObjectMetadata | None:
        """Content type and user metadata of one object; None if it is gone."""
        client = self._client()
        try:
            answer = client.head_object(Bucket=self._bucket.name, Key=key)
        except ClientError as exc:
            if is_missing(exc):
                return None
            raise s3_error(exc, self._bucket) from exc
        except _VENDOR_ERRORS as exc:
            raise s3_error(exc, self._bucket) from exc
        return ObjectMetadata(
            etag=answer.get("ETag", "").strip('"'),
            content_type=answer.get("ContentType", "application/octet-stream"),
            metadata=answer.get("Metadata", {}),
        )

    def _ask(self, **asked: Any) -> ListedPage:
        client = self._client()
        if self._bucket.prefix:
            asked["Prefix"] = self._bucket.prefix
        try:
            answer = client.list_objects_v2(Bucket=self._bucket.name, **asked)
            return read_page(answer, _shape(client))
        except UnreadableListing as exc:
            raise unreadable(self._bucket, str(exc)) from exc
        except _VENDOR_ERRORS as exc:
            raise s3_error(exc, self._bucket) from exc

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
