-- Release a claim unused, if it still is the bucket's last one.
--
-- KEYS     run, bucket hash
-- args     bucket, fence
-- returns  1

local args = cmsgpack.unpack(ARGV[1])
local run, hash = unpack(KEYS)
if tonumber(redis.call('HGET', hash, 'fence')) == args.fence then
  redis.call('ZREM', run, args.bucket)
end
return 1
