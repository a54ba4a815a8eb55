-- Buckets: how many nodes draw, this one included.  KEYS sharers  ARGV node, life in ms
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local all = redis.call('HGETALL', KEYS[1])
local count = 0
for i = 1, #all, 2 do
  if now - tonumber(all[i + 1]) < tonumber(ARGV[2]) then
    count = count + 1
  else
    redis.call('HDEL', KEYS[1], all[i])
  end
end
return count
