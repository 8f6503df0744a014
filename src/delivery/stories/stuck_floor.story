# One message stuck at the floor while others pass it: one range, not one entry for each.
join a credit=1
join b credit=2
log 6
ack b 2
ack b 3
ack b 4
ack b 5
ack b 6
show
log 9
ack b 8
ack b 9
show
nack a 1 dead
show
---
log a joined credit=1
log b joined credit=2
→ a #1 attempt=1/4 until=30s
→ b #2 attempt=1/4 until=30s
→ b #3 attempt=1/4 until=30s
answer acked
commit settled #2
→ b #4 attempt=1/4 until=30s
answer acked
commit settled #3
→ b #5 attempt=1/4 until=30s
answer acked
commit settled #4
→ b #6 attempt=1/4 until=30s
answer acked
commit settled #5
answer acked
commit settled #6
{"floor":0,"settled":[[2,6]]}
ready=0 in_flight=1 waiting=0 settling=0 dying=0
→ b #7 attempt=1/4 until=30s
→ b #8 attempt=1/4 until=30s
answer acked
commit settled #8
→ b #9 attempt=1/4 until=30s
answer acked
commit settled #9
{"floor":0,"settled":[[2,6],[8,9]]}
ready=0 in_flight=2 waiting=0 settling=0 dying=0
answer dead-lettering
commit dead letter #1 attempt 1 of a 0ns-0ns Nack
log #1 of a: Nack, dead letter after 1
{"floor":6,"settled":[[8,9]]}
ready=0 in_flight=1 waiting=0 settling=0 dying=0
