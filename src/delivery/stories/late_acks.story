# Late while the message waits for its retry.
log 1
join a credit=1
wait 30s
ack a 1
show
wait 1h
---
log a joined credit=1
→ a #1 attempt=1/4 until=30s
at 30s:
commit failed #1 attempt 1 of a 0ns-30s Timeout
log #1 of a: Timeout, retry 1/3 in 1s
answer acked late
commit settled #1
log #1 late, held by nobody
{"floor":1}
ready=0 in_flight=0 waiting=0 settling=0 dying=0

# Late while it is ready and nobody has credit.
log 2
wait 30s
credit a credit=0
wait 1s
show
ack a 2
show
---
→ a #2 attempt=1/4 until=3660s
at 3660s:
commit failed #2 attempt 1 of a 3630s-3660s Timeout
log #2 of a: Timeout, retry 1/3 in 1s
at 3661s:
{"floor":1,"tried":[{"offset":2,"failures":1,"attempts":[{"n":1,"consumer":"a","sent":3630.000000,"ended":3660.000000,"outcome":"timeout"}]}]}
ready=1 in_flight=0 waiting=0 settling=0 dying=0
answer acked late
commit settled #2
log #2 late, held by nobody
{"floor":2}
ready=0 in_flight=0 waiting=0 settling=0 dying=0

# Late while somebody else has it: that lease ends, the credit is back, and what the other says of
# it then finds nothing.
credit a credit=1
log 3
join b credit=1
wait 30s
wait 1s
ack a 3
ack b 3
nack b 3
touch b 3
---
→ a #3 attempt=1/4 until=3691s
log b joined credit=1
at 3691s:
commit failed #3 attempt 1 of a 3661s-3691s Timeout
log #3 of a: Timeout, retry 1/3 in 1s
at 3692s:
→ b #3 attempt=2/4 until=3722s
answer acked late
commit settled #3
log #3 late, held by b
answer not pending
answer not pending
answer not pending

# Late from a connection that is no member any more.
log 4
close a
close b
ack a 4
show
---
→ a #4 attempt=1/4 until=3722s
log a left with 1
commit failed #4 attempt 1 of a 3692s-3692s Disconnect
log #4 goes from a to b
→ b #4 attempt=2/5 until=3722s
log b left with 1
commit failed #4 attempt 2 of b 3692s-3692s Disconnect
answer acked late
commit settled #4
log #4 late, held by nobody
{"floor":4}
ready=0 in_flight=0 waiting=0 settling=0 dying=0

# If the same member has the message again, its acknowledgement is not late.
join c credit=1
log 5
wait 30s
wait 1s
ack c 5
---
log c joined credit=1
→ c #5 attempt=1/4 until=3722s
at 3722s:
commit failed #5 attempt 1 of c 3692s-3722s Timeout
log #5 of c: Timeout, retry 1/3 in 1s
at 3723s:
→ c #5 attempt=2/4 until=3753s
answer acked
commit settled #5

# Only an acknowledgement counts late; a nack does not.
log 6
wait 30s
nack c 6
ack c 6
---
→ c #6 attempt=1/4 until=3753s
at 3753s:
commit failed #6 attempt 1 of c 3723s-3753s Timeout
log #6 of c: Timeout, retry 1/3 in 1s
answer not pending
answer acked late
commit settled #6
log #6 late, held by nobody
