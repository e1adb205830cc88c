-- Note how long the queue is in this minute.  What is only shown stops no schedule (pcall).
--
-- KEYS     queue, minute
-- args     gauge: the field
-- returns  1

local MINUTE_KEPT_S = 90000
local args = cmsgpack.unpack(ARGV[1])
local length = redis.pcall('LLEN', KEYS[1])
if type(length) == 'number' then
  redis.pcall('HSET', KEYS[2], args.gauge, length)
  redis.pcall('EXPIRE', KEYS[2], MINUTE_KEPT_S)
end
return 1
