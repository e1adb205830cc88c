-- Have the pass over a bucket made now, whatever looks were wanted before; one that is not scheduled
-- stays so.

local function make_due(bucket, hash, due)
  if redis.call('ZSCORE', due, bucket) then
    redis.call('ZADD', due, redis.call('TIME')[1], bucket)
    -- A scan that is running began too early.
    redis.call('HSET', hash, 'again', '1')
    redis.call('HDEL', hash, 'pass_due', 'look_keys')
  end
end
