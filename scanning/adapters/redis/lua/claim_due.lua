-- Claim those of some buckets of a region that are still due and free (`find_due.lua` named them).
--
-- KEYS     due, run, clearing, trusted, the hash of each bucket
-- args     buckets (names), slots (scans of the region at a time), lease_s
-- returns  a row for each that was claimed (claiming.lua); of a look it goes on with: when the pass is
--          due, JSON of the keys to look at
-- include clock.lua
-- include claiming.lua

local FIXED_KEYS = 4
local args = cmsgpack.unpack(ARGV[1])
local due, run, clearing, trusted = unpack(KEYS, 1, FIXED_KEYS)
if redis.call('EXISTS', trusted) == 0 then return {} end
local now = server_time()
expire_leases(run, now, args.lease_s)

-- Tell what a claim for a look needs to know; nothing where it is for the pass. That is due by now
-- and covers all, unless it is under way: then looks come when it pauses, as `again` says.
local function take_look(hash)
  local known = redis.call('HMGET', hash, 'pass_due', 'look_keys', 'progress', 'again')
  local pass_due, is_under_way = known[1], (known[3] or '') ~= ''
  if pass_due and (is_under_way or tonumber(pass_due) > now) then
    redis.call('HDEL', hash, 'again')
    return pass_due, known[2] or '[]'
  end
  if not is_under_way then
    redis.call('HDEL', hash, 'again', 'pass_due', 'look_keys')
  elseif known[4] ~= 'look' then
    redis.call('HDEL', hash, 'again')
  end
end

local claims, free = {}, args.slots - redis.call('ZCARD', run)
for i, bucket in ipairs(args.buckets) do
  if #claims >= free then break end
  local scheduled_at = tonumber(redis.call('ZSCORE', due, bucket))
  if scheduled_at and scheduled_at <= now and not redis.call('ZSCORE', run, bucket)
     and redis.call('SISMEMBER', clearing, bucket) == 0 then
    local hash = KEYS[FIXED_KEYS + i]
    local row = claim(bucket, hash, run, scheduled_at, now, args.lease_s)
    row[#row + 1], row[#row + 2] = take_look(hash)
    claims[#claims + 1] = row
  end
end
return claims
