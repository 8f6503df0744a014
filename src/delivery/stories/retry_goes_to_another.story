# A retry goes to another member than its last, if one is free.
log 1
join a credit=1
nack a 1 delay=0s
join b credit=1
nack a 1 delay=0s
---
log a joined credit=1
→ a #1 attempt=1/4 until=30s
answer nacked retry=1/3 in=0ns
commit failed #1 attempt 1 of a 0ns-0ns Nack
log #1 of a: Nack, retry 1/3 in 0ns
→ a #1 attempt=2/4 until=30s
log b joined credit=1
answer nacked retry=2/3 in=0ns
commit failed #1 attempt 2 of a 0ns-0ns Nack
log #1 of a: Nack, retry 2/3 in 0ns
→ b #1 attempt=3/4 until=30s

nack b 1 delay=1s
wait 1s
---
answer nacked retry=3/3 in=1s
commit failed #1 attempt 3 of b 0ns-0ns Nack
log #1 of b: Nack, retry 3/3 in 1s
at 1s:
→ a #1 attempt=4/4 until=31s

# Nobody else is free: the same member has it again.
log 3
nack a 1 dead
ack a 3
log 4
nack a 4 delay=0s
---
→ b #2 attempt=1/4 until=31s
answer dead-lettering
commit dead letter #1 attempt 4 of a 1s-1s Nack
log #1 of a: Nack, dead letter after 4
→ a #3 attempt=1/4 until=31s
answer acked
commit settled #3
→ a #4 attempt=1/4 until=31s
answer nacked retry=1/3 in=0ns
commit failed #4 attempt 1 of a 1s-1s Nack
log #4 of a: Nack, retry 1/3 in 0ns
→ a #4 attempt=2/4 until=31s
