"""Our own reading of listing bodies under boto3.

boto3 parses every listing twice (once to look for an error under status 200), and two thirds of
that time are spent on timestamps. `core/listing.py` reads the body instead; botocore gets a small
envelope to parse. A body that we do not recognise is left to botocore, with the same result.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from functools import partial
from operator import lt
from typing import TYPE_CHECKING, Any, Final

import botocore.handlers
import botocore.parsers
from botocore.compat import unquote_str

from scanning.adapters.s3_errors import UNREADABLE
from scanning.core.listing import (
    Columns,
    ListingBody,
    UnreadableListing,
    is_whole,
    next_token,
    read_listing,
    without_echoes,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping, Sequence

    from botocore.model import OperationModel
    from mypy_boto3_s3 import S3Client

HTTP_OK: Final = 200
SERVER_ERROR: Final = 500
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND: Final = timedelta(milliseconds=1)
BODY: Final = "bucketwatch.body"
FALL_BACK: Final = "bucketwatch.fall_back"
TOKEN: Final = "bucketwatch.token"  # noqa: S105 - a continuation token
# Not the body without its entries: RGW's raw echoes may not be valid XML.
ENVELOPE: Final = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"

# It has no public name.
_error_under_200 = botocore.handlers._handle_200_error  # type: ignore[attr-defined]  # noqa: SLF001


class ListingParser:
    """Reads the listing bodies of the clients that it is attached to.

    ``unrecognised`` counts the bodies that were left to botocore, whole or their entries.
    """

    def __init__(self) -> None:
        self.unrecognised = 0
        self._lock = threading.Lock()

    def attach(self, client: S3Client) -> None:
        """Take over the parsing of listings from this client's botocore handlers."""
        events = client.meta.events
        # It would parse every body completely before any handler of ours. Its two tests (the
        # root is not Error, the body is whole) are made here for listings, the only operation
        # of these clients whose answers have a body.
        events.unregister("before-parse.s3.*", _error_under_200)
        events.register("before-parse.s3.ListObjectsV2", self.read)

    def read(
        self,
        *,
        operation_model: OperationModel,
        response_dict: MutableMapping[str, Any],
        customized_response_dict: MutableMapping[str, Any],
        **_: Any,
    ) -> None:
        """Take the body away from botocore if we can read it ourselves."""
        if response_dict["status_code"] != HTTP_OK:
            return
        body: bytes = response_dict["body"]
        if not is_whole(body):
            _error_under_200(operation_model, response_dict)
        if not body:
            response_dict["status_code"] = SERVER_ERROR  # as botocore does with half a body
        if response_dict["status_code"] != HTTP_OK:
            if b"<Error" not in body[:512]:
                customized_response_dict[UNREADABLE] = "it was cut short, or is not a listing"
            return
        listing = read_listing(body)
        if listing is not None:
            customized_response_dict[BODY] = listing
            customized_response_dict[FALL_BACK] = partial(self.columns, operation_model)
            response_dict["body"] = ENVELOPE
            return
        self._count()
        customized_response_dict[TOKEN] = next_token(body)
        response_dict["body"] = without_echoes(body)

    def columns(self, operation_model: OperationModel, listing: ListingBody) -> Columns:
        """Let botocore read entries that we cannot. Raises UnreadableListing."""
        self._count()
        shape = operation_model.output_shape
        if shape is None:
            raise UnreadableListing("botocore does not know what a listing is")
        entries = listing.body[listing.start : listing.end]
        response = {
            "status_code": HTTP_OK,
            "headers": {},
            "body": b"<ListBucketResult>%b</ListBucketResult>" % entries,
        }
        try:
            parsed = botocore.parsers.create_parser("rest-xml").parse(response, shape)
        except (botocore.parsers.ResponseParserError, ValueError) as exc:
            raise UnreadableListing("its entries are not what S3 sends") from exc
        return columns_of(parsed.get("Contents", []), url_encoded=listing.url_encoded)

    def _count(self) -> None:
        with self._lock:
            self.unrecognised += 1


class RawPage:
    """One answer of a listing, read as far as it was asked for.

    ``row_count`` rows after ``start_after`` up to ``last_key`` ("" without any); the listing is
    over when ``is_truncated`` is false. ``next_token`` is for answers without rows only.
    """

    __slots__ = (
        "_body",
        "_fall_back",
        "is_truncated",
        "last_key",
        "next_token",
        "row_count",
        "start_after",
    )

    def __init__(
        self, body: ListingBody, fall_back: Callable[[ListingBody], Columns], *, start_after: str
    ) -> None:
        self._body = body
        self._fall_back = fall_back
        self.start_after = start_after
        self.row_count = body.rows
        self.last_key = body.last_key
        self.is_truncated = body.is_truncated
        self.next_token = body.next_token

    def digest(self, first: int | None = None) -> bytes | None:
        """The digest of all rows or of the first ``first``; None is like no other digest."""
        return self._body.digest(first)

    def rows(self) -> Columns:
        """The rows, checked to be in order. Raises UnreadableListing."""
        columns = self._body.columns()
        if columns is None:
            columns = self._fall_back(self._body)
        if len(columns) != self.row_count or columns.keys[-1:] not in ([], [self.last_key]):
            raise UnreadableListing("it does not hold the keys that it says")
        return in_order(columns, self.start_after)


class ParsedPage(RawPage):
    """An answer that only botocore's own parser could read; it has no digest."""

    __slots__ = ("_columns",)

    def __init__(self, answer: Mapping[str, Any], *, start_after: str) -> None:
        if "IsTruncated" not in answer:
            raise UnreadableListing("it is not a listing")
        # botocore has undone the URL encoding already
        self._columns = columns_of(answer.get("Contents", []), url_encoded=False)
        self.start_after = start_after
        self.row_count = len(self._columns)
        self.last_key = self._columns.keys[-1] if self.row_count else ""
        self.is_truncated = answer["IsTruncated"]
        self.next_token = answer.get(TOKEN, "")

    def digest(self, first: int | None = None) -> bytes | None:  # noqa: ARG002
        return None

    def rows(self) -> Columns:
        return in_order(self._columns, self.start_after)


def read_page(answer: Mapping[str, Any], *, start_after: str) -> RawPage:
    """What one call of ``list_objects_v2`` answered. Raises UnreadableListing."""
    body: ListingBody | None = answer.get(BODY)
    if body is None:
        return ParsedPage(answer, start_after=start_after)
    return RawPage(body, answer[FALL_BACK], start_after=start_after)


def columns_of(contents: Sequence[Mapping[str, Any]], *, url_encoded: bool) -> Columns:
    """Make botocore's rows ours. Raises UnreadableListing if members are missing."""
    try:
        keys = [unquote_str(row["Key"]) if url_encoded else row["Key"] for row in contents]
        return Columns(
            keys=keys,
            etags=[row.get("ETag", "").strip('"') for row in contents],
            last_modified=[(row["LastModified"] - EPOCH) // MILLISECOND for row in contents],
            sizes=[row["Size"] for row in contents],
        )
    except (KeyError, TypeError) as exc:
        raise UnreadableListing("an entry has no key, time or size") from exc


def in_order(columns: Columns, start_after: str) -> Columns:
    """The same columns if their keys increase strictly from ``start_after``.

    Python compares strings by code point, which is the order of their UTF-8 bytes.
    """
    keys = columns.keys
    if keys and not (start_after < keys[0] and all(map(lt, keys, keys[1:]))):
        raise UnreadableListing("its keys are not in order")
    return columns
