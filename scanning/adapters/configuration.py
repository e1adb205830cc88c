"""Bucket configurations in Redis: written by the control plane's mirror, read by the engine.

    linode:objstore:config:bucket:{name}                    string, JSON (documented)
    linode:objstore:config:{name}:notifications_disabled    string ``true``, or absent
    …:bw:revisions        hash     bucket -> revision that was written last: the *managed* buckets
    …:bw:removed          hash     bucket -> revision that removed it
    …:bw:config_version   counter  moves with every change, so that readers know when to read again

A configuration key that is not in ``revisions`` is *unmanaged*: never scanned, never deleted.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scanning.core import keys
from scanning.core.types import WANTED_BY_DEFAULT, BucketConfig, EventType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scanning.adapters.redis_connection import RedisConnection

logger = logging.getLogger(__name__)

MOST_LANES = 16
_AT_ONCE = 1000

# KEYS: config, disabled flag, revisions, removed, config_version, bucket hash, garbage.
# ARGV: bucket, revision, expected old JSON or '', new JSON, notifications '1'/'0', generation.
# Returns 1 written, 0 Redis is newer, -1 the JSON changed under us (read again).
_PUT = """
local revision = tonumber(ARGV[2])
local newest = math.max(tonumber(redis.call('HGET', KEYS[3], ARGV[1]) or 0),
                        tonumber(redis.call('HGET', KEYS[4], ARGV[1]) or 0))
if revision < newest then return 0 end
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[3] then return -1 end
redis.call('SET', KEYS[1], ARGV[4])
if ARGV[5] == '1' then redis.call('DEL', KEYS[2]) else redis.call('SET', KEYS[2], 'true') end
redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
redis.call('HDEL', KEYS[4], ARGV[1])
local before = redis.call('HGET', KEYS[6], 'generation')
if before and before ~= ARGV[6] then
  -- What was known is of another bucket now; its hold and its progress go with it.
  redis.call('SADD', KEYS[7], before .. ' ' .. ARGV[1])
  redis.call('HDEL', KEYS[6], 'progress', 'held_since', 'held_missing', 'held_known', 'released')
end
redis.call('HSET', KEYS[6], 'generation', ARGV[6])
redis.call('INCR', KEYS[5])
return 1
"""

# KEYS: config, disabled flag, revisions, removed, config_version, bucket hash, last_scan, clearing,
#       changed_status, regions, garbage.
# ARGV: bucket, revision.  Returns 1 removed, 0 Redis is newer.
_REMOVE = """
local newest = math.max(tonumber(redis.call('HGET', KEYS[3], ARGV[1]) or 0),
                        tonumber(redis.call('HGET', KEYS[4], ARGV[1]) or 0))
if tonumber(ARGV[2]) < newest then return 0 end
redis.call('HSET', KEYS[4], ARGV[1], ARGV[2])
if redis.call('HDEL', KEYS[3], ARGV[1]) == 1 then
  redis.call('SADD', KEYS[11], (redis.call('HGET', KEYS[6], 'generation') or '0') .. ' ' .. ARGV[1])
  redis.call('DEL', KEYS[1], KEYS[2], KEYS[6], KEYS[7])
  redis.call('SREM', KEYS[9], ARGV[1])
  redis.call('SADD', KEYS[8], ARGV[1])
  -- Added again at once, it must neither keep its old due time nor wait for its old lease.
  for _, region in ipairs(redis.call('SMEMBERS', KEYS[10])) do
    redis.call('ZREM', 'OURSregion:' .. region .. ':due', ARGV[1])
    redis.call('ZREM', 'OURSregion:' .. region .. ':run', ARGV[1])
  end
