-- ARGV: process. Answers 1 when none of its slots is left, 0 when there are more.
if free_all(ARGV[1]) then
  return 1
end
return 0
