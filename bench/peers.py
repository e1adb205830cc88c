"""What the engine is compared with. Each gives the number of objects that it has seen."""

from __future__ import annotations

import functools
import http.client
import json
import time
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

import boto3

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

BUCKET = "bench"
REGION = "us-east-1"


def stock_paginator(url: str, most: int) -> int:
    """boto3's own paginator, nothing done with what it lists."""
    return sum(len(page) for page in _stock_pages(url, most))


def _stock_pages(url: str, most: int) -> Iterator[list[Any]]:
    pages = _stock_client(url).get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    for page in islice(pages, most // 1000):
        yield page["Contents"]


@functools.cache  # making it costs more than many pages
def _stock_client(url: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id="bench",
        aws_secret_access_key="bench",  # noqa: S106 - nobody checks it
    )


def obstore_arrow(url: str) -> int:
    """Rust's object_store, into Arrow record batches."""
    from obstore.store import S3Store  # noqa: PLC0415 - installed for `make bench` only

    store = S3Store(
        BUCKET,
        endpoint=url,
        region=REGION,
        access_key_id="bench",
        secret_access_key="bench",  # noqa: S106
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )
    return sum(batch.num_rows for batch in store.list(chunk_size=1000, return_arrow=True))


def http_floor(url: str) -> int:
    """Reading the same bytes with http.client, and of them only where to go on."""
    asked = f"/{BUCKET}?list-type=2&max-keys=1000&encoding-type=url"
    objects, position = 0, ""
    with closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)) as connection:
        while True:
            connection.request("GET", asked + position)
            body = connection.getresponse().read()
            envelope = body[:1024]
            start = envelope.index(b"<KeyCount>") + len(b"<KeyCount>")
            objects += int(body[start : body.index(b"<", start)])
            if b"<IsTruncated>false" in envelope:
                return objects
            start = body.rindex(b"<Key>") + len(b"<Key>")
            last_key = unquote(body[start : body.index(b"<", start)].decode())
            position = "&start-after=" + quote(last_key, safe="")


def per_object_loop(url: str, client: redis.Redis, most: int) -> int:
    """A monitor that asks and tells Redis about every object, as it comes out of the paginator.

    It writes what we write: the documented state and notification of each object.
    """
    queue = "bench:queue"
    objects = 0
    for page in _stock_pages(url, most):
        for listed in page:
            key = f"bench:state:{BUCKET}:{listed['Key']}"
            etag, modified = listed["ETag"].strip('"'), listed["LastModified"].timestamp()
            stored = client.get(key)
            if stored is None or json.loads(str(stored))["etag"] != etag:
                now = time.time()
                state = {"etag": etag, "last_modified": modified, "size": listed["Size"]}
                client.set(key, json.dumps(state | {"last_processed": now}), ex=2_592_000)
                event = {
                    "bucket": BUCKET,
                    "key": listed["Key"],
                    "region": url,
                    **state,
                    "event_type": "detected",
                    "content_type": "application/octet-stream",
                    "metadata": {},
                    "detection_time": now,
                    "is_recent": now - modified <= 24 * 3600,
                    "retry_count": 0,
                }
                client.rpush(queue, json.dumps(event))
                client.expire(queue, 604_800)
            objects += 1
    return objects
