-- Release the lease of the monitor that schedules, if it is this one's.
--
-- KEYS     leader
-- args     who
-- returns  1

local args = cmsgpack.unpack(ARGV[1])
if redis.call('GET', KEYS[1]) == args.who then redis.call('DEL', KEYS[1]) end
return 1
