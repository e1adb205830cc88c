-- Claim those of some buckets of a region that are still due and free (`find_due.lua` named them).
--
-- KEYS     due, run, clearing, trusted, the hash of each bucket
-- args     buckets (names), slots (scans of the region at a time), lease_s
-- returns  a row for each that was claimed (claiming.lua)
-- include clock.lua
-- include claiming.lua

local FIXED_KEYS = 4
local args = cmsgpack.unpack(ARGV[1])
local due, run, clearing, trusted = unpack(KEYS, 1, FIXED_KEYS)
if redis.call('EXISTS', trusted) == 0 then return {} end
local now = server_time()
expire_leases(run, now, args.lease_s)
local claims, free = {}, args.slots - redis.call('ZCARD', run)
for i, bucket in ipairs(args.buckets) do
  if #claims >= free then break end
  local scheduled_at = tonumber(redis.call('ZSCORE', due, bucket))
  if scheduled_at and scheduled_at <= now and not redis.call('ZSCORE', run, bucket)
     and redis.call('SISMEMBER', clearing, bucket) == 0 then
    claims[#claims + 1] = claim(bucket, KEYS[FIXED_KEYS + i], run, scheduled_at, now, args.lease_s)
  end
end
return claims
