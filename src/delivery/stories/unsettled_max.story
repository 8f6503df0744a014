# No new messages while too many are given out and not settled; retries go on.
policy unsettled_max=2
log 5
join a credit=5
---
log a joined credit=5
→ a #1 attempt=1/4 until=30s
→ a #2 attempt=1/4 until=30s

hold
nack a 1
ack a 2
wait 1s
---
answer nacked retry=1/3 in=1s
commit failed #1 attempt 1 of a 0ns-0ns Nack
log #1 of a: Nack, retry 1/3 in 1s
answer acked
commit settled #2
at 1s:
→ a #1 attempt=2/4 until=31s

# Settled is when it is committed.
commit
show
---
→ a #3 attempt=1/4 until=31s
{"floor":0,"settled":[[2,2]],"tried":[{"offset":1,"failures":1,"attempts":[{"n":1,"consumer":"a","sent":0.000000,"ended":0.000000,"outcome":"nack"}]}]}
ready=0 in_flight=2 waiting=0 settling=0 dying=0
