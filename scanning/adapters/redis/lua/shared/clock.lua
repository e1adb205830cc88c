-- Redis's clock, which leases, due times and commits go by.

local function server_time()
  local time = redis.call('TIME')
  return time[1] + time[2] / 1000000
end

-- The text of a time, exact to the microsecond.
local function timestamp(seconds)
  return string.format('%.6f', seconds)
end
