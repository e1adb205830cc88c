-- Replace what is known of how an endpoint answers, unless somebody else did.  Once a dead endpoint
-- answers again, the buckets that wait for it are due, one after the other.
--
-- KEYS     pace, failed_at, waiting, bucket hash and due set of each bucket that waits
-- args     expected, replaced_by  pace and failed_at, each '' without one
--          kept_s
--          news     'died', 'revived' or ''
--          waiting  members of the waiting set that were read, in its order; if 'revived'
--          spread_s, apart_s  those that wait are due within so many seconds, at most so far apart
-- returns  1, or 0 if something is not as it was read
-- include clock.lua

local args = cmsgpack.unpack(ARGV[1])
for i = 1, 2 do
  if (redis.call('GET', KEYS[i]) or '') ~= args.expected[i] then return 0 end
end
local waiting = redis.call('ZRANGE', KEYS[3], 0, -1)
if args.news == 'revived' then
  if #waiting ~= #args.waiting then return 0 end
  for i, member in ipairs(waiting) do
    if member ~= args.waiting[i] then return 0 end
  end
end

for i = 1, 2 do
  if args.replaced_by[i] == '' then redis.call('DEL', KEYS[i])
  else redis.call('SET', KEYS[i], args.replaced_by[i], 'EX', args.kept_s) end
end
if args.news == '' then return 1 end
redis.call('DEL', KEYS[3])
if args.news == 'died' then return 1 end
local now, apart_s = server_time(), math.min(args.spread_s / math.max(#waiting, 1), args.apart_s)
for i, member in ipairs(waiting) do
  local bucket, hash, due = member:match('^(%S+)'), KEYS[2 + 2 * i], KEYS[3 + 2 * i]
  -- Saved, or removed, since it was parked: it is due already, or never.
  if redis.call('HDEL', hash, 'parked') == 1 then
    redis.call('ZADD', due, 'XX', timestamp(now + (i - 1) * apart_s), bucket)
  end
end
return 1
