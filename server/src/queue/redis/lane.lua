-- A lane of the fair queue: its keys, and what all scripts do to them. In front of every script of queue/redis.
--
-- Ids of jobs, users and processes are 16 raw bytes, whose order is that of their text. A start in virtual time is a
-- whole number below 2^53, exact as a score; inside a member it has 16 digits, so that members sort by it.
local waiting = KEYS[1]  -- sorted set: job by start; a position is a rank in it
local by_user = KEYS[2]  -- sorted set without scores: user .. start .. job
local heads = KEYS[3]    -- sorted set: first job of every user who waits and is not parked, by start
local jobs = KEYS[4]     -- hash: waiting job -> user .. cost
local parked = KEYS[5]   -- set: users who were at their limit when their head was met
local running = KEYS[6]  -- hash: running job -> user .. process
local held = KEYS[7]     -- sorted set without scores: process .. job
local counts = KEYS[8]   -- hash: user -> running jobs
local ends = KEYS[9]     -- sorted set: user by the end of the newest job
local alive = KEYS[10]   -- sorted set: process by the millisecond it counts as dead
local lane = KEYS[11]    -- hash: now (virtual time), per_user (the limit users were parked by), whole

-- A key that was deleted or evicted alone leaves half a lane. Four keys have a member with the empty name, which only a
-- new lane is given, so that their loss shows although the scripts have written to them again.
local MARK = ''

local LAST = string.rep('\255', 33)

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function member(user, start, id)
  return user .. string.format('%016.0f', start) .. id
end

-- Gives a new lane its marks. What has lost its own is left for `is_whole` to find.
local function begin()
  if redis.call('HEXISTS', lane, 'whole') == 0 and redis.call('EXISTS', unpack(KEYS)) == 0 then
    redis.call('HSET', lane, 'whole', 1)
    redis.call('ZADD', heads, '+inf', MARK)
    redis.call('SADD', parked, MARK)
    redis.call('HSET', counts, MARK, 0)
    redis.call('ZADD', alive, '+inf', MARK)
  end
end

-- False when a key is missing that others need. Without `ends` only turns are lost.
local function is_whole()
  local waits = redis.call('HLEN', jobs)
  return redis.call('HEXISTS', lane, 'whole') == 1
    and redis.call('ZCARD', waiting) == waits
    and redis.call('ZCARD', by_user) == waits
    and redis.call('HLEN', running) == redis.call('ZCARD', held)
    and redis.call('HEXISTS', counts, MARK) == 1
    and redis.call('SISMEMBER', parked, MARK) == 1
    and redis.call('ZSCORE', heads, MARK) ~= false
    and redis.call('ZSCORE', alive, MARK) ~= false
end

-- Shows the user's first waiting job among the heads.
local function show_head(user)
  local first = redis.call('ZRANGEBYLEX', by_user, '[' .. user, '(' .. user .. LAST, 'LIMIT', 0, 1)[1]
  if first then
    redis.call('ZADD', heads, string.sub(first, 17, 32), string.sub(first, 33))
  end
end

-- Takes a job out of those that wait; gives its user and cost, or nil.
local function withdraw(id)
  local job = redis.call('HGET', jobs, id)
  if not job then
    return nil
  end
  local user = string.sub(job, 1, 16)
  local start = redis.call('ZSCORE', waiting, id)
  redis.call('HDEL', jobs, id)
  if start then
    redis.call('ZREM', waiting, id)
    redis.call('ZREM', by_user, member(user, tonumber(start), id))
  end
  if redis.call('ZREM', heads, id) == 1 then
    show_head(user)
  end
  return user, string.sub(job, 17)
end

-- Gives a slot to a process; a job that runs changes its process.
local function occupy(id, user, process)
  local before = redis.call('HGET', running, id)
  if before then
    redis.call('ZREM', held, string.sub(before, 17) .. id)
    user = string.sub(before, 1, 16)
  else
    redis.call('HINCRBY', counts, user, 1)
  end
  redis.call('HSET', running, id, user .. process)
  redis.call('ZADD', held, 0, process .. id)
end

-- Frees the slot of a job, if `process` holds it or is nil; 1 when there was one.
local function free(id, process)
  local slot = redis.call('HGET', running, id)
  if not slot or (process and string.sub(slot, 17) ~= process) then
    return 0
  end
  local user = string.sub(slot, 1, 16)
  redis.call('HDEL', running, id)
  redis.call('ZREM', held, string.sub(slot, 17) .. id)
  if redis.call('HINCRBY', counts, user, -1) <= 0 then
    redis.call('HDEL', counts, user)
  end
  if redis.call('SREM', parked, user) == 1 then
    show_head(user)
  end
  return 1
end

-- Frees slots of a process, so many at once that others are not kept waiting; true when it has no more.
local function free_all(process)
  local mine = redis.call('ZRANGEBYLEX', held, '[' .. process, '(' .. process .. LAST, 'LIMIT', 0, 500)
  for _, slot in ipairs(mine) do
    free(string.sub(slot, 17), process)
  end
  if #mine < 500 then
    redis.call('ZREM', alive, process)
    return true
  end
  return false
end

-- Frees slots of processes that did not say that they live.
local function bury(now)
  for _, process in ipairs(redis.call('ZRANGEBYSCORE', alive, '-inf', now, 'LIMIT', 0, 4)) do
    free_all(process)
  end
end

-- False when the process was registered (`known`) and the lane does not know it any more, or has begun to bury it.
local function knows(process, known, now, life)
  begin()
  local deadline = redis.call('ZSCORE', alive, process)
  if deadline and tonumber(deadline) > now then
    return true
  end
  if known == '1' then
    return false
  end
  redis.call('ZADD', alive, now + life, process)
  return true
end
