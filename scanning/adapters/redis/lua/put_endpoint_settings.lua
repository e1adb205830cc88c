-- Write what an operator set of an endpoint, unless Redis holds a newer revision.
--
-- KEYS     endpoint
-- args     revision, settings (JSON)
-- returns  1, or 0 if Redis holds a newer one

local args = cmsgpack.unpack(ARGV[1])
if tonumber(redis.call('HGET', KEYS[1], 'revision') or 0) > args.revision then return 0 end
redis.call('HSET', KEYS[1], 'revision', string.format('%.0f', args.revision),
           'settings', args.settings)
return 1
