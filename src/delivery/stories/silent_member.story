# A member that was not heard from is dead: others have its messages at once.
log 2
join a credit=2
join b credit=5
silent a
attempts 1
---
log a joined credit=2
→ a #1 attempt=1/4 until=30s
→ a #2 attempt=1/4 until=30s
log b joined credit=5
log a is dead with 2
commit failed #1 attempt 1 of a 0ns-0ns Dead
commit failed #2 attempt 1 of a 0ns-0ns Dead
log #1 goes from a to b
→ b #1 attempt=2/5 until=30s
log #2 goes from a to b
→ b #2 attempt=2/5 until=30s
{"n":1,"consumer":"a","sent":0.000000,"ended":0.000000,"outcome":"dead"}

# It was only slow: what it says late counts, and it is a member again when it joins again.
ack a 1
join a credit=2
log 4
show
silent a
---
answer acked late
commit settled #1
log #1 late, held by b
log a joined credit=2
→ a #3 attempt=1/4 until=30s
→ b #4 attempt=1/4 until=30s
{"floor":1,"tried":[{"offset":2,"failures":0,"attempts":[{"n":1,"consumer":"a","sent":0.000000,"ended":0.000000,"outcome":"dead"}]}]}
ready=0 in_flight=3 waiting=0 settling=0 dying=0
log a is dead with 1
commit failed #3 attempt 1 of a 0ns-0ns Dead
log #3 goes from a to b
→ b #3 attempt=2/5 until=30s
