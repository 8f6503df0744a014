# at three unsettled messages no new one is delivered
join a credit=10
publish 5
---
  0.000  report Joined { member: "a", members: 1 }
  0.000  → a #1 try 1/4, within 30s
  0.000  → a #2 try 1/4, within 30s
  0.000  → a #3 try 1/4, within 30s

# a delay leaves it unsettled
nack a 1 delay=60s
---
  0.000  commit #1 attempt 1 by a: Nack
  0.000  report Retry { offset: Offset(1), retry: 1, of: 3, delay: 60s, outcome: Nack }
  0.000  answer Nacked { retry: 1, of: 3, delay: 60s }

ack a 2
---
  0.000  commit #2 settled
  0.000  answer Acked { late: false }
  0.000  → a #4 try 1/4, within 30s

pass 60s
---
 30.000  commit #3 attempt 1 by a: Timeout
 30.000  report Retry { offset: Offset(3), retry: 1, of: 3, delay: 1s, outcome: Timeout }
 30.000  commit #4 attempt 1 by a: Timeout
 30.000  report Retry { offset: Offset(4), retry: 1, of: 3, delay: 1s, outcome: Timeout }
 31.000  → a #3 try 2/4, within 30s
 31.000  → a #4 try 2/4, within 30s
 60.000  → a #1 try 2/4, within 30s
