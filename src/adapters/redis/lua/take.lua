-- Claims: the newest that is good.  KEYS list, good-until by worker (one hash tag)
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
while true do
  local worker = redis.call('LPOP', KEYS[1])
  if not worker then return false end
  local good = redis.call('HGET', KEYS[2], worker)
  if good and tonumber(good) > now then return worker end
end
