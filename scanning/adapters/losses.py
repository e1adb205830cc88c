"""Whether Redis still remembers its buckets as the database says that it did.

    …:bw:trusted          string   there while Redis is known to be the one that was written to:
                                   "checked", or "unchecked" if the database could not be asked
    …:bw:comparing        string   token of whoever compares Redis with the database now
    …:bw:bucket:{name}    hash     commit_at: when the last commit was; lost_since: there while the
                                   bucket is not scanned because Redis forgot it

``trusted`` expires within seconds unless a monitor renews it, so a Redis that was emptied, restored
from a backup or restarted without its data does not hold it. Nobody claims a bucket then, on any
host, until Redis has been compared with the database.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from scanning.core import keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scanning.adapters.redis_connection import RedisConnection
    from scanning.core.types import Expected

# Longer than one monitor takes to take over from another, much shorter than the failover window.
TRUST_S = 30.0
_COMPARING_S = 300.0
_AT_ONCE = 500

_NAMES = {
    "BUCKETS": keys.BUCKET_PREFIX,
    "REGIONS": keys.REGIONS,
    "DUE": f"{keys.OURS}region:",
    "CHANGED": keys.CHANGED_STATUS,
    "VERSION": keys.CONFIG_VERSION,
}


def with_losses(script: str) -> str:
    """Give a script ``compare(bucket, oldest)``, which takes a forgotten bucket off the schedule.

    ``oldest`` is how old its last commit may be, nil if nothing is expected of Redis; then, and
    when Redis remembers enough, it is scheduled again. Returns 1 if it is lost since now, else 0.
    """
    text = _COMPARE + script
    for name, value in _NAMES.items():
        text = text.replace(f"<{name}>", value)
    return text


_COMPARE = """
local function compare(bucket, oldest)
  local hash = '<BUCKETS>' .. bucket
  local behind = oldest ~= nil and tonumber(redis.call('HGET', hash, 'commit_at') or 0) < oldest
  if behind == (redis.call('HEXISTS', hash, 'lost_since') == 1) then return 0 end
  if behind then
    redis.call('HSET', hash, 'lost_since', redis.call('TIME')[1])
    for _, region in ipairs(redis.call('SMEMBERS', '<REGIONS>')) do
      redis.call('ZREM', '<DUE>' .. region .. ':due', bucket)
    end
  else
    redis.call('HDEL', hash, 'lost_since')
  end
  redis.call('SADD', '<CHANGED>', bucket)
  redis.call('INCR', '<VERSION>')
  return behind and 1 or 0
end
"""

# ARGV: bucket, generation, oldest commit or '', for each bucket.  Returns the names of those that
# are lost since now.  One whose generation is newer here than whoever asks knows is left alone.
_COMPARE_ALL = with_losses("""
local lost = {}
for i = 1, #ARGV, 3 do
  local generation = redis.call('HGET', '<BUCKETS>' .. ARGV[i], 'generation') or 0
  if tonumber(generation) <= tonumber(ARGV[i + 1]) and compare(ARGV[i], tonumber(ARGV[i + 2])) == 1
  then lost[#lost + 1] = ARGV[i] end
end
return lost
""")


# KEYS: comparing, trusted.  ARGV: token, milliseconds.  Returns 1, or 0 if the token is not there.
_TRUST = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], 'checked', 'PX', ARGV[2])
return 1
"""


class Losses:
    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._compare = connection.script(_COMPARE_ALL)
        self._trust = connection.script(_TRUST)
        # The server that is compared now, and the one that was.
        self._looked_at = self._compared = ""

    def must_compare(self) -> bool:
        """Whether nobody has compared this Redis, or it is another server than we have compared.

        A failover may have forgotten what was written last, and the trust remembers nothing of it.
        """
        return self.trusted() != "checked" or self._server() != self._compared

    def begin(self) -> str:
        """Begin to compare Redis with the database; returns the token for ``trust``."""
        self._looked_at = self._server()
        token = secrets.token_hex(8)
        milliseconds = int(_COMPARING_S * 1000)
        self._connection.run(lambda r: r.set(keys.COMPARING, token, px=milliseconds))
        return token

    def trust(self, token: str) -> bool:
        """Let buckets be claimed; False if Redis is not the one any more that was compared."""
        milliseconds = int(TRUST_S * 1000)
        is_trusted = bool(self._trust([keys.COMPARING, keys.TRUSTED], [token, milliseconds]))
        if is_trusted:
            self._compared = self._looked_at
        return is_trusted

    def _server(self) -> str:
        """Which run of which server answers."""
        return str(self._connection.run(lambda r: r.info("server")["run_id"]))

    def trust_unchecked(self) -> None:
        """Let buckets be claimed although the database could not be asked."""
        milliseconds = int(TRUST_S * 1000)
        self._connection.run(lambda r: r.set(keys.TRUSTED, "unchecked", px=milliseconds))

    def keep_trust(self) -> bool:
        """Renew the trust; False if there is none."""
        milliseconds = int(TRUST_S * 1000)
        return bool(self._connection.run(lambda r: r.pexpire(keys.TRUSTED, milliseconds)))

    def trusted(self) -> str:
        """How Redis came to be trusted; "" if it is not."""
        return str(self._connection.run(lambda r: r.get(keys.TRUSTED)) or "")

    def compare(self, expected: Sequence[Expected]) -> list[str]:
        """Take the buckets that Redis forgot off the schedule; returns those found just now."""
        lost: list[str] = []
        for at in range(0, len(expected), _AT_ONCE):
            part = expected[at : at + _AT_ONCE]
            rows = [[row.bucket, row.generation, oldest_text(row.oldest_commit)] for row in part]
            lost += map(str, self._compare([], [field for row in rows for field in row]))
        return lost


def oldest_text(oldest: float | None) -> str:
    return "" if oldest is None else f"{oldest:.6f}"
