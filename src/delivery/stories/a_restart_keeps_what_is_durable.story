join a
publish 5
ack a 1
ack a 3
---
  0.000  report Joined { member: "a", members: 1 }
  0.000  → a #1 try 1/4, within 30s
  0.000  → a #2 try 1/4, within 30s
  0.000  → a #3 try 1/4, within 30s
  0.000  → a #4 try 1/4, within 30s
  0.000  → a #5 try 1/4, within 30s
  0.000  commit #1 settled
  0.000  answer Acked { late: false }
  0.000  commit #3 settled
  0.000  answer Acked { late: false }

# two tries of the second, both known
pass 61s
---
 30.000  commit #2 attempt 1 by a: Timeout
 30.000  report Retry { offset: Offset(2), retry: 1, of: 3, delay: 1s, outcome: Timeout }
 30.000  commit #4 attempt 1 by a: Timeout
 30.000  report Retry { offset: Offset(4), retry: 1, of: 3, delay: 1s, outcome: Timeout }
 30.000  commit #5 attempt 1 by a: Timeout
 30.000  report Retry { offset: Offset(5), retry: 1, of: 3, delay: 1s, outcome: Timeout }
 31.000  → a #2 try 2/4, within 30s
 31.000  → a #4 try 2/4, within 30s
 31.000  → a #5 try 2/4, within 30s
 61.000  commit #2 attempt 2 by a: Timeout
 61.000  report Retry { offset: Offset(2), retry: 2, of: 3, delay: 2s, outcome: Timeout }
 61.000  commit #4 attempt 2 by a: Timeout
 61.000  report Retry { offset: Offset(4), retry: 2, of: 3, delay: 2s, outcome: Timeout }
 61.000  commit #5 attempt 2 by a: Timeout
 61.000  report Retry { offset: Offset(5), retry: 2, of: 3, delay: 2s, outcome: Timeout }

hold
ack a 4
---
 61.000  commit #4 settled
 61.000  report LateAck { offset: Offset(4) }
 61.000  answer Acked { late: true }

# the acknowledgement of the fourth was not committed; of the third it was
restart
---

commit
join b
---
 61.000  report Joined { member: "b", members: 1 }
 61.000  → b #2 try 3/4, within 30s
 61.000  → b #4 try 3/4, within 30s
 61.000  → b #5 try 3/4, within 30s

# the count goes on where it was
pass 30s
---
 91.000  commit #2 attempt 3 by b: Timeout
 91.000  report Retry { offset: Offset(2), retry: 3, of: 3, delay: 4s, outcome: Timeout }
 91.000  commit #4 attempt 3 by b: Timeout
 91.000  report Retry { offset: Offset(4), retry: 3, of: 3, delay: 4s, outcome: Timeout }
 91.000  commit #5 attempt 3 by b: Timeout
 91.000  report Retry { offset: Offset(5), retry: 3, of: 3, delay: 4s, outcome: Timeout }

pass 34s
---
 95.000  → b #2 try 4/4, within 30s
 95.000  → b #4 try 4/4, within 30s
 95.000  → b #5 try 4/4, within 30s
125.000  commit #2 dead letter after 4, b: Timeout
125.000  report DeadLettered { offset: Offset(2), attempts: 4 }
125.000  commit #4 dead letter after 4, b: Timeout
125.000  report DeadLettered { offset: Offset(4), attempts: 4 }
125.000  commit #5 dead letter after 4, b: Timeout
125.000  report DeadLettered { offset: Offset(5), attempts: 4 }
