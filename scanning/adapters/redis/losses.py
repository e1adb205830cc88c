"""Whether Redis still remembers its buckets as the database says that it did.

    …:bw:trusted          string   there while Redis is known to be the one that was written to:
                                   "checked", or "unchecked" if the database could not be asked
    …:bw:comparing        string   token of whoever compares Redis with the database now
    …:bw:bucket:{name}    hash     commit, commit_at: the last commit's number, and when it was;
                                   lost_since: there while the bucket is not scanned because Redis
                                   forgot it

``trusted`` expires within seconds unless a monitor renews it, so a Redis that was emptied, restored
from a backup or restarted without its data does not hold it. Nobody claims a bucket then, on any
host, until Redis has been compared with the database.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from scanning.core import redis_keys
from scanning.core.types import Compared, SetBack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scanning.adapters.redis.connection import RedisConnection
    from scanning.core.types import CommitExpectation

# Longer than one monitor takes to take over from another, much shorter than the failover window.
TRUST_S = 30.0
_COMPARING_S = 300.0
_AT_ONCE = 500

_DUE = f"{redis_keys.OURS}region:"


def with_losses(script: str) -> str:
    """Give a script ``compare(keys, bucket, generation, commit, earliest, latest)``.

    It takes a bucket off the schedule that Redis forgot, and puts it on again when Redis knows
    enough or nothing is expected any more. ``keys`` are bucket hash, regions, status_changes and
    config_version; the last four arguments are those of `expectation`. Returns 'lost' if the
    bucket is lost since now, 'set back' if Redis forgot no more than a failover may, else ''.
    """
    return _COMPARE + script


# A clock that moves is no loss: only its number says that a commit is missing. Then the times of
# the commit that is known here and of the one that should be say how much is missing: more than a
# failover may forget, if they differ by more than the window. A commit that is the later one by
# so much, in spite of its smaller number, is of an old copy from when the clock was ahead.
_COMPARE = """
local function compare(keys, bucket, generation, commit, earliest, latest)
  local hash, regions, changes, version = unpack(keys)
  local known = redis.call('HMGET', hash, 'generation', 'commit', 'commit_at')
  local number, at = tonumber(known[2] or 0), tonumber(known[3])
  commit, earliest, latest = tonumber(commit), tonumber(earliest), tonumber(latest)
  local is_lost, is_set_back = false, false
  if earliest then
    if not at or (known[1] or '0') ~= generation then is_lost = true
    elseif not commit then is_lost = at < earliest
    elseif number < commit then
      is_set_back = earliest <= at and at <= latest
      is_lost = not is_set_back
    end
  end
  local was_lost = redis.call('HEXISTS', hash, 'lost_since') == 1
  if is_lost or was_lost then
    -- Also of one that stays lost: no scan will end that says it again.
    local t = redis.call('TIME')
    redis.call('ZADD', changes, t[1] .. '.' .. string.format('%06d', t[2]), bucket)
  end
  if is_lost and not was_lost then
    redis.call('HSET', hash, 'lost_since', redis.call('TIME')[1])
    for _, region in ipairs(redis.call('SMEMBERS', regions)) do
      redis.call('ZREM', 'DUE' .. region .. ':due', bucket)
    end
  elseif was_lost and not is_lost then
    redis.call('HDEL', hash, 'lost_since')
  end
  if is_lost ~= was_lost then redis.call('INCR', version) end
  return is_set_back and 'set back' or is_lost and not was_lost and 'lost' or ''
end
""".replace("DUE", _DUE)

# KEYS: regions, status_changes, config_version, then the hash of each bucket.
# ARGV: bucket, generation, commit, earliest, latest, for each bucket.
# Returns {bucket, 'lost', '', ''} of those that are lost since now, and {bucket, 'set back',
# commit, when it was}.  One whose generation is newer here than whoever asks knows is left alone.
_COMPARE_ALL = with_losses("""
local found = {}
for i = 4, #KEYS do
  local hash, at = KEYS[i], 5 * (i - 4)
  local bucket, generation = ARGV[at + 1], ARGV[at + 2]
  if tonumber(redis.call('HGET', hash, 'generation') or 0) <= tonumber(generation) then
    local said = compare({hash, KEYS[1], KEYS[2], KEYS[3]}, bucket, generation,
                         ARGV[at + 3], ARGV[at + 4], ARGV[at + 5])
    if said == 'lost' then found[#found + 1] = {bucket, said, '', ''}
    elseif said ~= '' then
      found[#found + 1] = {bucket, said, redis.call('HGET', hash, 'commit') or '0',
                           redis.call('HGET', hash, 'commit_at')}
    end
  end
end
return found
""")


# KEYS: comparing, trusted.  ARGV: token, milliseconds.  Returns 1, or 0 if the token is not there.
_TRUST = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], 'checked', 'PX', ARGV[2])
return 1
"""


class RedisContinuity:
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
        self._connection.run(lambda r: r.set(redis_keys.COMPARING, token, px=milliseconds))
        return token

    def trust(self, token: str) -> bool:
        """Let buckets be claimed; False if Redis is not the one any more that was compared."""
        milliseconds = int(TRUST_S * 1000)
        is_trusted = bool(
            self._trust([redis_keys.COMPARING, redis_keys.TRUSTED], [token, milliseconds])
        )
        if is_trusted:
            self._compared = self._looked_at
        return is_trusted

    def _server(self) -> str:
        """Which run of which server answers."""
        return str(self._connection.run(lambda r: r.info("server")["run_id"]))

    def trust_unchecked(self) -> None:
        """Let buckets be claimed although the database could not be asked."""
        milliseconds = int(TRUST_S * 1000)
        self._connection.run(lambda r: r.set(redis_keys.TRUSTED, "unchecked", px=milliseconds))

    def keep_trust(self) -> bool:
        """Renew the trust; False if there is none."""
        milliseconds = int(TRUST_S * 1000)
        return bool(self._connection.run(lambda r: r.pexpire(redis_keys.TRUSTED, milliseconds)))

    def trusted(self) -> str:
        """How Redis came to be trusted; "" if it is not."""
        return str(self._connection.run(lambda r: r.get(redis_keys.TRUSTED)) or "")

    def compare(self, expected: Sequence[CommitExpectation]) -> Compared:
        """Take the buckets that Redis forgot off the schedule."""
        lost: list[str] = []
        set_back: list[SetBack] = []
        for at in range(0, len(expected), _AT_ONCE):
            part = {row.bucket: row for row in expected[at : at + _AT_ONCE]}
            names = [redis_keys.REGIONS, redis_keys.STATUS_CHANGES, redis_keys.CONFIG_VERSION]
            names += map(redis_keys.bucket, part)
            args = [text for row in part.values() for text in (row.bucket, *expectation(row))]
            for bucket, said, commit, when in self._compare(names, args):
                row = part[bucket]
                if said == "lost":
                    lost.append(row.bucket)
                elif row.commit is not None:
                    held = (int(commit), float(when))
                    set_back.append(SetBack(row.bucket, row.generation, row.commit, *held))
        return Compared(lost, set_back)


def expectation(expected: CommitExpectation) -> tuple[str, str, str, str]:
    """The generation, the commit's number and between when it was, as scripts take them.

    "" is for a number that is not known; all but the generation are "" if nothing is expected.
    """
    at, number = expected.commit_at, expected.commit
    if at is None:
        return str(expected.generation), "", "", ""
    earliest, latest = at - expected.window_s, at + expected.window_s
    number_text = "" if number is None else str(number)
    return str(expected.generation), number_text, f"{earliest:.6f}", f"{latest:.6f}"
