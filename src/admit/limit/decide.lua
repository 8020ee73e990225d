-- One decision of a limit: all of it or nothing. Times are tenths of microseconds since 2026 by the server's own
-- clock, so that gateways whose clocks differ agree; whole numbers of this size are exact in Lua.
-- KEYS: the bucket's time; who holds a place. ARGV: interval and depth of the bucket (no rate: 0), how many may run at
-- once (no such limit: 0), the name of the place, how long it is held.
local clock = redis.call('TIME')
local now = (clock[1] - 1767225600) * 10000000 + clock[2] * 10
local interval, depth = tonumber(ARGV[1]), tonumber(ARGV[2])
local most, lease = tonumber(ARGV[3]), tonumber(ARGV[5])
local held, ahead = 0, 0
if most > 0 then
    redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now))
    held = redis.call('ZCARD', KEYS[2])
    if held >= most then
        return {2, 0, held}
    end
end
if interval > 0 then
    local time = tonumber(redis.call('GET', KEYS[1]) or '') or now
    -- Not before now; and no further ahead than a bucket goes, should the clock or the limit have been changed.
    ahead = math.max(0, math.min(time - now, depth))
    if ahead + interval > depth then
        return {1, ahead, held}
    end
    ahead = ahead + interval
    local left = string.format('%.0f', math.ceil(ahead / 10000))
    redis.call('SET', KEYS[1], string.format('%.0f', now + ahead), 'PX', left)
end
if most > 0 then
    redis.call('ZADD', KEYS[2], string.format('%.0f', now + lease), ARGV[4])
    redis.call('PEXPIRE', KEYS[2], string.format('%.0f', math.ceil(lease / 10000)))
    held = held + 1
end
return {0, ahead, held}
