join a
publish 1
pass 35s
pass 34s
---
  0.000  report Joined { member: "a", members: 1 }
  0.000  → a #1 try 1/4, within 30s
 30.000  commit #1 attempt 1 by a: Timeout
 30.000  report Retry { offset: Offset(1), retry: 1, of: 3, delay: 1s, outcome: Timeout }
 31.000  → a #1 try 2/4, within 30s
 61.000  commit #1 attempt 2 by a: Timeout
 61.000  report Retry { offset: Offset(1), retry: 2, of: 3, delay: 2s, outcome: Timeout }
 63.000  → a #1 try 3/4, within 30s

pass 30s
---
 93.000  commit #1 attempt 3 by a: Timeout
 93.000  report Retry { offset: Offset(1), retry: 3, of: 3, delay: 4s, outcome: Timeout }
 97.000  → a #1 try 4/4, within 30s

pass 100s
publish 1
---
127.000  commit #1 settled
127.000  report GaveUp { offset: Offset(1), attempts: 4 }
199.000  → a #2 try 1/4, within 30s
