# Not acknowledged in 30 s: ready for another after 1 s.
log 2
join a credit=1
late 10s
join b credit=1
wait 19s
---
log a joined credit=1
→ a #1 attempt=1/4 until=30s
log b joined credit=1
→ b #2 attempt=1/4 until=40s

wait 1s
---
at 30s:
commit failed #1 attempt 1 of a 0ns-30s Timeout
log #1 of a: Timeout, retry 1/3 in 1s

show
wait 1s
ack a 1
wait 9s
---
{"floor":0,"tried":[{"offset":1,"failures":1,"attempts":[{"n":1,"consumer":"a","sent":0.000000,"ended":30.000000,"outcome":"timeout"}]}]}
ready=0 in_flight=1 waiting=1 settling=0 dying=0
at 31s:
→ a #1 attempt=2/4 until=61s
answer acked
commit settled #1
at 40s:
commit failed #2 attempt 1 of b 10s-40s Timeout
log #2 of b: Timeout, retry 1/3 in 1s

# Woken late: what was due is handled lowest offset first, and the retry's pause counts from now.
log 4
ack b 1
ack b 2
late 10m
wait 0s
show
wait 1s
---
→ b #3 attempt=1/4 until=70s
→ a #4 attempt=1/4 until=70s
answer not pending
answer acked late
commit settled #2
log #2 late, held by nobody
at 640s:
commit failed #3 attempt 1 of b 40s-640s Timeout
log #3 of b: Timeout, retry 1/3 in 1s
commit failed #4 attempt 1 of a 40s-640s Timeout
log #4 of a: Timeout, retry 1/3 in 1s
{"floor":2,"tried":[{"offset":3,"failures":1,"attempts":[{"n":1,"consumer":"b","sent":40.000000,"ended":640.000000,"outcome":"timeout"}]},{"offset":4,"failures":1,"attempts":[{"n":1,"consumer":"a","sent":40.000000,"ended":640.000000,"outcome":"timeout"}]}]}
ready=0 in_flight=0 waiting=2 settling=0 dying=0
at 641s:
→ a #3 attempt=2/4 until=671s
→ b #4 attempt=2/4 until=671s

# An acknowledgement after the deadline but before the group is woken is in time.
late 10m
ack a 3
wait 0s
---
answer acked
commit settled #3
at 1241s:
commit failed #4 attempt 2 of b 641s-1241s Timeout
log #4 of b: Timeout, retry 2/3 in 2s
