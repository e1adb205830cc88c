-- Release claims of one region unused, and have their buckets due later.
--
-- KEYS     due, run, waiting, the hash of each claim's bucket
-- args     due_at          when the buckets are due
--          claims          of each {bucket, fence, when it was due}
--          must_wait       whether they wait for an endpoint; then also
--          region, kept_s (of those that wait)
--          triers, others_come_s: so many try the endpoint one after the other, the rest come by
--          themselves after so many seconds
-- returns  1
-- include clock.lua

local args = cmsgpack.unpack(ARGV[1])
local due, run, waiting = unpack(KEYS, 1, 3)
for i, claim in ipairs(args.claims) do
  local bucket, fence, was_due = unpack(claim)
  local hash, at = KEYS[3 + i], args.due_at
  if tonumber(redis.call('HGET', hash, 'fence')) == fence then
    redis.call('ZREM', run, bucket)
    if args.must_wait then
      local member = bucket .. ' ' .. args.region
      redis.call('ZADD', waiting, 'NX', was_due, member)
      local rank = redis.call('ZRANK', waiting, member)
      at = at + (rank < args.triers and rank or args.others_come_s)
      redis.call('HSET', hash, 'parked', '1')
    end
    redis.call('ZADD', due, 'XX', timestamp(at), bucket)
  end
end
if args.must_wait then redis.call('EXPIRE', waiting, args.kept_s) end
return 1
