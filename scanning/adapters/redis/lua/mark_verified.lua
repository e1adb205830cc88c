-- Let buckets be claimed, if Redis still is the one that was compared with the database.
--
-- KEYS     comparing, trusted
-- args     token (of that comparison), milliseconds
-- returns  1, or 0 if the token is not there any more

local args = cmsgpack.unpack(ARGV[1])
local comparing, trusted = unpack(KEYS)
if redis.call('GET', comparing) ~= args.token then return 0 end
redis.call('SET', trusted, 'checked', 'PX', args.milliseconds)
return 1
