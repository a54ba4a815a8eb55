-- Roster: everybody, and now in ms by the clock of the heartbeats.  KEYS workers
local t = redis.call('TIME')
return { string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000)), redis.call('HGETALL', KEYS[1]) }
