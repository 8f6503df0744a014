# Four deliveries, with 1, 2 and 4 s before the retries, then the dead-letter topic: exactly one.
log 1
join a
---
log a joined credit=5
→ a #1 attempt=1/4 until=30s

wait 30s
---
at 30s:
commit failed #1 attempt 1 of a 0ns-30s Timeout
log #1 of a: Timeout, retry 1/3 in 1s

wait 1s
---
at 31s:
→ a #1 attempt=2/4 until=61s

wait 30s
---
at 61s:
commit failed #1 attempt 2 of a 31s-61s Timeout
log #1 of a: Timeout, retry 2/3 in 2s

wait 2s
---
at 63s:
→ a #1 attempt=3/4 until=93s

wait 30s
---
at 93s:
commit failed #1 attempt 3 of a 63s-93s Timeout
log #1 of a: Timeout, retry 3/3 in 4s

attempts 1
---
{"n":1,"consumer":"a","sent":0.000000,"ended":30.000000,"outcome":"timeout"}
{"n":2,"consumer":"a","sent":31.000000,"ended":61.000000,"outcome":"timeout"}
{"n":3,"consumer":"a","sent":63.000000,"ended":93.000000,"outcome":"timeout"}

wait 4s
---
at 97s:
→ a #1 attempt=4/4 until=127s

hold
wait 30s
---
at 127s:
commit dead letter #1 attempt 4 of a 97s-127s Timeout
log #1 of a: Timeout, dead letter after 4

# Until the dead letter is committed the message is neither pending nor settled.
show
ack a 1
nack a 1
commit
show
wait 1h
---
{"floor":0,"tried":[{"offset":1,"failures":3,"attempts":[{"n":1,"consumer":"a","sent":0.000000,"ended":30.000000,"outcome":"timeout"},{"n":2,"consumer":"a","sent":31.000000,"ended":61.000000,"outcome":"timeout"},{"n":3,"consumer":"a","sent":63.000000,"ended":93.000000,"outcome":"timeout"}]}]}
ready=0 in_flight=0 waiting=0 settling=0 dying=1
answer not pending
answer not pending
{"floor":1}
ready=0 in_flight=0 waiting=0 settling=0 dying=0

# No retries at all: the first failure is the last.
policy max_retries=0
log 2
wait 30s
commit
show
---
→ a #2 attempt=1/1 until=3757s
at 3757s:
commit dead letter #2 attempt 1 of a 3727s-3757s Timeout
log #2 of a: Timeout, dead letter after 1
{"floor":2}
ready=0 in_flight=0 waiting=0 settling=0 dying=0
