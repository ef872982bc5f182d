-- ARGV: process, whether it is known ('1'), its life in ms, concurrency, slots per user.
-- Answers {'job', id, user, cost}, {'none'}, or {'lost'} when the lane has forgotten the process.
local process, per_user = ARGV[1], tonumber(ARGV[5])
local now = now_ms()
bury(now)
if not knows(process, ARGV[2], now, tonumber(ARGV[3])) then
  return {'lost'}
end
if redis.call('HLEN', running) >= tonumber(ARGV[4]) then
  return {'none'}
end
local before = tonumber(redis.call('HGET', lane, 'per_user') or '0')
if before ~= per_user then
  redis.call('HSET', lane, 'per_user', per_user)
  if per_user > before then
    local users = redis.call('SMEMBERS', parked)
    for _, user in ipairs(users) do
      if user ~= MARK then
        redis.call('SREM', parked, user)
        show_head(user)
      end
    end
  end
end
while true do
  local first = redis.call('ZRANGE', heads, 0, 0, 'WITHSCORES')
  local id = first[1]
  if not id or id == MARK then
    return {'none'}
  end
  local job = redis.call('HGET', jobs, id)
  local user = job and string.sub(job, 1, 16)
  if not job then
    -- Only after a key was evicted or deleted by hand: forget it, the store knows the job.
    redis.call('ZREM', heads, id)
    redis.call('ZREM', waiting, id)
  elseif tonumber(redis.call('HGET', counts, user) or '0') >= per_user then
    -- Parked users have a running job each, so there are never more of them than slots.
    redis.call('ZREM', heads, id)
    redis.call('SADD', parked, user)
  else
    local _, cost = withdraw(id)
    occupy(id, user, process)
    local start = tonumber(first[2])
    if start > tonumber(redis.call('HGET', lane, 'now') or '0') then
      redis.call('HSET', lane, 'now', string.format('%.0f', start))
      -- Who owes nothing any more is as good as new.
      redis.call('ZREMRANGEBYSCORE', ends, '-inf', string.format('%.0f', start))
    end
    return {'job', id, user, cost}
  end
end
