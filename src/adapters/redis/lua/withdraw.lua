-- Claims: `count` of `worker` are void.  KEYS list, good-until by worker (one hash tag)  ARGV worker, count, claims at most
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local good = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '0')
if good <= now then
  redis.call('LREM', KEYS[1], 0, ARGV[1])
  return 0
end
local count = tonumber(ARGV[2])
if count == 0 then return 0 end
-- To LREM 0 means all.
if count > tonumber(ARGV[3]) then count = 0 end
return redis.call('LREM', KEYS[1], count, ARGV[1])
