-- Count the active buckets that are off the schedule because Redis forgot them.
--
-- KEYS     bucket hash and config of each bucket
-- returns  the number

local number = 0
for i = 1, #KEYS, 2 do
  if redis.call('HEXISTS', KEYS[i], 'lost_since') == 1 then
    local is_json, config = pcall(cjson.decode, redis.call('GET', KEYS[i + 1]) or '')
    if is_json and (config.status or 'active') == 'active' then number = number + 1 end
  end
end
return number
