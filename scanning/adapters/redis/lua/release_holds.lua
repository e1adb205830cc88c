-- Let the next scans do with what is held as somebody chose, and have them due now (due_now.lua).
--
-- KEYS     bucket hash and due set of each bucket
-- args     buckets (names); nothing happens to those that hold nothing of that kind
--          choice   'announce_deletions', 'announce_updates' or 'take_times'
-- returns  1
-- include due_now.lua

local args = cmsgpack.unpack(ARGV[1])
local since, held, released = 'held_moved_since', 'held_moved', 'released_moved'
if args.choice == 'announce_deletions' then
  since, held, released = 'held_since', 'held_missing', 'released'
end
for i, bucket in ipairs(args.buckets) do
  local hash = KEYS[2 * i - 1]
  if redis.call('HGET', hash, since) then
    local objects = redis.call('HGET', hash, held) or '1'
    redis.call('HSET', hash, released, args.choice == 'take_times' and 'silently' or objects)
    make_due(bucket, hash, KEYS[2 * i])
  end
end
return 1
