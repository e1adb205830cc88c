-- Have a bucket scanned now; one that is not scheduled stays so.

local function make_due(bucket, hash, due)
  if redis.call('ZSCORE', due, bucket) then
    redis.call('ZADD', due, redis.call('TIME')[1], bucket)
    -- A scan that is running began too early.
    redis.call('HSET', hash, 'again', '1')
  end
end
