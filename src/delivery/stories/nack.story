# A nack follows the schedule of timeouts.
log 2
join a credit=1
join b credit=1
nack a 1 reason=busy error=later
---
log a joined credit=1
→ a #1 attempt=1/4 until=30s
log b joined credit=1
→ b #2 attempt=1/4 until=30s
answer nacked retry=1/3 in=1s
commit failed #1 attempt 1 of a 0ns-0ns Nack reason=busy error=later
log #1 of a: Nack, retry 1/3 in 1s

wait 1s
show
ack b 2
attempts 1
---
at 1s:
→ a #1 attempt=2/4 until=31s
{"floor":0,"tried":[{"offset":1,"failures":1,"attempts":[{"n":1,"consumer":"a","sent":0.000000,"ended":0.000000,"outcome":"nack","reason":"busy","error":"later"}]}]}
ready=0 in_flight=2 waiting=0 settling=0 dying=0
answer acked
commit settled #2
{"n":1,"consumer":"a","sent":0.000000,"ended":0.000000,"outcome":"nack","reason":"busy","error":"later"}

# With a delay of its own, also none.
nack b 1 delay=10s
wait 10s
nack a 1 delay=0s
---
answer not pending
answer nacked retry=2/3 in=0ns
commit failed #1 attempt 2 of a 1s-11s Nack
log #1 of a: Nack, retry 2/3 in 0ns
→ b #1 attempt=3/4 until=41s

# Not counted: the retries stay, the history knows.
nack b 1 uncounted
wait 4s
attempts 1
---
answer nacked retry=2/3 in=4s
commit failed #1 attempt 3 of b 11s-11s Nack uncounted
log #1 of b: Nack, retry 2/3 in 4s
at 15s:
→ a #1 attempt=4/5 until=45s
{"n":1,"consumer":"a","sent":0.000000,"ended":0.000000,"outcome":"nack","reason":"busy","error":"later"}
{"n":2,"consumer":"a","sent":1.000000,"ended":11.000000,"outcome":"nack"}
{"n":3,"consumer":"b","sent":11.000000,"ended":11.000000,"outcome":"nack","uncounted":true}

# The last counted one, and one that says it is the last.
nack a 1 delay=1h
log 3
nack b 3 dead reason=poison
show
---
answer nacked retry=3/3 in=3600s
commit failed #1 attempt 4 of a 15s-15s Nack
log #1 of a: Nack, retry 3/3 in 3600s
→ b #3 attempt=1/4 until=45s
answer dead-lettering
commit dead letter #3 attempt 1 of b 15s-15s Nack reason=poison
log #3 of b: Nack, dead letter after 1
{"floor":0,"settled":[[2,3]],"tried":[{"offset":1,"failures":3,"attempts":[{"n":1,"consumer":"a","sent":0.000000,"ended":0.000000,"outcome":"nack","reason":"busy","error":"later"},{"n":2,"consumer":"a","sent":1.000000,"ended":11.000000,"outcome":"nack"},{"n":3,"consumer":"b","sent":11.000000,"ended":11.000000,"outcome":"nack","uncounted":true},{"n":4,"consumer":"a","sent":15.000000,"ended":15.000000,"outcome":"nack"}]}]}
ready=0 in_flight=0 waiting=1 settling=0 dying=0

# Only who holds it may refuse it.
log 4
nack a 4
nack b 4
nack nobody 4
---
→ a #4 attempt=1/4 until=45s
answer nacked retry=1/3 in=1s
commit failed #4 attempt 1 of a 15s-15s Nack
log #4 of a: Nack, retry 1/3 in 1s
answer not pending
answer not pending
