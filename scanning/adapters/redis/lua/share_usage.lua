-- Report a second's use of an endpoint by one process, and read how the endpoint answers.
--
-- KEYS     use, pace, paces, stats, failed_at, minute, last_report, endpoint (its profile),
--          requests_of_day, endpoint_requests_of_day
-- args     process, endpoint
--          sent_per_s   requests a second, a text
--          connections  that the process wants;  limit: for all processes, 0 is any number
--          kept_s       until when what the process reports counts
--          shown_s      how long the endpoint is shown
--          number       of the report of requests, one that counted is not counted again; nil: none
--          counters     field -> number, for ever and of the minute
--          sent         "kind bucket" -> requests;  kinds: kind -> requests, of the endpoint
-- returns  {connections granted, requests a second of the others, pace or '', failed_at or '', now}
-- include clock.lua
-- include counting.lua

local DAY_KEPT_S, REPORT_KEPT_S = 172800, 600
local args = cmsgpack.unpack(ARGV[1])
local use, pace, paces, stats, failed_at, minute, last_report = unpack(KEYS, 1, 7)
local profile, requests_of_day, endpoint_requests_of_day = unpack(KEYS, 8, 10)
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
-- A command may be sent twice after a time-out: it counts once.
if args.number and args.number > tonumber(redis.call('GET', last_report) or 0) then
  count(stats, minute, args.counters)
  redis.call('SET', last_report, args.number, 'EX', REPORT_KEPT_S)
  -- The rest is only shown to people, and held against budgets: it breaks nothing.
  for field, number in pairs(args.sent) do
    redis.pcall('HINCRBY', requests_of_day, field, number)
  end
  for kind, number in pairs(args.kinds) do
    redis.pcall('HINCRBY', endpoint_requests_of_day, kind .. ' ' .. args.endpoint, number)
    redis.pcall('HINCRBY', profile, 'sent:' .. kind, number)
  end
  redis.pcall('EXPIRE', requests_of_day, DAY_KEPT_S)
  redis.pcall('EXPIRE', endpoint_requests_of_day, DAY_KEPT_S)
end
return {granted, string.format('%.3f', others_per_s), redis.call('GET', pace) or '',
        redis.call('GET', failed_at) or '', timestamp(now)}
