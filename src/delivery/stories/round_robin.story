# Members 1, 2, 3 and four messages: 1, 2, 3, 1.
join 1
join 2
join 3
log 1
log 2
log 3
log 4
---
log 1 joined credit=5
log 2 joined credit=5
log 3 joined credit=5
→ 1 #1 attempt=1/4 until=30s
→ 2 #2 attempt=1/4 until=30s
→ 3 #3 attempt=1/4 until=30s
→ 1 #4 attempt=1/4 until=30s

# A member without credit is passed over, and is served again when it has some.
credit 2 credit=1
log 7
ack 2 2
log 10
---
→ 3 #5 attempt=1/4 until=30s
→ 1 #6 attempt=1/4 until=30s
→ 3 #7 attempt=1/4 until=30s
answer acked
commit settled #2
→ 1 #8 attempt=1/4 until=30s
→ 2 #9 attempt=1/4 until=30s
→ 3 #10 attempt=1/4 until=30s

# One that joins has the last seat; one that leaves takes the turn with it.
join 4
log 13
close 1
log 15
---
log 4 joined credit=5
→ 4 #11 attempt=1/4 until=30s
→ 1 #12 attempt=1/4 until=30s
→ 3 #13 attempt=1/4 until=30s
log 1 left with 5
commit failed #1 attempt 1 of 1 0ns-0ns Disconnect
commit failed #4 attempt 1 of 1 0ns-0ns Disconnect
commit failed #6 attempt 1 of 1 0ns-0ns Disconnect
commit failed #8 attempt 1 of 1 0ns-0ns Disconnect
commit failed #12 attempt 1 of 1 0ns-0ns Disconnect
log #1 goes from 1 to 4
→ 4 #1 attempt=2/5 until=30s
log #4 goes from 1 to 4
→ 4 #4 attempt=2/5 until=30s
log #6 goes from 1 to 4
→ 4 #6 attempt=2/5 until=30s
log #8 goes from 1 to 4
→ 4 #8 attempt=2/5 until=30s
