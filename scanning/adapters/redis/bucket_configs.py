"""Bucket configurations in Redis: written by the control plane's outbox, read by the engine.

The *managed* buckets are those in ``revisions``. A configuration of another one is never scanned,
never deleted.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from scanning.adapters.redis.losses import expectation
from scanning.adapters.redis.schedule import read_regions
from scanning.core import bucket_document, redis_keys
from scanning.core.types import CommitExpectation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from scanning.adapters.redis.connection import RedisConnection
    from scanning.core.types import BucketConfig

logger = logging.getLogger(__name__)

_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Configuration:
    """The managed buckets, by name, as of ``version``."""

    version: int
    buckets: Mapping[str, BucketConfig]


@dataclass(frozen=True, slots=True)
class Stored:
    """One bucket's configuration as Redis holds it, whoever wrote it.

    ``text`` is what should be JSON; ``revision`` None if bucketwatch did not write it.
    """

    text: str
    notifications: bool
    revision: int | None


class BucketConfigStore:
    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._put = connection.load_script("put_config")
        self._remove = connection.load_script("remove_config")

    def put(
        self,
        name: str,
        document: Mapping[str, Any],
        *,
        notifications: bool,
        revision: int,
        must_know: CommitExpectation | None = None,
    ) -> bool:
        """Write one bucket's configuration; False if Redis already holds a newer revision.

        Members that only the stored JSON has survive (`bucket_document.merge`). A bucket of which
        Redis knows less than ``must_know`` is not scanned (`losses.py`).
        """
        ours = document["bucketwatch"]
        generation = ours["generation"]
        known = must_know or CommitExpectation(name, generation, None, None)
        args = {
            "bucket": name,
            "revision": revision,
            "generation": generation,
            "notifications": notifications,
            "wants": json.dumps(
                [notifications, bucket_document.announced_events(ours), ours.get("suffix")]
            ),
            "expected": expectation(known),
        }

        def read(r: Any) -> tuple[str, list[str]]:
            return r.get(redis_keys.config(name)) or "", read_regions(r)

        while True:
            stored, regions = self._connection.run(read)
            keys = [
                redis_keys.config(name),
                redis_keys.notifications_disabled(name),
                redis_keys.REVISIONS,
                redis_keys.REMOVED,
                redis_keys.CONFIG_VERSION,
                redis_keys.bucket(name),
                redis_keys.GARBAGE,
                redis_keys.REGIONS,
                redis_keys.last_scan(name),
                redis_keys.STATUS_CHANGES,
                redis_keys.STRETCHED,
                *map(redis_keys.due, regions),
            ]
            merged = json.dumps(bucket_document.merge(stored, document))
            as_read = {"stored": stored, "document": merged, "regions": regions}
            result = self._put(keys, args | as_read)
            if result != "read again":
                return bool(result == "written")

    def remove(self, name: str, *, revision: int) -> bool:
        """Forget one bucket and have all that is known of it cleared; False if Redis is newer."""
        while True:
            regions = self._connection.run(read_regions)
            keys = [
                redis_keys.config(name),
                redis_keys.notifications_disabled(name),
                redis_keys.REVISIONS,
                redis_keys.REMOVED,
                redis_keys.CONFIG_VERSION,
                redis_keys.bucket(name),
                redis_keys.last_scan(name),
                redis_keys.CLEARING,
                redis_keys.STATUS_CHANGES,
                redis_keys.REGIONS,
                redis_keys.GARBAGE,
                redis_keys.history(name),
                redis_keys.look_history(name),
                *map(redis_keys.due, regions),
                *map(redis_keys.running, regions),
            ]
            args = {"bucket": name, "revision": revision, "regions": regions}
            result = self._remove(keys, args)
            if result != "read again":
                return bool(result == "removed")

    def revisions(self) -> dict[str, int]:
        """What has been written and not removed: revision by bucket."""
        stored = self._connection.run(lambda r: r.hgetall(redis_keys.REVISIONS))
        return {str(name): int(revision) for name, revision in stored.items()}

    def stored(self) -> dict[str, Stored]:
        """Every configuration in Redis, unmanaged ones too, by bucket.

        Looks through the whole keyspace: for commands that somebody runs now and then.
        """
        batches = self._connection.keys_beginning(redis_keys.CONFIG_PREFIX, kind="string")
        # The flag of a bucket that is called "bucket", or "bucket:…", looks like a configuration.
        flag = f":{redis_keys.FLAG}"
        found = {name for batch in batches for name in batch if not name.endswith(flag)}
        names = {name.removeprefix(redis_keys.CONFIG_PREFIX) for name in found}
        return self.stored_of(names | self.revisions().keys())

    def stored_of(self, buckets: Iterable[str]) -> dict[str, Stored]:
        """The configurations of some buckets; each is in the answer."""
        revisions, names = self.revisions(), sorted(buckets)
        stored: dict[str, Stored] = {}
        for at in range(0, len(names), _AT_ONCE):
            part = names[at : at + _AT_ONCE]
            for row in self._connection.run(partial(_rows, names=part)):
                stored[row.name] = Stored(row.text or "", row.is_on, revisions.get(row.name))
        return stored

    def version(self) -> int:
        return int(self._connection.run(lambda r: r.get(redis_keys.CONFIG_VERSION)) or 0)

    def load(self) -> Configuration:
        """All managed buckets; one whose JSON cannot be read is left out and logged."""

        def read(r: Any) -> tuple[int, list[_Row]]:
            version = int(r.get(redis_keys.CONFIG_VERSION) or 0)
            return version, _rows(r, sorted(str(name) for name in r.hkeys(redis_keys.REVISIONS)))

        version, rows = self._connection.run(read)
        return Configuration(version, _parsed(rows))

    def some(self, names: Sequence[str]) -> tuple[int, dict[str, BucketConfig]]:
        """The configuration's version, and those of ``names`` that are managed and readable."""

        def read(r: Any) -> tuple[int, list[_Row]]:
            # In this order: what changes in between is read again, not missed.
            version = int(r.get(redis_keys.CONFIG_VERSION) or 0)
            revisions = r.hmget(redis_keys.REVISIONS, names)
            managed = [name for name, revision in zip(names, revisions, strict=True) if revision]
            return version, _rows(r, managed)

        version, rows = self._connection.run(read)
        return version, _parsed(rows)

    def get(self, name: str) -> BucketConfig | None:
        """One bucket, managed or not; None if there is no readable configuration."""
        rows = self._connection.run(partial(_rows, names=[name]))
        return _parsed(row for row in rows if row.text is not None).get(name)

    def as_switched(self, bucket: BucketConfig) -> BucketConfig:
        """Have a bucket that was described elsewhere announce what Redis says that it may.

        Commits notice from now on when that changes (``filter_fingerprint``).
        """
        [row] = self._connection.run(partial(_rows, names=[bucket.name]))
        return replace(bucket, notifications=row.is_on, filter_fingerprint=row.wants)


