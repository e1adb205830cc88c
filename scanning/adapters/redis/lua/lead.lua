-- Take or keep the lease of the monitor that schedules.
--
-- KEYS     leader
-- args     who, milliseconds
-- returns  1 if `who` leads now, else 0

local args = cmsgpack.unpack(ARGV[1])
local leader = redis.call('GET', KEYS[1])
-- A lease that lasts longer than any is from before the clock went back.
local holds = leader and redis.call('PTTL', KEYS[1]) <= 2 * args.milliseconds
if holds and leader ~= args.who then return 0 end
redis.call('SET', KEYS[1], args.who, 'PX', args.milliseconds)
return 1
