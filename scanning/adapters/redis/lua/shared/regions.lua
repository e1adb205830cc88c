-- A script that goes through all regions is given the keys of each, by whoever read the regions
-- before.  Tell whether there is one more by now: then they have to be read again.

local function has_new_region(regions, known)
  local is_known = {}
  for _, region in ipairs(known) do is_known[region] = true end
  for _, region in ipairs(redis.call('SMEMBERS', regions)) do
    if not is_known[region] then return true end
  end
  return false
end
