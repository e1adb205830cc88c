-- Claim one bucket now, due or not, unless it is being scanned or cleared or its region is full.
--
-- KEYS     run, clearing, bucket hash
-- args     bucket, slots (scans of the region at a time), lease_s
-- returns  one row (claiming.lua), or none
-- include clock.lua
-- include claiming.lua

local args = cmsgpack.unpack(ARGV[1])
local run, clearing, hash = unpack(KEYS)
local now = server_time()
expire_leases(run, now, args.lease_s)
if redis.call('ZSCORE', run, args.bucket) or redis.call('SISMEMBER', clearing, args.bucket) == 1
   or redis.call('ZCARD', run) >= args.slots then return {} end
redis.call('HDEL', hash, 'again')
return {claim(args.bucket, hash, run, now, now, args.lease_s)}
