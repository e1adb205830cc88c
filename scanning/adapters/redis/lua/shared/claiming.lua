-- What claims of due buckets and of one bucket share.  Needs clock.lua.

-- Take away the leases that have expired. One that lasts longer than any is from before the clock
-- went back, as it may in a failover: it begins now.
local function expire_leases(run, now, lease_s)
  redis.call('ZREMRANGEBYSCORE', run, '-inf', now)
  for _, bucket in ipairs(redis.call('ZRANGEBYSCORE', run, now + lease_s + 1, '+inf')) do
    redis.call('ZADD', run, timestamp(now + lease_s), bucket)
  end
end

-- Bump the fence and take the slot.  Returns a row of strings: bucket, fence, generation, commit,
-- when the scan was scheduled, offset or '', when the lease expires, failures, when it was claimed,
-- objects of the last complete pass or '', when a scan began last that found a change or ''.
local function claim(bucket, hash, run, scheduled_at, now, lease_s)
  local fence = math.max(tonumber(redis.call('HGET', hash, 'fence') or 0) + 1,
                         math.floor(now * 1000))
  fence = string.format('%.0f', fence)
  redis.call('HSET', hash, 'fence', fence)
  redis.call('ZADD', run, timestamp(now + lease_s), bucket)
  local known = redis.call('HMGET', hash, 'generation', 'commit', 'offset', 'failures', 'objects',
                           'changed_at')
  return {bucket, fence, known[1] or '0', known[2] or '0', timestamp(scheduled_at), known[3] or '',
          timestamp(now + lease_s), known[4] or '0', timestamp(now), known[5] or '',
          known[6] or ''}
end
