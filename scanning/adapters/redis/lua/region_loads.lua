-- Count each region's buckets: scheduled, late, being scanned.  A bucket that is being scanned keeps
-- its place in the due set.
--
-- KEYS     due and run of each region
-- args     late_s: after so many seconds a bucket that waits is late
-- returns  {scheduled, late, running} for each region
-- include clock.lua

local args = cmsgpack.unpack(ARGV[1])
local now = server_time()
local late_from = now - args.late_s
local loads = {}
for i = 1, #KEYS, 2 do
  local due = KEYS[i]
  local late = redis.call('ZCOUNT', due, '-inf', late_from)
  local running = redis.call('ZRANGEBYSCORE', KEYS[i + 1], now, '+inf')
  for _, bucket in ipairs(running) do
    local at = tonumber(redis.call('ZSCORE', due, bucket))
    if at and at <= late_from then late = late - 1 end
  end
  loads[#loads + 1] = {redis.call('ZCARD', due), late, #running}
end
return loads
