-- Locks: KEYS lock, its last fence (one hash tag)  ARGV holder, ms.  The holder's fence, or nil: somebody else has it
local held = redis.call('HMGET', KEYS[1], 'holder', 'fence')
if held[1] and held[1] ~= ARGV[1] then return false end
local fence = held[2]
if not held[1] then
  -- By the clock too: a Redis that lost its data goes on above what it gave before.
  local t = redis.call('TIME')
  local last = tonumber(redis.call('GET', KEYS[2]) or '0')
  fence = string.format('%.0f', math.max(last + 1, t[1] * 1000000 + t[2]))
  redis.call('SET', KEYS[2], fence)
  redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'fence', fence)
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return fence
