# A member that reads nothing gets no more once there is no room for it, whatever its credit.
join a credit=3
full a room=1
log 3
---
log a joined credit=3
→ a #1 attempt=1/4 until=30s
log a is paused

# Another gets what it does not.
join b credit=1
log 4
---
log b joined credit=1
→ b #2 attempt=1/4 until=30s

# What it holds it keeps, and may acknowledge; that makes no room.
ack a 1
---
answer acked
commit settled #1

# When it has read what it was sent, it goes on.
drained a
---
log a goes on
→ a #3 attempt=1/4 until=30s
→ a #4 attempt=1/4 until=30s

# A retry waits for it as well, if nobody else has credit.
full a
nack a 3
wait 1s
show
drained a
---
answer nacked retry=1/3 in=1s
commit failed #3 attempt 1 of a 0ns-0ns Nack
log #3 of a: Nack, retry 1/3 in 1s
at 1s:
log a is paused
{"floor":1,"tried":[{"offset":3,"failures":1,"attempts":[{"n":1,"consumer":"a","sent":0.000000,"ended":0.000000,"outcome":"nack"}]}]}
ready=1 in_flight=2 waiting=0 settling=0 dying=0
log a goes on
→ a #3 attempt=2/4 until=31s

# Whoever joins again on its connection is looked at again.
full a
silent a
join a credit=3
drained a
---
log a is dead with 2
commit failed #3 attempt 2 of a 1s-1s Dead
commit failed #4 attempt 1 of a 0ns-1s Dead
log a joined credit=3
log a is paused
log a goes on
log #3 goes from a to a
→ a #3 attempt=3/5 until=31s
log #4 goes from a to a
→ a #4 attempt=2/5 until=31s
