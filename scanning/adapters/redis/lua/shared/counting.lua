-- Add counters (field -> number) to those since ever and, if Redis lets us, to those of one minute:
-- the minute is only shown to people, so it breaks nothing (pcall).

local MINUTE_KEPT_S = 90000  -- 25 hours

local function count(stats, minute, counters)
  if not next(counters) then return end
  for field, number in pairs(counters) do
    redis.call('HINCRBY', stats, field, number)
    redis.pcall('HINCRBY', minute, field, number)
  end
  redis.pcall('EXPIRE', minute, MINUTE_KEPT_S)
end
