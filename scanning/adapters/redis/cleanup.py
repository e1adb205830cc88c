"""Clearing away what removed buckets, and buckets pointed elsewhere, left in Redis.

The sets ``clearing`` and ``garbage`` name what is left. A bucket is not claimed before its
documented strings are gone. Internal keys carry the generation, so clearing an old incarnation
cannot touch a new one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from scanning.core import redis_keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scanning.adapters.redis.connection import RedisConnection
    from scanning.config.settings import RedisSection

AT_ONCE = 1000


class Cleanup:
    def __init__(self, connection: RedisConnection, settings: RedisSection) -> None:
        self._connection = connection
        self._settings = settings

    def run(self) -> int:
        """Clear everything that waits for it, however long it takes; how many keys that were."""
        cleared = 0
        for incarnation in self._members(redis_keys.GARBAGE):
            generation, _, bucket = incarnation.partition(" ")
            cleared += self._clear_segments(bucket, int(generation))
            self._forget(redis_keys.GARBAGE, incarnation)
        if removed := self._members(redis_keys.CLEARING):
            cleared += self._clear_strings(removed)
        for bucket in removed:
            self._forget(redis_keys.CLEARING, bucket)
        return cleared

    def _members(self, key: str) -> list[str]:
        return self._connection.run(lambda r: sorted(r.smembers(key)))

    def _forget(self, key: str, member: str) -> None:
        self._connection.run(lambda r: r.srem(key, member))

    def _clear_segments(self, bucket: str, generation: int) -> int:
        manifest = redis_keys.manifest(bucket, generation)
        ids: list[str] = self._connection.run(lambda r: list(r.hkeys(manifest)))
        names = [redis_keys.segment(bucket, generation, id_) for id_ in ids]
        batches = (names[at : at + AT_ONCE] for at in range(0, len(names), AT_ONCE))
        return sum(map(self._unlink, batches)) + self._unlink([manifest])

    def _clear_strings(self, buckets: Sequence[str]) -> int:
        """Pass over the keyspace once, however many buckets were removed together."""
        common = self._settings.state_prefix
        gone = {redis_keys.state(common, bucket, "") for bucket in buckets}
        beginning = common if len(buckets) > 1 else redis_keys.state(common, buckets[0], "")
        return sum(
            self._unlink([name for name in names if _beginnings(name, common) & gone])
            for names in self._connection.keys_beginning(beginning)
        )

    def _unlink(self, names: Sequence[str]) -> int:
        return self._connection.run(lambda r: int(r.unlink(*names))) if names else 0


def _beginnings(name: str, common: str) -> set[str]:
    """List what a state's key may begin with: a bucket's name may have one colon in it."""
    first = name.find(":", len(common)) + 1
    return {name[:first], name[: name.find(":", first) + 1]}
