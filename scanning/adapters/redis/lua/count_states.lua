-- Count how many scheduled buckets of one region are in each state; the first that fits counts.
--
-- KEYS     due, run, the hash of each bucket
-- args     buckets (names), late_s: after so many seconds a bucket that waits is late
-- returns  numbers: failing, held, late, waiting (never scanned), watched
-- include clock.lua

local args = cmsgpack.unpack(ARGV[1])
local due, run = KEYS[1], KEYS[2]
local now = server_time()
local failing, held, late, waiting, watched = 0, 0, 0, 0, 0
for i, bucket in ipairs(args.buckets) do
  local due_at = tonumber(redis.call('ZSCORE', due, bucket))
  local ended = redis.call('HMGET', KEYS[2 + i], 'error_class', 'held_since', 'scan_at',
                           'held_moved_since')
  if not due_at then  -- it was taken off the schedule since its name was read
  elseif ended[1] then failing = failing + 1
  elseif ended[2] or ended[4] then held = held + 1
  elseif due_at <= now - args.late_s
         and tonumber(redis.call('ZSCORE', run, bucket) or 0) <= now then late = late + 1
  elseif not ended[3] then waiting = waiting + 1
  else watched = watched + 1 end
end
return {failing, held, late, waiting, watched}