end
redis.call('INCR', KEYS[5])
return 1
""".replace("OURS", keys.OURS)


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


class ConfigurationStore:
    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._put = connection.script(_PUT)
        self._remove = connection.script(_REMOVE)

    def put(
        self, name: str, document: Mapping[str, Any], *, notifications: bool, revision: int
    ) -> bool:
        """Write one bucket's configuration; False if Redis already holds a newer revision.

        Members of ``document`` replace those stored; members that only the stored JSON has (an
        older program's, an operator's) survive, in the ``bucketwatch`` object too. A documented
        member given as None is removed.
        """
        names = [
            keys.config(name),
            keys.notifications_disabled(name),
            keys.REVISIONS,
            keys.REMOVED,
            keys.CONFIG_VERSION,
            keys.bucket(name),
            keys.GARBAGE,
        ]
        generation = document["bucketwatch"]["generation"]

        flag = "1" if notifications else "0"
        while True:
            stored = str(self._connection.run(lambda r: r.get(names[0])) or "")
            merged = json.dumps(_merge(stored, document))
            expected = stored.encode(errors="surrogateescape")
            answer = int(self._put(names, [name, revision, expected, merged, flag, generation]))
            if answer >= 0:
                return answer == 1

    def remove(self, name: str, *, revision: int) -> bool:
        """Forget one bucket and have all that is known of it cleared; False if Redis is newer."""
        names = [
            keys.config(name),
            keys.notifications_disabled(name),
            keys.REVISIONS,
            keys.REMOVED,
            keys.CONFIG_VERSION,
            keys.bucket(name),
            keys.last_scan(name),
            keys.CLEARING,
            keys.CHANGED_STATUS,
            keys.REGIONS,
            keys.GARBAGE,
        ]
        args = [name, revision]
        return bool(self._remove(names, args))

    def revisions(self) -> dict[str, int]:
        """What has been written and not removed: revision by bucket."""
        stored = self._connection.run(lambda r: r.hgetall(keys.REVISIONS))
        return {str(name): int(revision) for name, revision in stored.items()}

    def stored(self) -> dict[str, Stored]:
        """Every configuration in Redis, unmanaged ones too, by bucket.

        Looks through the whole keyspace: for commands that somebody runs now and then.
        """
        revisions = self.revisions()
        found = [n.removeprefix(keys.CONFIG_PREFIX) for n in self._keys(keys.CONFIG_PREFIX)]
        names = sorted({*found, *revisions})
        stored: dict[str, Stored] = {}
        for at in range(0, len(names), _AT_ONCE):
            part = names[at : at + _AT_ONCE]
            texts, disabled = self._connection.run(_Read(part))
            for name, text, off in zip(part, texts, disabled, strict=True):
                stored[name] = Stored(str(text or ""), not off, revisions.get(name))
        return stored

    def _keys(self, prefix: str) -> set[str]:
        """All names of strings that begin so."""
        found: set[str] = set()
        cursor = 0
        while True:
            cursor, names = self._connection.run(_Scan(cursor, prefix))
            found.update(map(str, names))
            if cursor == 0:
                return found

    def version(self) -> int:
        return int(self._connection.run(lambda r: r.get(keys.CONFIG_VERSION)) or 0)

    def load(self) -> Configuration:
        """All managed buckets; one whose JSON cannot be read is left out and logged."""

        def read(r: Any) -> tuple[int, list[str], list[str | None], list[int]]:
            version = int(r.get(keys.CONFIG_VERSION) or 0)
            names = sorted(str(name) for name in r.hkeys(keys.REVISIONS))
            if not names:
                return version, [], [], []
            pipe = r.pipeline(transaction=False)
            pipe.mget([keys.config(name) for name in names])
            for name in names:
                pipe.exists(keys.notifications_disabled(name))
            texts, *disabled = pipe.execute()
            return version, names, texts, disabled

        version, names, texts, disabled = self._connection.run(read)
        rows = zip(names, texts, disabled, strict=True)
        parsed = [parse_bucket(name, text, notifications=not off) for name, text, off in rows]
        return Configuration(version, {bucket.name: bucket for bucket in parsed if bucket})

    def get(self, name: str) -> BucketConfig | None:
        """One bucket, managed or not; None if there is no readable configuration."""

        def read(r: Any) -> tuple[str | None, int]:
            text = r.get(keys.config(name))
            return text, r.exists(keys.notifications_disabled(name))

        text, disabled = self._connection.run(read)
        return parse_bucket(name, text, notifications=not disabled)


class _Scan:
    """One step through the keyspace."""

    def __init__(self, cursor: int, prefix: str) -> None:
        self._cursor, self._prefix = cursor, prefix

    def __call__(self, r: Any) -> tuple[int, list[str]]:
        cursor, names = r.scan(
            self._cursor, match=f"{self._prefix}*", count=_AT_ONCE, _type="string"
        )
        return int(cursor), list(names)


class _Read:
    """Texts and disabled flags of some buckets."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def __call__(self, r: Any) -> tuple[list[str | None], list[int]]:
        pipe = r.pipeline(transaction=False)
        pipe.mget([keys.config(name) for name in self._names])
        for name in self._names:
            pipe.exists(keys.notifications_disabled(name))
        texts, *disabled = pipe.execute()
        return texts, disabled


