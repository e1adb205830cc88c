"""Whether Redis still remembers its buckets as the database says that it did.

The key ``trusted`` expires within seconds unless a monitor renews it, so a Redis that was emptied,
restored from a backup or restarted without its data does not hold it. Nobody claims a bucket then,
on any host, until Redis has been compared with the database, or the database cannot be asked.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from scanning.adapters.redis.schedule import read_regions
from scanning.core import redis_keys
from scanning.core.types import Compared, SetBack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scanning.adapters.redis.connection import RedisConnection
    from scanning.core.types import CommitExpectation

# Longer than one monitor takes to take over from another, much shorter than the failover window.
_VERIFIED_MS = 30_000
_COMPARING_MS = 300_000
_AT_ONCE = 500


class RedisContinuity:
    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._compare = connection.load_script("compare_buckets")
        self._mark_verified = connection.load_script("mark_verified")
        # The server that is compared now, and the one that was.
        self._looked_at = self._compared = ""

    def must_verify(self) -> bool:
        """Tell whether to compare: nobody did, or another server answers than this object compared.

        A failover may have forgotten what was written last, but not that Redis was verified.
        """
        return self.verified() != "checked" or self._server() != self._compared

    def begin(self) -> str:
        """Begin to compare Redis with the database; returns the token for ``mark_verified``."""
        self._looked_at = self._server()
        token = secrets.token_hex(8)
        self._connection.run(lambda r: r.set(redis_keys.COMPARING, token, px=_COMPARING_MS))
        return token

    def mark_verified(self, token: str) -> bool:
        """Let buckets be claimed; False if Redis is not the one any more that was compared."""
        args = {"token": token, "milliseconds": _VERIFIED_MS}
        is_marked = bool(self._mark_verified([redis_keys.COMPARING, redis_keys.TRUSTED], args))
        if is_marked:
            self._compared = self._looked_at
        return is_marked

    def _server(self) -> str:
        """Name this run of the server that answers."""
        return str(self._connection.run(lambda r: r.info("server")["run_id"]))

    def mark_unverified(self) -> None:
        """Let buckets be claimed although the database could not be asked."""
        self._connection.run(lambda r: r.set(redis_keys.TRUSTED, "unchecked", px=_VERIFIED_MS))

    def renew_verified(self) -> bool:
        """Let buckets be claimed for another while; False if they may not be claimed now."""
        return bool(self._connection.run(lambda r: r.pexpire(redis_keys.TRUSTED, _VERIFIED_MS)))

    def verified(self) -> str:
        """Tell why buckets may be claimed: "checked", or "unchecked"; "" if they may not."""
        return str(self._connection.run(lambda r: r.get(redis_keys.TRUSTED)) or "")

    def compare(self, expected: Sequence[CommitExpectation]) -> Compared:
        """Take the buckets that Redis forgot off the schedule."""
        lost: list[str] = []
        set_back: list[SetBack] = []
        for at in range(0, len(expected), _AT_ONCE):
            part = {row.bucket: row for row in expected[at : at + _AT_ONCE]}
            for bucket, found, commit, when in self._compare_some(part):
                row = part[bucket]
                if found == "lost":
                    lost.append(row.bucket)
                elif row.commit is not None:
                    held = (int(commit), float(when))
                    set_back.append(SetBack(row.bucket, row.generation, row.commit, *held))
        return Compared(lost, set_back)

    def _compare_some(self, expected: Mapping[str, CommitExpectation]) -> list[list[str]]:
        while True:
            regions = self._connection.run(read_regions)
            keys = [
                redis_keys.REGIONS,
                redis_keys.STATUS_CHANGES,
                redis_keys.CONFIG_VERSION,
                *map(redis_keys.due, regions),
                *map(redis_keys.bucket, expected),
            ]
            args = {"regions": regions, "expected": [*map(expectation, expected.values())]}
            found: list[list[str]] | str = self._compare(keys, args)
            if not isinstance(found, str):
                return found


def expectation(expected: CommitExpectation) -> dict[str, Any]:
    """Describe what Redis should know of a bucket, as `lua/shared/continuity.lua` takes it."""
    described = {"bucket": expected.bucket, "generation": expected.generation}
    at, window_s = expected.commit_at, expected.window_s
    if at is None:
        return described
    between = {"earliest": at - window_s, "latest": at + window_s}
    return described | {"commit": expected.commit} | between
