-- Forget one bucket, and have all that is known of it cleared, unless Redis holds a newer revision.
--
-- KEYS     config, notifications_disabled, revisions, removed, config_version, bucket hash,
--          last_scan, clearing, status_changes, regions, garbage, history, look_history,
--          due and run of each region
-- args     bucket, revision, regions (names of those that were read)
-- returns  'removed', 'newer' (Redis is), or 'read again': there is another region now
-- include regions.lua

local FIXED_KEYS = 13
local args = cmsgpack.unpack(ARGV[1])
local config, disabled, revisions, removed, config_version, hash, last_scan, clearing,
      status_changes, regions, garbage, history, look_history = unpack(KEYS, 1, FIXED_KEYS)
local newest = math.max(tonumber(redis.call('HGET', revisions, args.bucket) or 0),
                        tonumber(redis.call('HGET', removed, args.bucket) or 0))
if args.revision < newest then return 'newer' end
if has_new_region(regions, args.regions) then return 'read again' end
redis.call('HSET', removed, args.bucket, args.revision)
if redis.call('HDEL', revisions, args.bucket) == 1 then
  redis.call('SADD', garbage, (redis.call('HGET', hash, 'generation') or '0') .. ' ' .. args.bucket)
  redis.call('DEL', config, disabled, hash, last_scan, history, look_history)
  redis.call('ZREM', status_changes, args.bucket)
  redis.call('SADD', clearing, args.bucket)
  -- Added again at once, it must neither keep its old due time nor wait for its old lease.
  for i = FIXED_KEYS + 1, #KEYS do redis.call('ZREM', KEYS[i], args.bucket) end
end
redis.call('INCR', config_version)
return 'removed'
