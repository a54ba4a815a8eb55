-- Buckets: up to `want` tokens, in the integer arithmetic of src/domain/rate.rs (a double holds integers up to 2^53; a level has at
-- most 4.3e15).  KEYS bucket  ARGV tokens a second, burst, want.  Tokens, left, µs until full, µs until the next
local token = 1000000
local rate, burst, want = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local capacity = burst * token
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local kept = redis.call('HMGET', KEYS[1], 'level', 'at')
local level, at = capacity, now
if kept[1] and kept[2] then
  at = tonumber(kept[2])
  -- A clock that went back adds nothing.
  level = math.min(capacity, tonumber(kept[1]) + math.max(0, now - at) * rate)
  at = math.max(at, now)
end
local tokens = math.min(math.floor(level / token), want)
level = level - tokens * token
local full_in = math.ceil((capacity - level) / rate)
if full_in == 0 then
  -- A full bucket is no bucket.
  redis.call('DEL', KEYS[1])
else
  redis.call('HSET', KEYS[1], 'level', string.format('%.0f', level), 'at', string.format('%.0f', at))
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.ceil(full_in / 1000) + 1))
end
return { tokens, math.floor(level / token), full_in, math.ceil(math.max(0, token - level) / rate) }
