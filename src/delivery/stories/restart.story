# After a restart everything unsettled is delivered again, lowest first; attempts count on.
log 6
join a credit=6
ack a 2
ack a 5
nack a 1
nack a 3 uncounted
hold
nack a 1
nack a 4
ack a 6
show
---
log a joined credit=6
→ a #1 attempt=1/4 until=30s
→ a #2 attempt=1/4 until=30s
→ a #3 attempt=1/4 until=30s
→ a #4 attempt=1/4 until=30s
→ a #5 attempt=1/4 until=30s
→ a #6 attempt=1/4 until=30s
answer acked
commit settled #2
answer acked
commit settled #5
answer nacked retry=1/3 in=1s
commit failed #1 attempt 1 of a 0ns-0ns Nack
log #1 of a: Nack, retry 1/3 in 1s
answer nacked retry=0/3 in=1s
commit failed #3 attempt 1 of a 0ns-0ns Nack uncounted
log #3 of a: Nack, retry 0/3 in 1s
answer not pending
answer nacked retry=1/3 in=1s
commit failed #4 attempt 1 of a 0ns-0ns Nack
log #4 of a: Nack, retry 1/3 in 1s
answer acked
commit settled #6
{"floor":0,"settled":[[2,2],[5,5]],"tried":[{"offset":1,"failures":1,"attempts":[{"n":1,"consumer":"a","sent":0.000000,"ended":0.000000,"outcome":"nack"}]},{"offset":3,"failures":0,"attempts":[{"n":1,"consumer":"a","sent":0.000000,"ended":0.000000,"outcome":"nack","uncounted":true}]}]}
ready=0 in_flight=0 waiting=3 settling=1 dying=0

restart
show
log 7
join b credit=2
show
---
{"floor":0,"settled":[[2,2],[5,5]],"tried":[{"offset":1,"failures":1,"attempts":[{"n":1,"consumer":"a","sent":0.000000,"ended":0.000000,"outcome":"nack"}]},{"offset":3,"failures":0,"attempts":[{"n":1,"consumer":"a","sent":0.000000,"ended":0.000000,"outcome":"nack","uncounted":true}]}]}
ready=0 in_flight=0 waiting=0 settling=0 dying=0
log b joined credit=2
→ b #1 attempt=2/4 until=30s
→ b #3 attempt=2/5 until=30s
{"floor":0,"settled":[[2,2],[5,5]],"tried":[{"offset":1,"failures":1,"attempts":[{"n":1,"consumer":"a","sent":0.000000,"ended":0.000000,"outcome":"nack"}]},{"offset":3,"failures":0,"attempts":[{"n":1,"consumer":"a","sent":0.000000,"ended":0.000000,"outcome":"nack","uncounted":true}]}]}
ready=0 in_flight=2 waiting=0 settling=0 dying=0

# A late acknowledgement of what was tried before the restart counts, even before it is given out
# again; of what is not known to have been delivered it does not.
restart
log 7
join d credit=0
ack d 3
ack d 4
commit
credit d credit=7
show
---
log d joined credit=0
answer acked late
commit settled #3
log #3 late, held by nobody
answer not pending
→ d #1 attempt=2/4 until=30s
→ d #4 attempt=1/4 until=30s
→ d #6 attempt=1/4 until=30s
→ d #7 attempt=1/4 until=30s
{"floor":0,"settled":[[2,3],[5,5]],"tried":[{"offset":1,"failures":1,"attempts":[{"n":1,"consumer":"a","sent":0.000000,"ended":0.000000,"outcome":"nack"}]}]}
ready=0 in_flight=4 waiting=0 settling=0 dying=0

# Killed after the failure that ends it and before the dead letter: the last delivery is repeated.
restart
policy max_retries=1
log 7
join e credit=1
nack e 1
restart
log 7
join f credit=1
nack f 1
commit
show
---
log e joined credit=1
→ e #1 attempt=2/2 until=30s
answer dead-lettering
commit dead letter #1 attempt 2 of e 0ns-0ns Nack
log #1 of e: Nack, dead letter after 2
→ e #4 attempt=1/2 until=30s
log f joined credit=1
→ f #1 attempt=2/2 until=30s
answer dead-lettering
commit dead letter #1 attempt 2 of f 0ns-0ns Nack
log #1 of f: Nack, dead letter after 2
→ f #4 attempt=1/2 until=30s
{"floor":3,"settled":[[5,5]]}
ready=0 in_flight=1 waiting=0 settling=0 dying=0

# Fewer retries than were tried already: one delivery more.
restart
policy max_retries=3
log 7
join g credit=1
hold
nack g 4 delay=0s
nack g 4 delay=0s
nack g 4 delay=0s
commit
restart
policy max_retries=0
log 7
join h credit=1
nack h 4
---
log g joined credit=1
→ g #4 attempt=1/4 until=30s
answer nacked retry=1/3 in=0ns
commit failed #4 attempt 1 of g 0ns-0ns Nack
log #4 of g: Nack, retry 1/3 in 0ns
→ g #4 attempt=2/4 until=30s
answer nacked retry=2/3 in=0ns
commit failed #4 attempt 2 of g 0ns-0ns Nack
log #4 of g: Nack, retry 2/3 in 0ns
→ g #4 attempt=3/4 until=30s
answer nacked retry=3/3 in=0ns
commit failed #4 attempt 3 of g 0ns-0ns Nack
log #4 of g: Nack, retry 3/3 in 0ns
→ g #4 attempt=4/4 until=30s
log h joined credit=1
→ h #4 attempt=4/4 until=30s
answer dead-lettering
commit dead letter #4 attempt 4 of h 0ns-0ns Nack
log #4 of h: Nack, dead letter after 4
→ h #6 attempt=1/1 until=30s
