"""Our own reading of listing bodies under boto3.

boto3 parses every listing twice (once to look for an error under status 200), and two thirds of
that time are spent on timestamps. `core/listing/body.py` reads the body instead; botocore gets a
small envelope to parse. A body that we do not recognise is left to botocore, with the same result.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import botocore.handlers
import botocore.parsers
from botocore.compat import unquote_str

from scanning.core.error_bodies import is_error, read_error, render_error
from scanning.core.listing.body import (
    MOST_KEY_BYTES,
    Columns,
    ListingBody,
    UnreadableListing,
    check_elements,
    check_for_parser,
    first_key,
    next_token,
    read_listing,
    says_last,
    without_echoes,
    without_up_to,
)
from scanning.core.listing.rows import (
    ListedRows,
    OddRow,
    are_plausible,
    read_each,
    read_entries,
    render_rows,
    sift,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping, Sequence

    from botocore.model import Shape
    from mypy_boto3_s3 import S3Client

HTTP_OK: Final = 200
SERVER_ERROR: Final = 500
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND: Final = timedelta(milliseconds=1)
BODY: Final = "bucketwatch.body"
TOKEN: Final = "bucketwatch.token"  # noqa: S105 - a continuation token
LAST: Final = "bucketwatch.last"
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
        # of these clients whose answers have a body. No error body reaches botocore's parser.
        events.unregister("before-parse.s3.*", _error_under_200)
        events.register("before-parse.s3.ListObjectsV2", self.read)
        events.register("before-parse.s3.ListObjects", self.read)

    def read(
        self,
        *,
        response_dict: MutableMapping[str, Any],
        customized_response_dict: MutableMapping[str, Any],
        **_: Any,
    ) -> None:
        """Take the body away from botocore if we can read it ourselves.

        Raises UnreadableListing for a body that no parser should see.
        """
        body: bytes = response_dict["body"]
        if response_dict["status_code"] != HTTP_OK:
            response_dict["body"] = render_error(read_error(body))
            return
        listing = read_listing(body)
        if listing is not None:
            customized_response_dict[BODY] = listing
            response_dict["body"] = ENVELOPE
            return
        if is_error(body):
            response_dict["status_code"] = SERVER_ERROR
            response_dict["body"] = render_error(read_error(body))
            return
        check_for_parser(body)
        self._count()
        customized_response_dict[TOKEN] = next_token(body)
        customized_response_dict[LAST] = says_last(body)
        response_dict["body"] = without_echoes(body)

    def rows(self, entries: bytes, shape: Shape) -> ListedRows:
        """Parse some URL-encoded entries, in order and each once. Raises UnreadableListing.

        ``shape`` is what botocore knows of a listing: it reads entries that we cannot.
        """

        def by_botocore(unusual: bytes) -> Columns:
            self._count()
            return _rows_by_botocore(unusual, shape, url_encoded=True)

        return read_entries(entries, url_encoded=True, by_parser=by_botocore)

    def _count(self) -> None:
        with self._lock:
            self.unrecognised += 1


@dataclass(frozen=True, slots=True)
class ListedPage:
    """One answer of a listing, as `core/segments/matcher.py` wants it.

    ``next_token`` is where the server would go on. ``ends_oddly``: after ``last_key`` others follow
    that cannot be read.
    """

    entries: bytes
    last_key: str
    is_truncated: bool
    next_token: str
    ends_oddly: bool = False

    @property
    def first_key(self) -> str | None:
        return first_key(self.entries)

    def after(self, key: str) -> ListedPage:
        """Drop the rows up to this key's: to some servers "after" a key means "from" it."""
        entries = without_up_to(self.entries, key)
        if entries is self.entries:
            return self
        return replace(self, entries=entries, last_key=self.last_key if entries else "")


def read_page(
    answer: Mapping[str, Any], shape: Shape, *, asked: int, only_claims: bool = False
) -> ListedPage:
    """Parse the answer to one listing request for ``asked`` keys. Raises UnreadableListing.

    ``only_claims``: keys are not URL-encoded where the answer says so.
    Entries that are not URL-encoded, and rows that only botocore could read, are written anew as
    URL-encoded entries: the stream of a listing holds one kind of bytes.
    """
    body: ListingBody | None = answer.get(BODY)
    if body.has_more_than(asked) if body else len(answer.get("Contents", [])) > asked:
        raise UnreadableListing(f"it has more keys than the {asked} that were asked for")
    if body is not None and body.url_encoded and not only_claims:
        return ListedPage(
            body.entries, body.last_key, body.goes_on(asked), body.next_token, body.ends_oddly
        )
    if body is not None:
        rows = read_each(
            body.entries,
            url_encoded=False,
            by_parser=lambda unusual: _rows_by_botocore(unusual, shape, url_encoded=False),
        )
        truncated, token = body.goes_on(asked), body.next_token
    elif only_claims:
        raise UnreadableListing("keys are not URL-encoded, as it says they are")
    elif "IsTruncated" in answer:
        # botocore has undone the URL encoding already
        rows = _sifted(answer.get("Contents", []))
        truncated, token = answer["IsTruncated"], answer.get(TOKEN, "")
        if not truncated and not answer.get(LAST):
            raise UnreadableListing("it does not say whether more follows")
    else:
        raise UnreadableListing("it has no IsTruncated")
    last_key = rows.columns.keys[-1] if rows.columns.keys else ""
    return ListedPage(render_rows(rows), last_key, truncated, token, rows.ends_oddly)


def _sifted(contents: Sequence[Mapping[str, Any]]) -> ListedRows:
    """Take botocore's rows one by one; it has undone the URL encoding already."""
    rows: list[Columns | None] = []
    odd = []
    for row in contents:
        read = None
        with suppress(UnreadableListing):
            read = columns_of([row], url_encoded=False)
        is_odd = read is None or not are_plausible(read)
        rows.append(None if is_odd else read)
        if is_odd:
            odd.append(OddRow(row.get("Key"), row.get("Key", "")[:MOST_KEY_BYTES]))
    return sift(rows, odd)


def _rows_by_botocore(entries: bytes, shape: Shape, *, url_encoded: bool) -> Columns:
    check_elements(entries)
    response = {
        "status_code": HTTP_OK,
        "headers": {},
        "body": b"<ListBucketResult>%b</ListBucketResult>" % entries,
    }
    try:
        parsed = botocore.parsers.create_parser("rest-xml").parse(response, shape)
    except (botocore.parsers.ResponseParserError, ValueError, RecursionError) as exc:
        raise UnreadableListing("its entries are not what S3 sends") from exc
    columns = columns_of(parsed.get("Contents", []), url_encoded=url_encoded)
    if len(columns) != entries.count(b"</Contents>"):
        raise UnreadableListing("it does not hold the keys that it says")
    return columns


def columns_of(contents: Sequence[Mapping[str, Any]], *, url_encoded: bool) -> Columns:
    """Make botocore's rows ours. Raises UnreadableListing if members are missing."""
    try:
        keys = [unquote_str(row["Key"]) if url_encoded else row["Key"] for row in contents]
        sizes = [row["Size"] for row in contents]
        if not all(0 <= size < 2**63 for size in sizes):
            raise UnreadableListing("the size of an object is not possible")
        return Columns(
            keys=keys,
            etags=[row.get("ETag", "").strip('"') for row in contents],
            last_modified=[(row["LastModified"] - EPOCH) // MILLISECOND for row in contents],
            sizes=sizes,
        )
    except (KeyError, TypeError) as exc:
        raise UnreadableListing("an entry has no key, time or size") from exc
