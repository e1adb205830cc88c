-- Release a claim, and record how its scan ended and when the bucket is due again.
--
-- Repeating it changes nothing: the bucket has left the running set by then.
--
-- KEYS     run, bucket hash, due, status_changes, last_scan, stats, history, minute, stretched
-- args     bucket, fence, generation
--          next_due           when the pass is due, or the next try; nil leaves the schedule as it is,
--                             and so does a scan that is wanted since the claim
--          ok                 whether the scan did not fail: one that did is tried again as it was
--          is_look
--          keys_looked_at     how many of the remembered keys a look was claimed with
--          began              when a pass began that is complete now; nil if none is
--          commit             number of the last commit; nil if it is not known
--          broke_off_at       number of the last commit before a scan that S3 broke off; else nil
--          is_stretched       whether a budget puts next_due off
--          history_entry      '' for a pass that goes on;  history_kept: how many
--          counters           field -> number
--          fields             field of the bucket hash -> value; '' removes it
-- returns  'ok', or why nothing was recorded, and the bucket stays due:
--          'lost'         another claim came after this one
--          'not running'  the lease expired, or this is recorded already
--          'changed'      the bucket was removed or pointed elsewhere meanwhile
--          'out of step'  a failover forgot the last commit
-- include clock.lua
-- include counting.lua

local args = cmsgpack.unpack(ARGV[1])
local run, hash, due, status_changes, last_scan, stats, history, minute, stretched = unpack(KEYS)
local now = server_time()

-- Forget the first so many of the keys that hints named: those after them came later.
local function forget_keys(number)
  local remembered, left = cjson.decode(redis.call('HGET', hash, 'look_keys') or '[]'), {}
  for i = number + 1, #remembered do left[#left + 1] = remembered[i] end
  if #left == 0 then redis.call('HDEL', hash, 'look_keys')
  else redis.call('HSET', hash, 'look_keys', cjson.encode(left)) end
end

-- 1. Release the claim, and see whether what was scanned still counts.
local bucket = redis.call('HMGET', hash, 'fence', 'generation', 'commit')
if tonumber(bucket[1]) ~= args.fence then return 'lost' end
if redis.call('ZREM', run, args.bucket) == 0 then return 'not running' end
if tonumber(bucket[2] or 0) ~= args.generation then return 'changed' end
local commit = tonumber(bucket[3] or 0)
if args.commit and commit ~= args.commit then return 'out of step' end

-- 2. Schedule the next scan.
-- A pass, or a look: '1' or 'look'.
local again = redis.call('HGET', hash, 'again')
local is_wanted_again = again and again ~= 'look'
if is_wanted_again then
  redis.call('HDEL', hash, 'pass_due', 'look_keys')
elseif args.ok and args.next_due and again then
  forget_keys(args.keys_looked_at)
  if args.is_look and tonumber(args.next_due) <= now then
    -- A pass under way goes on between two looks.
    redis.call('HDEL', hash, 'pass_due')
    redis.call('ZADD', due, 'XX', args.next_due, args.bucket)
  else
    redis.call('HSET', hash, 'pass_due', args.next_due)
  end
else
  if args.next_due then redis.call('ZADD', due, 'XX', args.next_due, args.bucket) end
  if args.ok then redis.call('HDEL', hash, 'pass_due', 'look_keys') end
end
redis.call('ZREMRANGEBYSCORE', stretched, '-inf', now)
if args.is_stretched then redis.call('ZADD', stretched, args.next_due, args.bucket)
elseif not args.is_look then redis.call('ZREM', stretched, args.bucket) end

-- 3. Count it, for people.
count(stats, minute, args.counters)
if args.history_entry ~= '' then
  redis.pcall('RPUSH', history, args.history_entry)
  redis.pcall('LTRIM', history, -args.history_kept, -1)
end

-- 4. Record how it ended.
for field, value in pairs(args.fields) do
  if value == '' then redis.call('HDEL', hash, field) else redis.call('HSET', hash, field, value) end
end
-- Without a commit the pass stands where it stood.
if args.broke_off_at then
  local before = commit == args.broke_off_at and redis.call('HGET', hash, 'stuck') or 0
  redis.call('HSET', hash, 'stuck', before + 1)
end
if args.began then
  redis.call('SET', last_scan, args.began)
  redis.call('HSET', stats, 'last_scan_time', args.began)
  -- What was released before this scan did not suffice, or is done.
  if not is_wanted_again then redis.call('HDEL', hash, 'released', 'released_moved') end
  -- Even if there was nothing to commit: that the bucket is empty is known from now on.
  redis.call('HSETNX', hash, 'commit_at', timestamp(now))
end
redis.call('ZADD', status_changes, timestamp(now), args.bucket)
return 'ok'
