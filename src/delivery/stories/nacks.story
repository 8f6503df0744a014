join a
publish 1
---
  0.000  report Joined { member: "a", members: 1 }
  0.000  → a #1 try 1/4, within 30s

nack a 1 reason=bad-order
---
  0.000  commit #1 attempt 1 by a: Nack
  0.000  report Retry { offset: Offset(1), retry: 1, of: 3, delay: 1s, outcome: Nack }
  0.000  answer Nacked { retry: 1, of: 3, delay: 1s }

pass 1s
---
  1.000  → a #1 try 2/4, within 30s

# another delay than the schedule's
nack a 1 delay=10s
---
  1.000  commit #1 attempt 2 by a: Nack
  1.000  report Retry { offset: Offset(1), retry: 2, of: 3, delay: 10s, outcome: Nack }
  1.000  answer Nacked { retry: 2, of: 3, delay: 10s }

pass 10s
---
 11.000  → a #1 try 3/4, within 30s

# given back: not an attempt
nack a 1 given-back
---
 11.000  answer Nacked { retry: 2, of: 3, delay: 0ns }

# no further try
nack a 1 dead
---
 11.000  answer NotPending

# of others, or of nothing
nack a 1
join b
publish 1
---
 11.000  answer NotPending
 11.000  report Joined { member: "b", members: 2 }
 11.000  → b #2 try 1/4, within 30s

nack b 2
---
 11.000  commit #2 attempt 1 by b: Nack
 11.000  report Retry { offset: Offset(2), retry: 1, of: 3, delay: 1s, outcome: Nack }
 11.000  answer Nacked { retry: 1, of: 3, delay: 1s }
