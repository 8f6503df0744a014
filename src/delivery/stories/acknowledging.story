# An acknowledgement gives the credit back at once, before it is durable, and the next message goes
# out in the same breath. The floor moves when the commit is known.
hold
log 3
join a credit=1
---
log a joined credit=1
→ a #1 attempt=1/4 until=30s

ack a 1
show
---
answer acked
commit settled #1
→ a #2 attempt=1/4 until=30s
{"floor":0}
ready=0 in_flight=1 waiting=0 settling=1 dying=0

# A second acknowledgement of the same message finds nothing, settling or settled.
ack a 1
commit
show
ack a 1
---
answer not pending
{"floor":1}
ready=0 in_flight=1 waiting=0 settling=0 dying=0
answer not pending

# Out of order: what is settled above the floor is remembered as ranges.
credit a credit=3
log 5
ack a 3
ack a 5
commit
show
ack a 4
commit
show
ack a 2
commit
show
---
→ a #3 attempt=1/4 until=30s
→ a #4 attempt=1/4 until=30s
answer acked
commit settled #3
→ a #5 attempt=1/4 until=30s
answer acked
commit settled #5
{"floor":1,"settled":[[3,3],[5,5]]}
ready=0 in_flight=2 waiting=0 settling=0 dying=0
answer acked
commit settled #4
{"floor":1,"settled":[[3,5]]}
ready=0 in_flight=1 waiting=0 settling=0 dying=0
answer acked
commit settled #2
{"floor":5}
ready=0 in_flight=0 waiting=0 settling=0 dying=0

# Never delivered, or beyond the end.
ack a 6
ack a 7000
---
answer not pending
answer not pending

# Committed by somebody else while it is out: the lease ends, and the credit is back.
log 9
elsewhere 6
show
---
→ a #6 attempt=1/4 until=30s
→ a #7 attempt=1/4 until=30s
→ a #8 attempt=1/4 until=30s
→ a #9 attempt=1/4 until=30s
{"floor":6}
ready=0 in_flight=3 waiting=0 settling=0 dying=0
