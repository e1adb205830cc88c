-- Whether Redis knows as much of a bucket as the database says that it did.  Needs clock.lua.

-- A clock that moves is no loss: only its number says that a commit is missing. Then the times of
-- the commit that is known here and of the one that should be say how much is missing: more than a
-- failover may forget, if they differ by more than the window. A commit that is the later one by
-- so much, in spite of its smaller number, is of an old copy from when the clock was ahead.
local function verdict(known, expected)
  if not expected.earliest then return 'known' end  -- nothing is expected
  local number, at = tonumber(known[2] or 0), tonumber(known[3])
  if not at or tonumber(known[1] or 0) ~= expected.generation then return 'lost' end
  if not expected.commit then return at < expected.earliest and 'lost' or 'known' end
  if number >= expected.commit then return 'known' end
  return expected.earliest <= at and at <= expected.latest and 'set back' or 'lost'
end

-- Take a bucket off the schedule (the sets `dues`) that Redis forgot, and let it be scheduled again
-- when Redis knows enough or nothing is expected any more.
-- expected   bucket, generation, commit (the number of its last one), earliest, latest (between when
--            that was); without the last two nothing is expected, without commit only a time
-- Returns 'lost' if the bucket is lost since now, 'set back' if Redis forgot no more than a failover
-- may, '' otherwise.
local function compare(expected, hash, status_changes, config_version, dues)
  local found = verdict(redis.call('HMGET', hash, 'generation', 'commit', 'commit_at'), expected)
  local is_lost, was_lost = found == 'lost', redis.call('HEXISTS', hash, 'lost_since') == 1
  if is_lost or was_lost then
    -- Also of one that stays lost: no scan will end that says it again.
    redis.call('ZADD', status_changes, timestamp(server_time()), expected.bucket)
  end
  if is_lost and not was_lost then
    redis.call('HSET', hash, 'lost_since', redis.call('TIME')[1])
    for _, due in ipairs(dues) do redis.call('ZREM', due, expected.bucket) end
  elseif was_lost and not is_lost then
    redis.call('HDEL', hash, 'lost_since')
  end
  if is_lost ~= was_lost then redis.call('INCR', config_version) end
  if found == 'set back' or is_lost and not was_lost then return found end
  return ''
end
