-- Goes on holding a place, unless it was lost.
-- KEYS: who holds a place. ARGV: the name of the place, how long it is held.
local clock = redis.call('TIME')
local lease = tonumber(ARGV[2])
local last = (clock[1] - 1767225600) * 10000000 + clock[2] * 10 + lease
redis.call('ZADD', KEYS[1], 'XX', string.format('%.0f', last), ARGV[1])
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.ceil(lease / 10000)))
return 0
