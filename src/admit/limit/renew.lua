-- Goes on holding places. Those that the server has lost are held again, even if there are then more than may be: their
-- requests run.
-- KEYS: who holds a place. ARGV: how long they are held, the names of the places.
local clock = redis.call('TIME')
local lease = tonumber(ARGV[1])
local last = string.format('%.0f', (clock[1] - 1767225600) * 10000000 + clock[2] * 10 + lease)
for place = 2, #ARGV do
    redis.call('ZADD', KEYS[1], last, ARGV[place])
end
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.ceil(lease / 10000)))
return 0
