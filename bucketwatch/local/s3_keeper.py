"""Remember the buckets and objects of moto's S3 server, which keeps them in memory only.

Without this a second `make demo` would find every object new. ``last_modified`` and ETag are kept
with the bytes: they are what a scan compares. Not kept: versions, tags, ACLs.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends

from bucketwatch.local.s3_memory import KeptObject, Memory

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from moto.s3.models import FakeBucket, FakeKey, S3Backend


class Keeper:
    """Moto's S3 content, mirrored in a ``Memory``."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.lock = threading.Lock()  # two writers of one key: the later content is kept last

    @property
    def backend(self) -> S3Backend:
        return s3_backends[DEFAULT_ACCOUNT_ID]["aws"]

    def restore(self) -> None:
        """Give moto what was kept; run it before the first request."""
        for bucket, region in self.memory.buckets().items():
            self.backend.create_bucket(bucket, region)
            for kept in self.memory.objects(bucket):
                key = self.backend.put_object(
                    bucket, kept.key, kept.body, etag=kept.etag, disable_notification=True
                )
                key.set_metadata(dict(kept.metadata))
                key.last_modified = datetime.fromtimestamp(kept.last_modified, UTC).replace(
                    tzinfo=None
                )

    def wrap(self, app: WSGIApplication) -> WSGIApplication:
        """Keep what a request changed before its answer is sent, as WSGI middleware."""

        def keeping(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            if environ["REQUEST_METHOD"] in {"GET", "HEAD"}:
                return app(environ, start_response)
            path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")
            answer = list(app(environ, start_response))
            self.keep(path)
            return answer

        return keeping

    def keep(self, path: str) -> None:
        """Keep what stands at ``/bucket/key`` now; for ``/bucket``, all of that bucket."""
        name, _, key = path.lstrip("/").partition("/")
        with self.lock:
            bucket = self.backend.buckets.get(name)
            if bucket is None:
                self.memory.forget_bucket(name)
            elif key:
                self._keep_object(bucket, key)
            else:
                self.memory.keep_bucket(name, bucket.region_name)
                for key in self.memory.keys(name) | set(bucket.keys):
                    self._keep_object(bucket, key)

    def _keep_object(self, bucket: FakeBucket, name: str) -> None:
        key: FakeKey | None = bucket.keys.get(name)
        if key is None:
            self.memory.forget_object(bucket.name, name)
            return
        modified = key.last_modified.replace(tzinfo=UTC).timestamp()
        kept = KeptObject(name, key.value, key.etag.strip('"'), modified, key.metadata)
        self.memory.keep_object(bucket.name, kept)