def parse_bucket(name: str, text: str | None, *, notifications: bool) -> BucketConfig | None:
    """The engine's view of one configuration JSON; None, and a log line, if it makes no sense."""
    try:
        return parse_document(name, json.loads(text or ""), notifications=notifications)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        logger.warning("%s: its configuration in Redis cannot be read", name)
        return None


def parse_document(name: str, document: Mapping[str, Any], *, notifications: bool) -> BucketConfig:
    """Read the documented JSON object. What makes no sense raises one of several errors."""
    ours: Mapping[str, Any] = document.get("bucketwatch") or {}
    endpoint = str(document["endpoint"])
    interval = int(ours.get("polling_interval") or 0)
    if interval < 0:
        raise ValueError("a polling interval cannot be negative")
    return BucketConfig(
        name=name,
        endpoint=endpoint,
        region=str(
            ours.get("region") or document.get("region") or endpoint.rsplit("://", maxsplit=1)[-1]
        ),
        credential=str(ours.get("credential") or name.upper().replace("-", "_")),
        generation=int(ours.get("generation") or 0),
        polling_interval_s=interval or None,
        active=document.get("status", "active") == "active",
        notifications=notifications,
        fetch_metadata=bool(ours.get("fetch_metadata", True)),
        webhook_url=str(document.get("webhook_url") or ""),
        prefix=str(ours.get("prefix") or ""),
        suffix=str(ours.get("suffix") or ""),
        events=frozenset(map(EventType, ours["events"])) if "events" in ours else WANTED_BY_DEFAULT,
        first_scan="baseline" if ours.get("first_scan") == "baseline" else "announce",
        taken_over=bool(ours.get("taken_over")),
        lanes=_lanes(ours.get("lanes")),
    )


def _lanes(value: Any) -> int | None:
    return max(1, min(int(value), MOST_LANES)) if value else None


def _merge(stored: str, document: Mapping[str, Any]) -> dict[str, Any]:
    try:
        old = json.loads(stored) if stored else {}
    except ValueError:
        old = {}
    if not isinstance(old, dict):
        old = {}
    merged = old | {k: v for k, v in document.items() if k != "bucketwatch"}
    ours = old.get("bucketwatch")
    merged["bucketwatch"] = (ours if isinstance(ours, dict) else {}) | document["bucketwatch"]
    # What an old consumer has in webhook_auth is kept unless it is given, or given as None.
    auth, new_auth = old.get("webhook_auth"), document.get("webhook_auth")
    if isinstance(new_auth, dict):
        both = (auth if isinstance(auth, dict) else {}) | new_auth
        merged["webhook_auth"] = {k: v for k, v in both.items() if v is not None}
    return {k: v for k, v in merged.items() if v is not None}
