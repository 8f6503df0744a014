# What the log no longer has counts as settled, whatever state it is in.
hold
log 8
join a credit=4
nack a 1
ack a 2
ack a 5
nack a 4
start 4
show
---
log a joined credit=4
→ a #1 attempt=1/4 until=30s
→ a #2 attempt=1/4 until=30s
→ a #3 attempt=1/4 until=30s
→ a #4 attempt=1/4 until=30s
answer nacked retry=1/3 in=1s
commit failed #1 attempt 1 of a 0ns-0ns Nack
log #1 of a: Nack, retry 1/3 in 1s
→ a #5 attempt=1/4 until=30s
answer acked
commit settled #2
→ a #6 attempt=1/4 until=30s
answer acked
commit settled #5
→ a #7 attempt=1/4 until=30s
answer nacked retry=1/3 in=1s
commit failed #4 attempt 1 of a 0ns-0ns Nack
log #4 of a: Nack, retry 1/3 in 1s
→ a #8 attempt=1/4 until=30s
{"floor":3}
ready=0 in_flight=3 waiting=1 settling=1 dying=0

commit
show
start 7
show
---
{"floor":3,"settled":[[5,5]],"tried":[{"offset":4,"failures":1,"attempts":[{"n":1,"consumer":"a","sent":0.000000,"ended":0.000000,"outcome":"nack"}]}]}
ready=0 in_flight=3 waiting=1 settling=0 dying=0
{"floor":6}
ready=0 in_flight=2 waiting=0 settling=0 dying=0

# Going back is nothing, and beyond the end is fine.
start 2
start 20
show
log 20
---
{"floor":19}
ready=0 in_flight=0 waiting=0 settling=0 dying=0
→ a #20 attempt=1/4 until=30s
