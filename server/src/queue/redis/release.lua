-- ARGV: process, then jobs: frees their slots as far as this process holds them. Answers how many it held.
local freed = 0
for at = 2, #ARGV do
  freed = freed + free(ARGV[at], ARGV[1])
end
return freed
