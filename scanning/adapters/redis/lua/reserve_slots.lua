-- Reserve moments to ask an endpoint at.
--
-- KEYS     slots
-- args     count, spacing_s (between two of them), max_wait_s (for the first)
-- returns  seconds from now to the first, or '' if that would be too far ahead
-- include clock.lua

local LONG_AHEAD_S = 60
local args = cmsgpack.unpack(ARGV[1])
local now = server_time()
local first = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
-- Nobody reserves so far ahead: the clock went back.
if first - now > LONG_AHEAD_S then first = now end
if first - now > args.max_wait_s then return '' end
local after = first + args.count * args.spacing_s
redis.call('SET', KEYS[1], timestamp(after), 'PX', math.ceil((after - now) * 1000) + 1000)
return timestamp(first - now)
