-- ARGV: process, whether it is known ('1'), its life in ms, then job and user of every job.
-- Answers 0 when the lane had forgotten the process, else 1.
local process, now, life = ARGV[1], now_ms(), tonumber(ARGV[3])
local known = knows(process, ARGV[2], now, life)
if not known then
  redis.call('ZADD', alive, now + life, process)
end
for at = 4, #ARGV, 2 do
  withdraw(ARGV[at])
  occupy(ARGV[at], ARGV[at + 1], process)
end
return known and 1 or 0
