-- Let the next scans make deletions of what is held, and have them due now (due_now.lua).
--
-- KEYS     bucket hash and due set of each bucket
-- args     buckets (names); nothing happens to those that hold no deletions
-- returns  1
-- include due_now.lua

local args = cmsgpack.unpack(ARGV[1])
for i, bucket in ipairs(args.buckets) do
  local hash = KEYS[2 * i - 1]
  if redis.call('HGET', hash, 'held_since') then
    redis.call('HSET', hash, 'released', redis.call('HGET', hash, 'held_missing') or '1')
    make_due(bucket, hash, KEYS[2 * i])
  end
end
return 1
