-- Write what one commit of a scan holds, all of it or nothing.  Lua has no rollback, so whatever
-- can fail is looked at before the first write.
--
-- KEYS     bucket hash, run, queue, stats, events, manifest, minute, events_of_day,
--          the segments that are written, the documented strings that are written,
--          the segments and documented strings that are deleted
-- args     bucket, fence, generation
--          number         of this commit, one more than that of the last
--          progress       JSON of an unfinished pass, or ''
--          ahead          JSON of what lanes have covered behind that, or ''
--          warnings       JSON of what the pass warned of so far, or ''
--          took_times     whether this ends a held storm of moved times
--          wants          what the bucket wants to have announced; '' where it does not matter
--          high_water     length of the queue from which on nothing is announced
--          bucket_share   the same for a bucket that has announced as many today
--          recent         JSON text for the stream of recent events, or '';  recent_kept: its length
--          counters       field -> number
--          entries        segment id -> packed entry of the manifest;  removed: ids
--          gained         field of the bucket hash -> what is added to its number
--          segments       values, in the order of their keys
--          strings_kept_s
-- lists    strings (values, in the order of their keys), notifications (JSON texts for the queue)
-- returns  'ok' (also for a commit that is here already), 'lost' (the lease), 'changed' (the
--          bucket's configuration), 'out of step', 'full' (the queue), 'share' (the
--          bucket's, of the queue), 'wrong type KEY', 'may not COMMAND'
-- include clock.lua
-- include counting.lua

local DAY_KEPT_S = 172800
local FIXED_KEYS = 8
local args = cmsgpack.unpack(ARGV[1])
local strings, notifications = cmsgpack.unpack(ARGV[2]), cmsgpack.unpack(ARGV[3])
local hash, run, queue, stats, stream, manifest, minute, day = unpack(KEYS, 1, FIXED_KEYS)

-- 1. Whether this scan may still commit.
local bucket = redis.call('HMGET', hash, 'fence', 'generation', 'wants', 'commit')
if tonumber(bucket[1]) ~= args.fence then return 'lost' end
if tonumber(bucket[2] or 0) ~= args.generation then return 'changed' end
-- What is switched on counts for all that is found from then on.
if args.wants ~= '' and bucket[3] ~= args.wants then return 'changed' end
local expires, now = redis.call('ZSCORE', run, args.bucket), server_time()
if not expires or tonumber(expires) < now then return 'lost' end
local last = tonumber(bucket[4] or 0)
-- A command may be sent twice after a time-out: the second answers as the first did.
if last == args.number then return 'ok' end
if last ~= args.number - 1 then return 'out of step' end

-- 2. Whether anything would fail.
local types = {[queue] = 'list', [stats] = 'hash', [stream] = 'stream', [manifest] = 'hash'}
for key, wanted in pairs(types) do
  local kind = redis.call('TYPE', key).ok
  if kind ~= wanted and kind ~= 'none' then return 'wrong type ' .. key end
end
for field in pairs(args.counters) do
  local stored = redis.call('HGET', stats, field)
  -- What HINCRBY would refuse: no number, 007, or one near the end of 64 bits.
  if stored and stored ~= '0' and not (#stored < 17 and string.match(stored, '^-?[1-9]%d*$')) then
    return 'wrong type ' .. stats
  end
end
local announced = #notifications
local waiting = announced > 0 and redis.call('LLEN', queue) or 0
if announced > 0 and waiting >= args.high_water then return 'full' end
if announced > 0 and waiting >= args.bucket_share then
  local today = redis.pcall('HGET', day, args.bucket)
  if type(today) == 'string' and (tonumber(today) or 0) >= args.bucket_share then return 'share' end
end
-- Rights are checked with each command, so too late; Redis 6 cannot tell before.
for command, words in pairs({RPUSH = {queue, ''}, PERSIST = {queue}, XADD = {stream, '*', 'f', ''},
                             HINCRBY = {stats, 'f', 1}, HSET = {hash, 'f', ''},
                             HDEL = {manifest, 'f'}, SET = {hash, ''}, UNLINK = {hash}}) do
  if redis.acl_check_cmd and not redis.acl_check_cmd(command, unpack(words)) then
    return 'may not ' .. command
  end
end

-- 3. What is announced.
for i = 1, announced, 1000 do
  redis.call('RPUSH', queue, unpack(notifications, i, math.min(i + 999, announced)))
end
-- The older monitor left a 7-day expiry on the queue; nothing may drop events silently.
redis.call('PERSIST', queue)
if args.recent ~= '' then
  redis.call('XADD', stream, 'MAXLEN', '~', args.recent_kept, '*', 'commit', args.recent)
end

-- 4. What is counted.
count(stats, minute, args.counters)
if announced > 0 then
  redis.pcall('HINCRBY', day, args.bucket, announced)
  redis.pcall('EXPIRE', day, DAY_KEPT_S)
end

-- 5. What is remembered.
for id, entry in pairs(args.entries) do redis.call('HSET', manifest, id, entry) end
for _, id in ipairs(args.removed) do redis.call('HDEL', manifest, id) end
local key = FIXED_KEYS
for _, segment in ipairs(args.segments) do
  key = key + 1
  redis.call('SET', KEYS[key], segment)
end
for _, text in ipairs(strings) do
  key = key + 1
  redis.call('SET', KEYS[key], text, 'EX', args.strings_kept_s)
end
for i = key + 1, #KEYS, 1000 do
  redis.call('UNLINK', unpack(KEYS, i, math.min(i + 999, #KEYS)))
end
for field, number in pairs(args.gained) do redis.call('HINCRBY', hash, field, number) end
redis.call('HSET', hash, 'commit', args.number, 'progress', args.progress,
           'ahead', args.ahead, 'pass_warnings', args.warnings, 'commit_at', timestamp(now),
           'segments', redis.call('HLEN', manifest))
if args.took_times then
  redis.call('HDEL', hash, 'held_moved_since', 'held_moved', 'released_moved')
end
return 'ok'
