-- Report a second's use of an endpoint by one process, and read how the endpoint answers.
--
-- KEYS     use, pace, paces, stats, failed_at, minute
-- args     process, endpoint
--          sent_per_s   requests a second, a text
--          connections  that the process wants;  limit: for all processes, 0 is any number
--          kept_s       until when what the process reports counts
--          shown_s      how long the endpoint is shown
--          counters     field -> number, of what went wrong
-- returns  {connections granted, requests a second of the others, pace or '', failed_at or '', now}
-- include clock.lua
-- include counting.lua

local args = cmsgpack.unpack(ARGV[1])
local use, pace, paces, stats, failed_at, minute = unpack(KEYS)
local now = server_time()
local taken, others_per_s = 0, 0
local rows = redis.call('HGETALL', use)
for i = 1, #rows, 2 do
  local process = rows[i]
  local counts_until, connections, per_s = rows[i + 1]:match('^(.-):(.-):(.*)$')
  local left = tonumber(counts_until or 0) - now
  -- More than that if the clock went back.
  if left < 0 or left > 2 * args.kept_s then redis.call('HDEL', use, process)
  elseif process ~= args.process then
    taken, others_per_s = taken + tonumber(connections), others_per_s + tonumber(per_s)
  end
end
local granted = args.connections
if args.limit > 0 then granted = math.max(0, math.min(granted, args.limit - taken)) end
if granted == 0 and tonumber(args.sent_per_s) == 0 then redis.call('HDEL', use, args.process)
else
  local row = string.format('%.3f:%d:%s', now + args.kept_s, granted, args.sent_per_s)
  redis.call('HSET', use, args.process, row)
  redis.call('EXPIRE', use, args.kept_s)
end
redis.call('ZADD', paces, string.format('%.0f', now), args.endpoint)
redis.call('ZREMRANGEBYSCORE', paces, '-inf', now - args.shown_s)
redis.call('EXPIRE', paces, args.shown_s)
count(stats, minute, args.counters)
return {granted, string.format('%.3f', others_per_s), redis.call('GET', pace) or '',
        redis.call('GET', failed_at) or '', timestamp(now)}
