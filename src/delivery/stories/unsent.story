# What could not be sent has not failed: it takes credit for its time, and goes to another.
policy max_retries=0
log 3
join a credit=2
unsent 1
unsent 2
join b credit=1
unsent 3
wait 30s
show
---
log a joined credit=2
→ a #1 attempt=1/1 until=30s
→ a #2 attempt=1/1 until=30s
log b joined credit=1
→ b #3 attempt=1/1 until=30s
at 30s:
→ b #1 attempt=1/1 until=60s
→ a #2 attempt=1/1 until=60s
→ a #3 attempt=1/1 until=60s
{"floor":0}
ready=0 in_flight=3 waiting=0 settling=0 dying=0

# What it was not sent a member can neither refuse nor keep.
unsent 1
nack a 1
nack b 1
touch a 1
touch b 1
---
answer not pending
answer not pending
answer not pending
answer not pending

# It goes to others at once when its member leaves.
join c credit=5
close a
close b
show
ack c 1
---
log c joined credit=5
log a left with 2
commit failed #2 attempt 1 of a 30s-30s Disconnect
commit failed #3 attempt 1 of a 30s-30s Disconnect
log #2 goes from a to c
→ c #2 attempt=2/2 until=60s
log #3 goes from a to c
→ c #3 attempt=2/2 until=60s
log b left with 1
→ c #1 attempt=1/1 until=60s
{"floor":0,"tried":[{"offset":2,"failures":0,"attempts":[{"n":1,"consumer":"a","sent":30.000000,"ended":30.000000,"outcome":"disconnect"}]},{"offset":3,"failures":0,"attempts":[{"n":1,"consumer":"a","sent":30.000000,"ended":30.000000,"outcome":"disconnect"}]}]}
ready=0 in_flight=3 waiting=0 settling=0 dying=0
answer acked
commit settled #1

# What was sent fails as ever.
wait 30s
show
---
at 60s:
commit dead letter #2 attempt 2 of c 30s-60s Timeout
log #2 of c: Timeout, dead letter after 2
commit dead letter #3 attempt 2 of c 30s-60s Timeout
log #3 of c: Timeout, dead letter after 2
{"floor":3}
ready=0 in_flight=0 waiting=0 settling=0 dying=0
