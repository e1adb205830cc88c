-- Name the buckets whose status is yet to be stored, those that wait longest first.  What hosts of
-- version 0.1.0 noted counts as changed now.
--
-- KEYS     status_changes, changed_status
-- args     limit
-- returns  bucket, time of change, …
-- include clock.lua

local args = cmsgpack.unpack(ARGV[1])
local status_changes, changed_status = unpack(KEYS)
local now = timestamp(server_time())
for _, bucket in ipairs(redis.call('SPOP', changed_status, args.limit)) do
  redis.call('ZADD', status_changes, now, bucket)
end
return redis.call('ZRANGE', status_changes, 0, args.limit - 1, 'WITHSCORES')
