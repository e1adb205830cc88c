-- Forget that statuses were to be stored; what has changed again since stays.
--
-- KEYS     status_changes
-- args     stored (bucket -> time of the change that is stored)
-- returns  1

local args = cmsgpack.unpack(ARGV[1])
for bucket, changed_at in pairs(args.stored) do
  if redis.call('ZSCORE', KEYS[1], bucket) == changed_at then
    redis.call('ZREM', KEYS[1], bucket)
  end
end
return 1
