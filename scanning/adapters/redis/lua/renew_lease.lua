-- Keep a claim for another lease time.
--
-- KEYS     run, bucket hash
-- args     bucket, fence, lease_s
-- returns  1, or 0 if the lease is lost
-- include clock.lua

local args = cmsgpack.unpack(ARGV[1])
local run, hash = unpack(KEYS)
local now = server_time()
local expires = tonumber(redis.call('ZSCORE', run, args.bucket))
if not expires or expires < now or tonumber(redis.call('HGET', hash, 'fence')) ~= args.fence then
  return 0
end
redis.call('ZADD', run, timestamp(now + args.lease_s), args.bucket)
return 1
