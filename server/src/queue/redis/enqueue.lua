-- ARGV: job, user, cost of every job. Answers how many are new.
begin()
local now = tonumber(redis.call('HGET', lane, 'now') or '0')
local new = 0
for at = 1, #ARGV, 3 do
  local id, user, cost = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  if redis.call('HEXISTS', jobs, id) == 0 and redis.call('HEXISTS', running, id) == 0 then
    local start = math.max(now, tonumber(redis.call('ZSCORE', ends, user) or '0'))
    redis.call('ZADD', ends, string.format('%.0f', start + cost), user)
    redis.call('ZADD', waiting, string.format('%.0f', start), id)
    redis.call('HSET', jobs, id, user .. ARGV[at + 2])
    redis.call('ZADD', by_user, 0, member(user, start, id))
    if redis.call('SISMEMBER', parked, user) == 0 then
      -- The head has a score among the heads already unless this is it: then it is shown.
      local first = redis.call('ZRANGEBYLEX', by_user, '[' .. user, '(' .. user .. LAST, 'LIMIT', 0, 1)[1]
      if first and string.sub(first, 33) == id then
        redis.call('ZADD', heads, string.format('%.0f', start), id)
      end
    end
    new = new + 1
  end
end
return new
