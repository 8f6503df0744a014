# Two members of the same name are two members.
join a name=w credit=1
join b name=w credit=1
log 3
---
log w joined credit=1
log w joined credit=1
→ a #1 attempt=1/4 until=30s
→ b #2 attempt=1/4 until=30s

ack b 1
ack a 1
close b
---
answer acked late
commit settled #1
log #1 late, held by w
→ a #3 attempt=1/4 until=30s
answer not pending
log w left with 1
commit failed #2 attempt 1 of w 0ns-0ns Disconnect
