# A group that reads a dead-letter topic has none of its own: what fails for good is settled, stays
# in its topic, and is reported.
policy dead_letters=no max_retries=1 backoff=1s
log 3
join a
---
log a joined credit=5
→ a #1 attempt=1/2 until=30s
→ a #2 attempt=1/2 until=30s
→ a #3 attempt=1/2 until=30s

nack a 1
---
answer nacked retry=1/1 in=1s
commit failed #1 attempt 1 of a 0ns-0ns Nack
log #1 of a: Nack, retry 1/1 in 1s

wait 1s
---
at 1s:
→ a #1 attempt=2/2 until=31s

nack a 1
---
answer gave up
commit settled #1
log #1 of a: Nack, given up after 2

nack a 2 dead
wait 31s
show
---
answer gave up
commit settled #2
log #2 of a: Nack, given up after 1
at 30s:
commit failed #3 attempt 1 of a 0ns-30s Timeout
log #3 of a: Timeout, retry 1/1 in 1s
at 31s:
→ a #3 attempt=2/2 until=61s
{"floor":2,"tried":[{"offset":3,"failures":1,"attempts":[{"n":1,"consumer":"a","sent":0.000000,"ended":30.000000,"outcome":"timeout"}]}]}
ready=0 in_flight=1 waiting=0 settling=0 dying=0
