# A member holds at most its prefetch; what nobody has credit for waits, in order.
log 4
join a credit=2
---
log a joined credit=2
→ a #1 attempt=1/4 until=30s
→ a #2 attempt=1/4 until=30s

join b credit=1
---
log b joined credit=1
→ b #3 attempt=1/4 until=30s

ack b 3
---
answer acked
commit settled #3
→ b #4 attempt=1/4 until=30s

# Less credit than it holds: it gets nothing until it holds less than that.
log 6
credit a credit=1
ack a 1
ack a 2
---
answer acked
commit settled #1
answer acked
commit settled #2
→ a #5 attempt=1/4 until=30s

# Zero pauses a member, more wakes it.
credit a credit=0
credit b credit=0
ack b 4
ack a 5
log 8
show
credit a credit=2
---
answer acked
commit settled #4
answer acked
commit settled #5
{"floor":5}
ready=0 in_flight=0 waiting=0 settling=0 dying=0
→ a #6 attempt=1/4 until=30s
→ a #7 attempt=1/4 until=30s

# Credit for somebody who is no member is nothing.
credit nobody credit=9
---

# Joining again changes the credit and the name, and keeps what it holds.
join a name=anna credit=3
log 9
show
close a
---
→ a #8 attempt=1/4 until=30s
{"floor":5}
ready=0 in_flight=3 waiting=0 settling=0 dying=0
log anna left with 3
commit failed #6 attempt 1 of anna 0ns-0ns Disconnect
commit failed #7 attempt 1 of anna 0ns-0ns Disconnect
commit failed #8 attempt 1 of anna 0ns-0ns Disconnect
