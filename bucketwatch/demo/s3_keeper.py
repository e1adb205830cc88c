"""Remember the buckets and objects of moto's S3 server, which keeps them in memory only.

Without this a second `make demo` would find every object new. ``last_modified`` and ETag are kept
with the bytes: they are what a scan compares. Not kept: versions, tags, ACLs.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import FakeBucket, FakeKey, S3Backend, s3_backends

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

TABLES = """
    CREATE TABLE IF NOT EXISTS bucket (name TEXT PRIMARY KEY, region TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS object (
        bucket TEXT NOT NULL, key TEXT NOT NULL, etag TEXT NOT NULL, last_modified REAL NOT NULL,
        metadata TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (bucket, key)
    );
"""


class Keeper:
    """Moto's S3 content, mirrored in one SQLite file.

    Synchronous=OFF is enough: what must survive is a killed process, not a power cut.
    """

    def __init__(self, path: Path) -> None:
        self.lock = threading.Lock()
        self.database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self.database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;" + TABLES)

    @property
    def backend(self) -> S3Backend:
        return s3_backends[DEFAULT_ACCOUNT_ID]["aws"]

    def restore(self) -> None:
        """Give moto what was kept; run it before the first request."""
        for name, region in self.database.execute("SELECT name, region FROM bucket"):
            self.backend.create_bucket(name, region)
        rows = self.database.execute(
            "SELECT bucket, key, etag, last_modified, metadata, body FROM object"
        )
        for bucket, name, etag, last_modified, metadata, body in rows:
            key = self.backend.put_object(bucket, name, body, etag=etag, disable_notification=True)
            key.set_metadata(json.loads(metadata), replace=True)
            key.last_modified = datetime.fromtimestamp(last_modified, UTC).replace(tzinfo=None)

    def wrap(self, app: WSGIApplication) -> WSGIApplication:
        """WSGI middleware: what a request changed is kept before its answer is sent."""

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
        bucket, _, key = path.lstrip("/").partition("/")
        with self.lock:
            here = self.backend.buckets.get(bucket)
            if here is None:
                self.database.execute("DELETE FROM object WHERE bucket = ?", (bucket,))
                self.database.execute("DELETE FROM bucket WHERE name = ?", (bucket,))
            elif key:
                self._keep_object(here, key)
            else:
                self._keep_bucket(here)

    def _keep_bucket(self, bucket: FakeBucket) -> None:
        self.database.execute(
            "INSERT OR REPLACE INTO bucket VALUES (?, ?)", (bucket.name, bucket.region_name)
        )
        kept = self.database.execute("SELECT key FROM object WHERE bucket = ?", (bucket.name,))
        for key in {row[0] for row in kept} | set(bucket.keys):
            self._keep_object(bucket, key)

    def _keep_object(self, bucket: FakeBucket, name: str) -> None:
        key: FakeKey | None = bucket.keys.get(name)
        if key is None:
            self.database.execute(
                "DELETE FROM object WHERE bucket = ? AND key = ?", (bucket.name, name)
            )
            return
        self.database.execute(
            "INSERT OR REPLACE INTO object VALUES (?, ?, ?, ?, ?, ?)",
            (bucket.name, name, *_columns(key)),
        )


def _columns(key: FakeKey) -> tuple[Any, ...]:
    modified = key.last_modified.replace(tzinfo=UTC).timestamp()
    return key.etag.strip('"'), modified, json.dumps(dict(key.metadata)), key.value
