-- Release a claim, and record how its scan ended and when the bucket is due again.
--
-- Repeating it changes nothing: the bucket has left the running set by then.
--
-- KEYS     run, bucket hash, due, status_changes, last_scan, stats, history, minute, stretched
-- args     bucket, fence, generation
--          next_due           when it is due again; nil leaves the schedule as it is, and so does a
--                             scan that is wanted since the claim
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

-- 1. Release the claim, and see whether what was scanned still counts.
local bucket = redis.call('HMGET', hash, 'fence', 'generation', 'commit')
if tonumber(bucket[1]) ~= args.fence then return 'lost' end
if redis.call('ZREM', run, args.bucket) == 0 then return 'not running' end
if tonumber(bucket[2] or 0) ~= args.generation then return 'changed' end
local commit = tonumber(bucket[3] or 0)
if args.commit and commit ~= args.commit then return 'out of step' end

-- 2. Schedule the next scan.
local is_wanted_again = redis.call('HEXISTS', hash, 'again') == 1
if args.next_due and not is_wanted_again then
  redis.call('ZADD', due, 'XX', args.next_due, args.bucket)
end
redis.call('ZREMRANGEBYSCORE', stretched, '-inf', server_time())
if args.is_stretched then redis.call('ZADD', stretched, args.next_due, args.bucket)
else redis.call('ZREM', stretched, args.bucket) end

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
local now = timestamp(server_time())
if args.began then
  redis.call('SET', last_scan, args.began)
  redis.call('HSET', stats, 'last_scan_time', args.began)
  -- What was released before this scan did not suffice, or is done.
  if not is_wanted_again then redis.call('HDEL', hash, 'released', 'released_moved') end
  -- Even if there was nothing to commit: that the bucket is empty is known from now on.
  redis.call('HSETNX', hash, 'commit_at', now)
end
redis.call('ZADD', status_changes, now, args.bucket)
return 'ok'
