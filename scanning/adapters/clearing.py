"""Clearing away what removed buckets, and buckets pointed elsewhere, left in Redis.

    …:bw:clearing   set   removed buckets; not claimed before their documented strings are gone
    …:bw:garbage    set   "{generation} {bucket}": incarnations whose segments nobody reads

Internal keys carry the generation, so clearing an old incarnation cannot touch a new one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scanning.core import keys

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scanning.adapters.redis_connection import RedisConnection
    from scanning.conf import Redis

AT_ONCE = 1000


class Clearing:
    def __init__(self, connection: RedisConnection, settings: Redis) -> None:
        self._connection = connection
        self._settings = settings

    def run(self) -> int:
        """Clear everything that waits for it, however long it takes; how many keys that were."""
        cleared = 0
        for incarnation in self._members(keys.GARBAGE):
            generation, _, bucket = incarnation.partition(" ")
            cleared += self._clear_segments(bucket, int(generation))
            self._forget(keys.GARBAGE, incarnation)
        for bucket in self._members(keys.CLEARING):
            cleared += sum(map(self._unlink, self._strings(bucket)))
            self._forget(keys.CLEARING, bucket)
        return cleared

    def _members(self, key: str) -> list[str]:
        return self._connection.run(lambda r: sorted(r.smembers(key)))

    def _forget(self, key: str, member: str) -> None:
        self._connection.run(lambda r: r.srem(key, member))

    def _clear_segments(self, bucket: str, generation: int) -> int:
        manifest = keys.manifest(bucket, generation)
        ids: list[str] = self._connection.run(lambda r: list(r.hkeys(manifest)))
        names = [keys.segment(bucket, generation, id_) for id_ in ids]
        batches = (names[at : at + AT_ONCE] for at in range(0, len(names), AT_ONCE))
        return sum(map(self._unlink, batches)) + self._unlink([manifest])

    def _strings(self, bucket: str) -> Iterator[list[str]]:
        """The bucket's documented strings, batch by batch; looks through the whole keyspace."""
        match = _glob_escape(keys.state(self._settings.state_prefix, bucket, "")) + "*"
        cursor = 0
        while True:
            cursor, names = self._connection.run(_KeysFrom(cursor, match))
            yield names
            if cursor == 0:
                return

    def _unlink(self, names: Sequence[str]) -> int:
        return self._connection.run(lambda r: int(r.unlink(*names))) if names else 0


class _KeysFrom:
    """One step of SCAN."""

    def __init__(self, cursor: int, match: str) -> None:
        self._cursor, self._match = cursor, match

    def __call__(self, r: Any) -> tuple[int, list[str]]:
        cursor, names = r.scan(self._cursor, match=self._match, count=AT_ONCE)
        return int(cursor), list(names)


def _glob_escape(text: str) -> str:
    return "".join(f"\\{c}" if c in r"*?[]^\\" else c for c in text)
