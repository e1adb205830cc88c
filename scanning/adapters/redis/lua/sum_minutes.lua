-- Sum what was counted in successive minutes, some minutes at a time.
--
-- KEYS     the hash of each minute, the oldest first
-- args     span (minutes that are summed), gauge, counters (fields)
-- returns  for each span the last value of the gauge ('' without one) and the sum of each counter

local args = cmsgpack.unpack(ARGV[1])
local spans = {}
for i, minute in ipairs(KEYS) do
  local span = math.floor((i - 1) / args.span) + 1
  if not spans[span] then
    spans[span] = {''}
    for n = 1, #args.counters do spans[span][1 + n] = 0 end
  end
  if redis.call('TYPE', minute).ok == 'hash' then
    local found = redis.call('HMGET', minute, args.gauge, unpack(args.counters))
    local sums = spans[span]
    sums[1] = found[1] or sums[1]
    for n = 2, #found do sums[n] = sums[n] + (tonumber(found[n] or 0) or 0) end
  end
end
return spans
