-- ARGV: job, and a process: then only a slot of this process is freed. Answers 1 when something was.
if ARGV[2] then
  return free(ARGV[1], ARGV[2])
end
if withdraw(ARGV[1]) then
  return 1
end
return free(ARGV[1], nil)
