-- Find buckets of one region to claim: due, and neither being scanned nor cleared.  Their names
-- have to be known before `claim_due.lua`, which declares the hash of each as a key.
--
-- KEYS     due, run, clearing, trusted
-- args     limit, slots (scans of the region at a time), lease_s
-- returns  names, the one that is due longest first; none without a free slot, or while it is not
--          known whether Redis still is the one that was written to
-- include clock.lua
-- include claiming.lua

local args = cmsgpack.unpack(ARGV[1])
local due, run, clearing, trusted = unpack(KEYS)
if redis.call('EXISTS', trusted) == 0 then return {} end
local now = server_time()
expire_leases(run, now, args.lease_s)
local busy = redis.call('ZCARD', run)
local free = math.min(args.limit, args.slots - busy)
local found = {}
if free <= 0 then return found end
-- A bucket that is being scanned or cleared stays in the due set: look past those.
local look = free + busy + redis.call('SCARD', clearing)
for _, bucket in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, look)) do
  if not redis.call('ZSCORE', run, bucket) and redis.call('SISMEMBER', clearing, bucket) == 0 then
    found[#found + 1] = bucket
    if #found == free then break end
  end
end
return found
