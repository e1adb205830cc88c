-- Take the buckets that Redis forgot off the schedule (continuity.lua).  One whose generation is
-- newer here than whoever asks knows is left alone.
--
-- KEYS     regions, status_changes, config_version, the due set of each region,
--          the hash of each bucket
-- args     regions (their names), expected (one of continuity.lua for each bucket)
-- returns  {bucket, 'lost', '', ''} of those that are lost since now, and {bucket, 'set back',
--          commit, when it was}; or 'new region': the regions have to be read again
-- include clock.lua
-- include regions.lua
-- include continuity.lua

local args = cmsgpack.unpack(ARGV[1])
local regions, status_changes, config_version = unpack(KEYS, 1, 3)
if has_new_region(regions, args.regions) then return 'new region' end
local dues = {unpack(KEYS, 4, 3 + #args.regions)}
local found = {}
for i, expected in ipairs(args.expected) do
  local hash, bucket = KEYS[3 + #args.regions + i], expected.bucket
  local known = redis.call('HMGET', hash, 'generation', 'commit', 'commit_at')
  if tonumber(known[1] or 0) <= expected.generation then
    local result = compare(expected, hash, status_changes, config_version, dues)
    if result == 'lost' then found[#found + 1] = {bucket, result, '', ''}
    elseif result == 'set back' then
      found[#found + 1] = {bucket, result, known[2] or '0', known[3]}
    end
  end
end
return found
