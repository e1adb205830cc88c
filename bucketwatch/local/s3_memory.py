"""Buckets and objects in one SQLite file: what the demo's S3 server remembers."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

TABLES = """
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = OFF;  -- survives a killed process; nobody expects more of a demo
    PRAGMA busy_timeout = 10000;
    CREATE TABLE IF NOT EXISTS bucket (name TEXT PRIMARY KEY, region TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS object (
        bucket TEXT NOT NULL, key TEXT NOT NULL, body BLOB NOT NULL, etag TEXT NOT NULL,
        last_modified REAL NOT NULL, metadata TEXT NOT NULL, PRIMARY KEY (bucket, key)
    );
"""


@dataclass(frozen=True, slots=True)
class KeptObject:
    """``last_modified`` in epoch seconds; ``metadata`` holds Content-Type as well."""

    key: str
    body: bytes = field(repr=False)
    etag: str
    last_modified: float
    metadata: Mapping[str, str]

    @classmethod
    def new(cls, key: str, body: bytes, *, content_type: str, last_modified: float) -> KeptObject:
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
        return cls(key, body, etag, last_modified, {"Content-Type": content_type})


class Memory:
    """One file; any thread may use it."""

    def __init__(self, path: Path) -> None:
        self.lock = threading.Lock()
        self.database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self.database.executescript(TABLES)

    def close(self) -> None:
        self.database.close()

    def buckets(self) -> dict[str, str]:
        """Map each bucket to its region."""
        with self.lock:
            return dict(self.database.execute("SELECT name, region FROM bucket"))

    def keys(self, bucket: str) -> set[str]:
        with self.lock:
            rows = self.database.execute("SELECT key FROM object WHERE bucket = ?", (bucket,))
            return {row[0] for row in rows}

    def objects(self, bucket: str) -> Iterator[KeptObject]:
        with self.lock:
            rows = self.database.execute(
                "SELECT key, body, etag, last_modified, metadata FROM object WHERE bucket = ?",
                (bucket,),
            ).fetchall()
        for key, body, etag, last_modified, metadata in rows:
            yield KeptObject(key, body, etag, last_modified, json.loads(metadata))

    def keep_bucket(self, name: str, region: str) -> None:
        with self.lock:
            self.database.execute("INSERT OR REPLACE INTO bucket VALUES (?, ?)", (name, region))

    def keep_object(self, bucket: str, kept: KeptObject) -> None:
        metadata = json.dumps(dict(kept.metadata))
        with self.lock:
            self.database.execute(
                "INSERT OR REPLACE INTO object (bucket, key, body, etag, last_modified, metadata)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (bucket, kept.key, kept.body, kept.etag, kept.last_modified, metadata),
            )

    def forget_object(self, bucket: str, key: str) -> None:
        with self.lock:
            self.database.execute("DELETE FROM object WHERE bucket = ? AND key = ?", (bucket, key))

    def forget_bucket(self, name: str) -> None:
        with self.lock:
            self.database.execute("DELETE FROM object WHERE bucket = ?", (name,))
            self.database.execute("DELETE FROM bucket WHERE name = ?", (name,))