class BucketCache:
    """Buckets as they are asked for; all are forgotten when any configuration changes.

    A worker scans one region: it need not hold, nor read again and again, those of all others.
    """

    def __init__(self, store: BucketConfigStore) -> None:
        self._store = store
        self._version = -1
        self._known: dict[str, BucketConfig] = {}

    def get(self, names: Sequence[str]) -> dict[str, BucketConfig]:
        """Those of ``names`` that are managed, as they are configured now."""
        if (version := self._store.version()) != self._version:
            self._known, self._version = {}, version
        if missing := [name for name in names if name not in self._known]:
            version, found = self._store.some(missing)
            if version != self._version:  # something changed meanwhile
                self._version, found = self._store.some(names)
                self._known = {}
            self._known |= found
        return {name: self._known[name] for name in names if name in self._known}


class _Row(NamedTuple):
    """What is stored of one bucket: its JSON, None without any."""

    name: str
    text: str | None
    is_on: bool
    wants: str


def _rows(r: Any, names: Sequence[str]) -> list[_Row]:
    if not names:
        return []
    pipe = r.pipeline(transaction=False)
    # First: a commit compares it, to find out that the rest was older.
    for name in names:
        pipe.hget(redis_keys.bucket(name), "wants")
    for name in names:
        pipe.exists(redis_keys.notifications_disabled(name))
    pipe.mget([redis_keys.config(name) for name in names])
    *answers, texts = pipe.execute()
    wants, disabled = answers[: len(names)], answers[len(names) :]
    rows = zip(names, texts, disabled, wants, strict=True)
    return [_Row(name, text, not off, wanted or "") for name, text, off, wanted in rows]


def _parsed(rows: Iterable[_Row]) -> dict[str, BucketConfig]:
    """Those that can be read, by name."""
    parsed = ((row, parse_bucket(row.name, row.text, notifications=row.is_on)) for row in rows)
    return {
        row.name: replace(bucket, filter_fingerprint=row.wants) for row, bucket in parsed if bucket
    }


def parse_bucket(name: str, text: str | None, *, notifications: bool) -> BucketConfig | None:
    """The engine's view of one configuration JSON; None, and a log line, if it makes no sense."""
    try:
        return bucket_document.parse(name, json.loads(text or ""), notifications=notifications)
    except bucket_document.UNREADABLE:
        logger.warning("%s: its configuration in Redis cannot be read", name)
        return None
