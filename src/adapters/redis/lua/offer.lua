-- Claims: `count` more of `worker`.  KEYS list, good-until by worker (one hash tag)  ARGV worker, count, life in ms, claims at most
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local good = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '0')
if good <= now then
  -- What it offered before is forgotten and does not come back with this.
  redis.call('LREM', KEYS[1], 0, ARGV[1])
  if good == 0 and redis.call('HLEN', KEYS[2]) % 64 == 63 then
    local all = redis.call('HGETALL', KEYS[2])
    for i = 1, #all, 2 do
      if tonumber(all[i + 1]) <= now then redis.call('HDEL', KEYS[2], all[i]) end
    end
  end
end
local life = tonumber(ARGV[3])
redis.call('HSET', KEYS[2], ARGV[1], string.format('%.0f', now + life))
local most = tonumber(ARGV[4])
local count = math.min(tonumber(ARGV[2]), most)
if count > 0 then
  local new = {}
  for i = 1, count do new[i] = ARGV[1] end
  redis.call('LPUSH', KEYS[1], unpack(new))
  redis.call('LTRIM', KEYS[1], 0, most - 1)
end
redis.call('PEXPIRE', KEYS[1], life)
redis.call('PEXPIRE', KEYS[2], life)
return count
