-- Write one bucket's configuration, unless Redis holds a newer one.
--
-- KEYS     config, notifications_disabled, revisions, removed, config_version, bucket hash, garbage,
--          regions, last_scan, status_changes, stretched, the due set of each region
-- args     bucket, revision, generation
--          stored         the JSON that was read and that `document` was made from; '' without any
--          document       the new JSON
--          notifications  whether they are on
--          wants          what decides which events are announced
--          regions        names of the regions that were read
--          expected       what the database saw of the bucket (continuity.lua)
-- returns  'written', 'newer' (Redis is), or 'read again': the JSON or the regions are others now
-- include clock.lua
-- include regions.lua
-- include continuity.lua

local FIXED_KEYS = 11
local args = cmsgpack.unpack(ARGV[1])
local config, disabled, revisions, removed, config_version, hash, garbage, regions, last_scan,
      status_changes, stretched = unpack(KEYS, 1, FIXED_KEYS)
local dues = {unpack(KEYS, FIXED_KEYS + 1)}

-- 1. Whether to write it.
local newest = math.max(tonumber(redis.call('HGET', revisions, args.bucket) or 0),
                        tonumber(redis.call('HGET', removed, args.bucket) or 0))
if args.revision < newest then return 'newer' end
if (redis.call('GET', config) or '') ~= args.stored or has_new_region(regions, args.regions) then
  return 'read again'
end

-- 2. The configuration.
redis.call('SET', config, args.document)
if args.notifications then redis.call('DEL', disabled) else redis.call('SET', disabled, 'true') end
redis.call('HSET', revisions, args.bucket, args.revision)
redis.call('HDEL', removed, args.bucket)

-- 3. What was known of the bucket.
local before = redis.call('HGET', hash, 'generation')
-- A bucket whose scans failed is postponed: what was saved may have mended that.
local is_due_now = redis.call('HDEL', hash, 'failures', 'parked') > 0
if before and tonumber(before) ~= args.generation then
  -- What was known is of another bucket now; its hold and its progress go with it.
  redis.call('SADD', garbage, before .. ' ' .. args.bucket)
  redis.call('HDEL', hash, 'progress', 'held_since', 'held_missing', 'released',
             'held_moved_since', 'held_moved', 'released_moved', 'commit_at', 'segments',
             'totals', 'totals_apart', 'totals_before')
  redis.call('DEL', last_scan)
  is_due_now = true
end
redis.call('HSET', hash, 'generation', args.generation, 'wants', args.wants)
compare(args.expected, hash, status_changes, config_version, dues)

-- 4. The schedule. What a budget put off may be paid for now, and comes forward by itself.
redis.call('ZREM', stretched, args.bucket)
if is_due_now then
  redis.call('HSET', hash, 'again', '1')
  redis.call('HDEL', hash, 'pass_due', 'look_keys')
  local now = redis.call('TIME')[1]
  for _, due in ipairs(dues) do redis.call('ZADD', due, 'XX', 'LT', now, args.bucket) end
end
redis.call('INCR', config_version)
return 'written'
