-- ARGV: process, whether it is known ('1'), its life in ms. Answers {1 when it is known, 1 when slots became free}.
local now, life = now_ms(), tonumber(ARGV[3])
begin()
local slots = redis.call('HLEN', running)
bury(now)
if not is_whole() then
  -- Half a lane would stand still; without it every process is asked to tell all anew.
  redis.call('UNLINK', unpack(KEYS))
  return {0, 1}
end
local freed = redis.call('HLEN', running) < slots and 1 or 0
if not knows(ARGV[1], ARGV[2], now, life) then
  return {0, freed}
end
redis.call('ZADD', alive, now + life, ARGV[1])
return {1, freed}
