-- Have buckets scanned now (due_now.lua).
--
-- KEYS     bucket hash and due set of each bucket
-- args     buckets (names)
-- returns  1
-- include due_now.lua

local args = cmsgpack.unpack(ARGV[1])
for i, bucket in ipairs(args.buckets) do make_due(bucket, KEYS[2 * i - 1], KEYS[2 * i]) end
return 1
