-- GCRA over all replicas. KEYS[1]: one policy's count of one caller, the theoretical arrival time in microseconds of
-- Redis' clock. ARGV: interval and window in microseconds, and how many to take: 1, or -1 to give one back.
-- Answers {1 when it passed, microseconds until the quota is whole again}.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, window, take = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local stored = tonumber(redis.call('GET', KEYS[1]) or '0')
local arrival = math.min(math.max(now, stored), now + window)
local ahead = arrival - now + interval * take
if ahead > window then
  if stored > arrival then
    -- The clock was set back. As it stands the caller would be refused until the clock is where it was.
    redis.call('SET', KEYS[1], string.format('%.0f', arrival), 'PX', math.ceil(window / 1000))
  end
  return {0, arrival - now}
end
if ahead <= 0 then
  redis.call('DEL', KEYS[1])
  return {1, 0}
end
redis.call('SET', KEYS[1], string.format('%.0f', now + ahead), 'PX', math.ceil(ahead / 1000))
return {1, ahead}
