-- Have buckets looked at before their pass is due, and remember which keys to look at.
--
-- A pass that is due by now covers all of it. What a pass under way has covered already is looked
-- at when that pauses, after one slice of it at least: looks shall not keep it from going on.
--
-- KEYS     bucket hash, due set and running set of each bucket
-- args     buckets (names)
--          keys       bucket -> list of keys
--          most_keys  so many are remembered; the look sees that they are too many
-- returns  names of the buckets that are scheduled
-- include clock.lua

local args = cmsgpack.unpack(ARGV[1])
local now = server_time()

-- Of a bucket that is being scanned also keys that are remembered: a look may be through with them.
local function add_keys(hash, keys, is_running)
  if not keys or #keys == 0 then return end
  local remembered, is_known = cjson.decode(redis.call('HGET', hash, 'look_keys') or '[]'), {}
  if not is_running then
    for _, key in ipairs(remembered) do is_known[key] = true end
  end
  for _, key in ipairs(keys) do
    if #remembered >= args.most_keys then break end
    if not is_known[key] then remembered[#remembered + 1] = key end
  end
  redis.call('HSET', hash, 'look_keys', cjson.encode(remembered))
end

local function request_look(bucket, hash, due, run)
  local due_at = tonumber(redis.call('ZSCORE', due, bucket))
  if not due_at then return false end
  local known = redis.call('HMGET', hash, 'pass_due', 'progress', 'failures', 'parked')
  local is_under_way, is_postponed = (known[2] or '') ~= '', known[3] or known[4]
  local is_running = tonumber(redis.call('ZSCORE', run, bucket) or 0) > now
  local awaits_pass = not known[1] and (due_at <= now or is_postponed)
  if is_running or (awaits_pass and is_under_way) then
    redis.call('HSETNX', hash, 'again', 'look')
  elseif awaits_pass then
    return true
  elseif not is_postponed then
    redis.call('HSETNX', hash, 'pass_due', timestamp(due_at))
  end
  if is_running or not (awaits_pass or is_postponed) then
    redis.call('ZADD', due, 'XX', 'LT', timestamp(now), bucket)
  end
  add_keys(hash, args.keys[bucket], is_running)
  return true
end

local scheduled = {}
for i, bucket in ipairs(args.buckets) do
  if request_look(bucket, KEYS[3 * i - 2], KEYS[3 * i - 1], KEYS[3 * i]) then
    scheduled[#scheduled + 1] = bucket
  end
end
return scheduled
