-- Change due times, remember offsets and the regions.  A bucket that was removed from the
-- configuration meanwhile is left alone, one that Redis forgot is not scheduled, and a region that
-- is not named any more leaves.
--
-- KEYS     regions, revisions, the due set of each of `due_regions`, the hash of each of `buckets`
-- args     due_regions, buckets (names)
--          regions  names of all regions
--          added    region -> bucket -> when it is due
--          removed  region -> buckets
--          offsets  bucket -> seconds
-- returns  1

local args = cmsgpack.unpack(ARGV[1])
local regions, revisions = KEYS[1], KEYS[2]
local dues, hashes, is_wanted = {}, {}, {}
for i, region in ipairs(args.due_regions) do dues[region] = KEYS[2 + i] end
for i, bucket in ipairs(args.buckets) do hashes[bucket] = KEYS[2 + #args.due_regions + i] end
local function is_managed(bucket) return redis.call('HEXISTS', revisions, bucket) == 1 end

for region, times in pairs(args.added) do
  for bucket, at in pairs(times) do
    if is_managed(bucket) and redis.call('HEXISTS', hashes[bucket], 'lost_since') == 0 then
      redis.call('ZADD', dues[region], at, bucket)
    end
  end
end
for region, buckets in pairs(args.removed) do
  for _, bucket in ipairs(buckets) do redis.call('ZREM', dues[region], bucket) end
end
for bucket, offset in pairs(args.offsets) do
  if is_managed(bucket) then redis.call('HSET', hashes[bucket], 'offset', offset) end
end
for _, region in ipairs(args.regions) do
  is_wanted[region] = true
  redis.call('SADD', regions, region)
end
for _, region in ipairs(redis.call('SMEMBERS', regions)) do
  if not is_wanted[region] then redis.call('SREM', regions, region) end
end
return 1
